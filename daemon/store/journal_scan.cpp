// SPDX-License-Identifier: Apache-2.0
#include "store/journal_scan.hpp"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

namespace blkferry::store {

namespace {

class Scanner {
public:
    Scanner(FileSystem& files, JournalScan& scan, const std::function<Result<void>(const EntryView&)>& visit)
        : files_(files), scan_(scan), visit_(visit) {}

    Result<void> run() {
        const auto& live = scan_.segments.live;
        for (std::size_t i = 0; i < live.size() && !scan_.torn; ++i) {
            const Position end = end_of(i);
            if (end <= scan_.from)
                continue;
            BLKFERRY_TRY(reader_.open(files_, live[i]));
            scan_.committed = std::max(scan_.committed, live[i].header.committed);
            BLKFERRY_TRY(segment(i, std::max(scan_.from, live[i].header.first), end));
        }
        return {};
    }

private:
    Position end_of(std::size_t i) const {
        const auto& live = scan_.segments.live;
        return i + 1 == live.size() ? std::numeric_limits<Position>::max() : live[i + 1].header.first;
    }

    Result<void> segment(std::size_t i, Position at, Position end) {
        scan_.end = at;
        while (at < end) {
            const auto entry = reader_.entry(at, end);
            if (!entry && entry.error().code != Errc::corrupt)
                return std::unexpected(entry.error());
            if (!entry) {
                BLKFERRY_TRY_ASSIGN(const bool durable, testimony(i, at));
                if (durable)
                    return std::unexpected(entry.error());
                scan_.torn = true;
                return {};
            }
            if (entry->end() > end)
                return fail(Errc::corrupt, fmt::format("journal segment {}: the entry at position {} reaches into the next "
                                                       "segment",
                                                       reader_.segment().path.string(), at));
            scan_.committed = std::max(scan_.committed, entry->header.committed);
            if (entry->header.type != EntryType::pad)
                BLKFERRY_TRY(visit_(*entry));
            at = scan_.end = entry->end();
        }
        return {};
    }

    /// Whether something behind position `at` of segment `i` says that `at` was durable.
    Result<bool> testimony(std::size_t i, Position at) {
        const auto& live = scan_.segments.live;
        BLKFERRY_TRY_ASSIGN(bool durable, reader_.durable_evidence(at, at));
        for (std::size_t later = i + 1; later < live.size() && !durable; ++later) {
            durable = live[later].header.committed > at;
            if (durable)
                break;
            SegmentReader other;
            BLKFERRY_TRY(other.open(files_, live[later]));
            BLKFERRY_TRY_ASSIGN(durable, other.durable_evidence(live[later].header.first, at));
        }
        return durable;
    }

    FileSystem& files_;
    JournalScan& scan_;
    const std::function<Result<void>(const EntryView&)>& visit_;
    SegmentReader reader_;
};

}  // namespace

Result<JournalScan> journal_scan(FileSystem& files, const std::filesystem::path& dir, const Uuid& store, Position from,
                                 const std::function<Result<void>(const EntryView&)>& visit) {
    JournalScan scan;
    BLKFERRY_TRY_ASSIGN(scan.segments, list_segments(files, dir, store));
    const auto& live = scan.segments.live;
    if (live.empty() ? from != 0 : live.front().header.first > from)
        return fail(Errc::corrupt, fmt::format("journal {} lacks the segment that holds position {}", dir.string(), from));
    scan.from = scan.end = from;
    BLKFERRY_TRY(Scanner(files, scan, visit).run());
    scan.committed = std::min(scan.committed, scan.end);
    return scan;
}

}  // namespace blkferry::store
