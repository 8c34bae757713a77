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
        for (std::size_t i = 0; i < live.size() && !scan_.torn && !scan_.damage; ++i) {
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
                    scan_.damage = entry.error();
                else
                    scan_.torn = true;
                return {};
            }
            if (entry->end() > end) {
                scan_.damage = Error{Errc::corrupt, 0,
                                     fmt::format("journal segment {}: the entry at position {} reaches into the next segment",
                                                 reader_.segment().path.string(), at)};
                return {};
            }
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
    scan.from = scan.end = from;
    if (live.empty() ? from != 0 : live.front().header.first > from)
        scan.damage = Error{Errc::corrupt, 0,
                            fmt::format("journal {} lacks the segment that holds position {}", dir.string(), from)};
    else
        BLKFERRY_TRY(Scanner(files, scan, visit).run());
    // A damaged segment below all that is read was only kept for later; what one behind it held is gone.
    const auto holding = std::ranges::find_if(live, [&](const Segment& s) { return s.header.first > scan.from; });
    const std::uint64_t needed = holding == live.begin() ? 0 : std::prev(holding)->header.number;
    for (const DamagedSegment& d : scan.segments.damaged)
        if (!scan.damage && d.number > needed)
            scan.damage = d.error;
    scan.committed = std::min(scan.committed, scan.end);
    return scan;
}

}  // namespace blkferry::store
