// SPDX-License-Identifier: Apache-2.0
#include "store/removed_log.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "proto/limits.hpp"
#include "store/json_reader.hpp"

namespace blkferry::store {

namespace {

constexpr std::size_t file_bytes_max = 256U << 20;
constexpr std::size_t line_bytes_max = 4096;
/// So many lines may lie in the file beyond twice those that it needs.
constexpr std::size_t lines_spare = 256;
constexpr unsigned damaged_copies_max = 16;

nlohmann::json to_json(const RemovedPoint& p) {
    nlohmann::json j{{"serial", p.serial},
                     {"name", p.name},
                     {"hash", p.hash},
                     {"parent", p.parent_hash},
                     {"removed_ns", p.removed_ns}};
    if (p.first != p.serial)
        j["first"] = p.first;
    return j;
}

Result<std::string> encode_line(const RemovedPoint& p, const Signer* signer) {
    nlohmann::json j = to_json(p);
    if (signer != nullptr) {
        BLKFERRY_TRY_ASSIGN(const std::string signature, signer->sign(dump_json(j)));
        j["signature"] = signature;
    }
    return dump_json(j) + "\n";
}

Result<RemovedPoint> decode_line(std::string_view line, const Signer* verifier) {
    BLKFERRY_TRY_ASSIGN(const nlohmann::json j, parse_json(line, line_bytes_max, "removed point"));
    JsonReader in(j, "removed point");
    RemovedPoint p;
    p.serial = in.integer("serial");
    p.first = in.has("first") ? in.integer("first") : p.serial;
    p.name = in.text("name", proto::name_bytes_max);
    p.hash = in.text("hash", 64);
    p.parent_hash = in.text("parent", 64);
    p.removed_ns = in.integer("removed_ns");
    const std::string signature = in.has("signature") ? in.text("signature", 512) : std::string();
    if (p.first == 0 || p.first > p.serial)
        in.refuse("has impossible serials");
    BLKFERRY_TRY(in.finish());
    if (verifier != nullptr)
        BLKFERRY_TRY(verifier->verify(dump_json(to_json(p)), signature));
    return p;
}

bool follows(const RemovedPoint& a, const RemovedPoint& b) {
    return a.serial + 1 == b.first && (a.hash == b.parent_hash || a.hash.empty() || b.parent_hash.empty());
}

RemovedPoint fold(const RemovedPoint& a, const RemovedPoint& b) {
    RemovedPoint out = b;
    out.first = a.first;
    out.parent_hash = a.parent_hash;
    return out;
}

/// False if it overlaps with others; one that is there already is no news.
bool insert(RemovedLog::Runs& runs, RemovedPoint p) {
    auto next = runs.upper_bound(p.first);
    if (next != runs.begin()) {
        const auto before = std::prev(next);
        if (p.serial <= before->second.serial)
            return true;
        if (p.first <= before->second.serial)
            return false;
        if (follows(before->second, p)) {
            p = fold(before->second, p);
            runs.erase(before);
        }
    }
    if (next != runs.end() && next->first <= p.serial)
        return false;
    if (next != runs.end() && follows(p, next->second)) {
        p = fold(p, next->second);
        runs.erase(next);
    }
    runs.insert_or_assign(p.first, std::move(p));
    return true;
}

}  // namespace

RemovedLog::RemovedLog(FileSystem& files, std::filesystem::path path, const Signer* signer)
    : files_(files), path_(std::move(path)), signer_(signer) {}

Result<void> RemovedLog::load() {
    auto text = files_.read_text(path_, file_bytes_max);
    if (!text && text.error().code == Errc::not_found)
        return {};
    if (!text)
        return std::unexpected(std::move(text).error());
    std::string_view rest = *text;
    std::optional<Error> unread;  // the first line that cannot be read, as long as none that can came behind it
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
        const std::string_view line = rest.substr(0, end);
        ++lines_;
        auto point = decode_line(line, signer_);
        if (point && !insert(runs_, *point))
            point = fail(Errc::corrupt, fmt::format("removed point {} overlaps with others", point->serial));
        if (point && unread && !damage_)
            damage_ = std::move(unread);
        if (!point && !unread)
            unread = std::move(point).error().with(fmt::format("{} at byte {}", path_.string(), bytes_));
        bytes_ += end + 1;
        rest.remove_prefix(end + 1);
    }
    doubtful_ = unread.has_value() || !rest.empty() || damage_;
    if (damage_)
        damaged_text_ = std::move(*text);
    return {};
}

bool RemovedLog::contains(std::uint64_t serial) const noexcept {
    const auto it = runs_.upper_bound(serial);
    return it != runs_.begin() && serial <= std::prev(it)->second.serial;
}

bool RemovedLog::wants_rewrite() const noexcept {
    return lines_ > 2 * runs_.size() + lines_spare;
}

Result<void> RemovedLog::append(const RemovedPoint& point) {
    Runs runs = runs_;
    if (!insert(runs, point))
        return fail(Errc::conflict, fmt::format("{}: recovery point {} (serial {}) was removed already", path_.string(),
                                                point.name, point.serial));
    if (doubtful_ || wants_rewrite()) {
        BLKFERRY_TRY(write_all(runs));
        runs_ = std::move(runs);
        return {};
    }
    BLKFERRY_TRY_ASSIGN(const std::string text, encode_line(point, signer_));
    doubtful_ = true;
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file,
                        files_.open(path_, bytes_ == 0 ? OpenMode::create : OpenMode::update));
    BLKFERRY_TRY(file->write(std::as_bytes(std::span(text)), bytes_));
    BLKFERRY_TRY(file->sync());
    BLKFERRY_TRY(files_.sync_dir(path_.parent_path()));
    doubtful_ = false;
    bytes_ += text.size();
    ++lines_;
    runs_ = std::move(runs);
    return {};
}

Result<void> RemovedLog::rewrite() {
    return write_all(runs_);
}

Result<void> RemovedLog::write_all(const Runs& runs) {
    std::string text;
    for (const auto& [first, run] : runs) {
        BLKFERRY_TRY_ASSIGN(const std::string line, encode_line(run, signer_));
        text += line;
    }
    doubtful_ = true;
    if (damage_) {
        std::filesystem::path copy;
        for (unsigned i = 1; i <= damaged_copies_max; ++i) {
            copy = path_.parent_path() / fmt::format("{}{}", damaged_prefix, i);
            if (const auto there = files_.open(copy, OpenMode::read); !there && there.error().code == Errc::not_found)
                break;
        }
        BLKFERRY_TRY(files_.write_text_durable(copy, damaged_text_));
    }
    BLKFERRY_TRY(files_.write_text_durable(path_, text));
    damage_.reset();
    damaged_text_ = {};
    doubtful_ = false;
    bytes_ = text.size();
    lines_ = runs.size();
    return {};
}

}  // namespace blkferry::store
