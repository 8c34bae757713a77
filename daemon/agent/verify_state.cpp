// SPDX-License-Identifier: Apache-2.0
#include "agent/verify_state.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "proto/limits.hpp"

namespace blkferry::agent {

namespace {

using nlohmann::json;
constexpr std::size_t file_bytes_max = 64U << 10;
constexpr std::size_t error_bytes_max = 1024;
constexpr int format_version = 1;

/// at() and get() throw on a wrong shape; parse() turns that into an error.
std::uint64_t number(const json& j, const char* key) {
    const json& n = j.at(key);
    if (!n.is_number_unsigned())
        throw std::invalid_argument(fmt::format("'{}' is not a number", key));
    return n.get<std::uint64_t>();
}

std::uint16_t slot_of(std::uint64_t n) {
    if (n >= proto::disks_max)
        throw std::invalid_argument(fmt::format("slot {} is out of range", n));
    return static_cast<std::uint16_t>(n);
}

VerifyState::Running running_from(const json& j) {
    VerifyState::Running r;
    for (const std::uint64_t s : j.at("slots").get<std::vector<std::uint64_t>>())
        r.slots.push_back(slot_of(s));
    if (r.slots.empty() || !std::ranges::is_sorted(r.slots) || std::ranges::adjacent_find(r.slots) != r.slots.end())
        throw std::invalid_argument("'slots' is not an ascending list");
    r.place = {slot_of(number(j, "slot")), number(j, "sector")};
    r.differing_bytes = number(j, "differing_bytes");
    r.unsettled_bytes = number(j, "unsettled_bytes");
    r.began_ms = number(j, "began_ms");
    r.scheduled = j.at("scheduled").get<bool>();
    return r;
}

VerifyState::Last last_from(const json& j) {
    return {number(j, "began_ms"),        number(j, "ended_ms"),        number(j, "compared_bytes"),
            number(j, "differing_bytes"), number(j, "unsettled_bytes"), j.at("error").get<std::string>().substr(0, error_bytes_max)};
}

}  // namespace

Result<VerifyState> VerifyState::parse(const std::string& text) {
    try {
        const json j = json::parse(text);
        if (j.at("format").get<int>() != format_version)
            return fail(Errc::corrupt, "unknown format");
        VerifyState s;
        s.made_ms_ = number(j, "made_ms");
        if (j.contains("running"))
            s.running = running_from(j.at("running"));
        if (j.contains("last"))
            s.last = last_from(j.at("last"));
        return s;
    } catch (const std::exception& e) {
        return fail(Errc::corrupt, e.what());
    }
}

std::string VerifyState::text() const {
    json j = {{"format", format_version}, {"made_ms", made_ms_}};
    if (running)
        j["running"] = {{"slots", running->slots},
                        {"slot", running->place.slot},
                        {"sector", running->place.sector},
                        {"differing_bytes", running->differing_bytes},
                        {"unsettled_bytes", running->unsettled_bytes},
                        {"began_ms", running->began_ms},
                        {"scheduled", running->scheduled}};
    if (last)
        j["last"] = {{"began_ms", last->began_ms},
                     {"ended_ms", last->ended_ms},
                     {"compared_bytes", last->compared_bytes},
                     {"differing_bytes", last->differing_bytes},
                     {"unsettled_bytes", last->unsettled_bytes},
                     {"error", last->error.substr(0, error_bytes_max)}};
    return j.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

VerifyState VerifyState::open(const std::filesystem::path& dir, std::uint64_t now_ms, std::optional<Error>& damage) {
    const std::filesystem::path path = dir / "verify.json";
    VerifyState s;
    s.made_ms_ = now_ms;
    if (auto text = read_text_file(path, file_bytes_max)) {
        if (auto parsed = parse(*text))
            s = std::move(*parsed);
        else
            damage = std::move(parsed).error().with(path.string());
    } else if (text.error().code != Errc::not_found) {
        damage = std::move(text).error();
    }
    s.path_ = path;
    return s;
}

Result<void> VerifyState::save() const { return write_file_durable(path_, text()); }

std::uint64_t VerifyState::due_ms(std::uint64_t interval_ms, std::uint64_t now_ms) const noexcept {
    if (interval_ms == 0)
        return 0;
    const std::uint64_t since = last ? last->began_ms : made_ms_;
    set_back_ms_ = since > now_ms ? std::min(set_back_ms_, now_ms) : ~0ULL;
    return std::min(since, set_back_ms_) + interval_ms;
}

}  // namespace blkferry::agent
