// SPDX-License-Identifier: Apache-2.0
#include "store/journal_reader.hpp"

#include <limits>

#include <fmt/format.h>

namespace blkferry::store {

JournalReader::JournalReader(FileSystem& files, std::filesystem::path dir, const Uuid& store, Position at)
    : files_(files), dir_(std::move(dir)), store_(store), at_(at) {}

Result<void> JournalReader::locate(Position limit) {
    BLKFERRY_TRY_ASSIGN(const SegmentList list, list_segments(files_, dir_, store_));
    for (std::size_t i = list.live.size(); i-- > 0;) {
        const Segment& s = list.live[i];
        if (s.header.first > at_)
            continue;
        const bool same = reader_.is_open() && reader_.segment().path == s.path && reader_.segment().header == s.header;
        if (!same)
            BLKFERRY_TRY(reader_.open(files_, s));
        segment_end_ = i + 1 < list.live.size() ? list.live[i + 1].header.first : std::numeric_limits<Position>::max();
        return {};
    }
    return fail(Errc::not_found, fmt::format("journal {} does not hold position {} any more (wanted up to {})",
                                             dir_.string(), at_, limit));
}

template <class Read>
Result<EntryView> JournalReader::step(Position limit, Read&& read) {
    if (at_ >= limit)
        return fail(Errc::again, "end of the durable journal");
    bool fresh = false;
    if (!reader_.is_open() || at_ < reader_.segment().header.first || at_ >= segment_end_) {
        BLKFERRY_TRY(locate(limit));
        fresh = true;
    }
    auto view = read(std::min(limit, segment_end_));
    if (!view && view.error().code == Errc::corrupt && !fresh) {
        // The newest segment may have been followed by another one since it was opened.
        BLKFERRY_TRY(locate(limit));
        view = read(std::min(limit, segment_end_));
    }
    if (!view)
        return view;
    if (view->end() > std::min(limit, segment_end_))
        return fail(Errc::corrupt, fmt::format("journal segment {}: the entry at position {} reaches beyond {}",
                                               reader_.segment().path.string(), at_, std::min(limit, segment_end_)));
    at_ = view->end();
    return view;
}

template <class Read>
Result<EntryView> JournalReader::step_over_pads(Position limit, Read&& read) {
    for (;;) {
        auto view = step(limit, read);
        if (!view || view->header.type != EntryType::pad)
            return view;
    }
}

Result<EntryView> JournalReader::next(Position limit) {
    return step_over_pads(limit, [this](Position end) { return reader_.entry(at_, end); });
}

Result<EntryView> JournalReader::next_head(Position limit, std::size_t body_bytes) {
    return step_over_pads(limit, [this, body_bytes](Position end) { return reader_.head(at_, end, body_bytes); });
}

}  // namespace blkferry::store
