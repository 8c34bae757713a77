// SPDX-License-Identifier: Apache-2.0
#include "store/entry_source.hpp"

#include <fmt/format.h>

namespace blkferry::store {

using proto::FrameType;

namespace {
std::unexpected<Error> corrupt(Position at, std::string_view why) {
    return fail(Errc::corrupt, fmt::format("journal at position {}: {}", at, why));
}

Result<proto::FrameHeader> frame_of(const EntryView& entry) {
    if (entry.header.type != EntryType::frame || entry.body.size() < proto::frame_header_bytes)
        return corrupt(entry.position(), "a frame of a batch is expected");
    auto header = proto::decode_header(entry.body.first<proto::frame_header_bytes>());
    if (!header)
        return corrupt(entry.position(), header.error().text);
    return *header;
}
}  // namespace

EntrySource::EntrySource(FileSystem& files, const std::filesystem::path& dir, const Uuid& store, HandOff* hand_off)
    : hand_off_(hand_off), reader_(files, dir, store, 0), scout_(files, dir, store, 0) {}

Result<JournalEntry> EntrySource::next(Position at, Position limit) {
    held_ = {};
    if (hand_off_ != nullptr && at < limit) {
        if (auto found = hand_off_->find(at); found && found->end <= limit) {
            held_ = std::move(*found);
            return held_;
        }
    }
    reader_.seek(at);
    BLKFERRY_TRY_ASSIGN(const EntryView view, reader_.next(limit));
    JournalEntry out{view.header.type, view.position(), view.end(), {}, view.body, {}};
    if (out.type != EntryType::frame)
        return out;
    BLKFERRY_TRY_ASSIGN(out.header, frame_of(view));
    auto body = proto::decode_body(out.header, view.body.subspan(proto::frame_header_bytes), decompressor_, scratch_);
    if (!body)
        return corrupt(out.position, body.error().text);
    out.body = *body;
    return out;
}

Result<EntrySource::BatchEnd> EntrySource::batch_end(const JournalEntry& head, Position limit) {
    if (head.header.type != FrameType::batch_begin)
        return corrupt(head.position, "a batch does not begin with BATCH_BEGIN");
    if (hand_off_ != nullptr)
        if (const auto known = hand_off_->batch_end(head.position))
            return BatchEnd{*known, false};
    scout_.seek(head.end);
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const EntryView next, scout_.next_head(limit, proto::frame_header_bytes));
        if (next.header.type == EntryType::session)
            return BatchEnd{next.position(), true};
        BLKFERRY_TRY_ASSIGN(const proto::FrameHeader frame, frame_of(next));
        if (frame.type == FrameType::batch_begin)
            return corrupt(next.position(), "a batch begins inside of another");
        if (frame.type == FrameType::batch_end)
            return BatchEnd{next.end(), false};
    }
}

}  // namespace blkferry::store
