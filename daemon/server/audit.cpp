// SPDX-License-Identifier: Apache-2.0
#include "server/audit.hpp"

#include <cerrno>
#include <ctime>

#include <fcntl.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/fd.hpp"

namespace blkferry::server {

namespace {

constexpr std::uint64_t minute_ns = 60'000'000'000;

std::string time_text(std::uint64_t ns) {
    const auto seconds = static_cast<std::time_t>(ns / 1'000'000'000);
    std::tm tm{};
    ::gmtime_r(&seconds, &tm);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
                       tm.tm_sec, ns / 1'000'000 % 1000);
}

}  // namespace

Result<void> Audit::record(std::string_view event, const Members& members) {
    nlohmann::ordered_json line{{"time", time_text(clock_.realtime_ns())}, {"event", event}};
    std::string text = fmt::format("audit={}", event);
    for (const auto& [key, value] : members) {
        line[std::string(key)] = value;
        text += fmt::format(" {}={}", key, quote(value));
    }
    log_.info("{}", text);
    const std::string bytes = line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    BLKFERRY_TRY_ASSIGN(const Fd file, open_file(file_, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600));
    // One write(2) a line: with O_APPEND lines of two writers do not mix.
    const ssize_t n = ::write(file.get(), bytes.data(), bytes.size());
    if (n != static_cast<ssize_t>(bytes.size()) || ::fdatasync(file.get()) != 0)
        return fail_errno(n >= 0 && n != static_cast<ssize_t>(bytes.size()) ? ENOSPC : errno,
                          fmt::format("audit file {}: what is not recorded is not done", file_.string()));
    return {};
}

void Audit::refused(const Members& members) {
    const std::uint64_t now = clock_.monotonic_ns();
    if (now - window_ns_ >= minute_ns || window_ns_ == 0) {
        window_ns_ = now;
        in_window_ = 0;
    }
    if (++in_window_ > refusals_max) {
        ++left_out_;
        return;
    }
    Members all = members;
    if (left_out_ > 0)
        all.emplace_back("left_out_before", std::to_string(std::exchange(left_out_, 0)));
    if (const auto r = record("refused", all); !r)
        log_.error("audit=failed error={}", quote(r.error()));
}

}  // namespace blkferry::server
