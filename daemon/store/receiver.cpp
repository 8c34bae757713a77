// SPDX-License-Identifier: Apache-2.0
#include "store/receiver.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "extent/extent_set.hpp"

namespace blkferry::store {

using proto::FrameType;

namespace {
std::unexpected<Error> refuse(std::uint64_t batch, std::string_view why) {
    return fail(Errc::invalid, fmt::format("batch {} refused: {}", batch, why));
}
}  // namespace

Result<Receiver::Step> Receiver::take(const proto::FrameHeader& header, std::span<const std::byte> body,
                                      Position position) {
    if (bad_)
        return refuse(batch_ + 1, "an earlier frame of this connection was refused, connect anew");
    Step step;
    if (auto r = dispatch(header, body, position, step); !r) {
        bad_ = true;
        return std::unexpected(std::move(r).error());
    }
    return step;
}

void Receiver::reset() {
    if (saved_)
        table_ = std::move(*saved_);
    saved_.reset();
    open_ = false;
    bad_ = false;
    captured_.clear();
}

Result<void> Receiver::dispatch(const proto::FrameHeader& header, std::span<const std::byte> body, Position position,
                                Step& step) {
    if (header.batch != batch_ + 1)
        return refuse(header.batch, fmt::format("batch {} is expected", batch_ + 1));
    const bool begins = header.type == FrameType::batch_begin;
    if (begins == open_)
        return refuse(header.batch, begins ? "BATCH_BEGIN inside of a batch" : "it was not begun");
    if (header.index != (begins ? 0 : next_index_))
        return refuse(header.batch, fmt::format("frame index {} where {} is expected", header.index,
                                                begins ? 0 : next_index_));
    if (header.index >= proto::batch_frames_max)
        return refuse(header.batch, fmt::format("more than {} frames", proto::batch_frames_max));
    next_index_ = header.index + 1;
    switch (header.type) {
        case FrameType::batch_begin: step.batch_begin = true; return begin(body);
        case FrameType::extents: return extents(body);
        case FrameType::epoch_begin: return epoch_begin(body, position);
        case FrameType::epoch_end: return epoch_end(body, position);
        case FrameType::point_request: return point_request(body);
        case FrameType::batch_end: return end(body, step);
        case FrameType::hello:
        case FrameType::welcome:
        case FrameType::ack:
        case FrameType::epoch_result:
        case FrameType::point_result:
        case FrameType::hash_ask:
        case FrameType::hash_reply:
        case FrameType::heartbeat:
        case FrameType::error:
        case FrameType::cert_request:
        case FrameType::cert_reply:
        case FrameType::retire: break;
    }
    return refuse(header.batch, fmt::format("{} does not belong into a batch", to_string(header.type)));
}

Result<void> Receiver::begin(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(begin_, proto::decode_batch_begin(body));
    if (begin_.prev_mark != mark_)
        return refuse(batch_ + 1, fmt::format("it follows mark {}, but the batch before ended at mark {}",
                                              begin_.prev_mark, mark_));
    if (begin_.mark < begin_.prev_mark)
        return refuse(batch_ + 1, fmt::format("mark {} is below the mark before it, {}", begin_.mark, mark_));
    open_ = true;
    entries_ = 0;
    payload_bytes_ = 0;
    points_ = 0;
    touched_.fill(false);
    named_.fill({});
    captured_.clear();
    saved_.reset();
    return {};
}

/// An agent folds its batches, so what it names of a disk is hardly more than the disk. Sixteen bytes can name two tebibytes: without
/// this bound one batch would be work for hours.
Result<void> Receiver::name(const proto::ExtentEntry& e, const Disk& disk) {
    std::uint64_t& named = named_[e.slot][proto::is_resync(e.kind) ? 1 : 0];
    named += e.extent.count;
    if (named > 2 * disk.info.sectors)
        return refuse(batch_ + 1, fmt::format("its extents name more than twice the sectors of disk slot {}: a batch is to be folded", e.slot));
    return {};
}

Result<Disk*> Receiver::disk(std::uint16_t slot, std::string_view what) {
    Disk* disk = table_.find(slot);
    if (disk == nullptr)
        return refuse(batch_ + 1, fmt::format("{} for disk slot {}, which HELLO did not announce", what, slot));
    return disk;
}

Result<void> Receiver::extents(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const proto::ExtentsView view, proto::decode_extents(body));
    entries_ += view.entries.size();
    payload_bytes_ += view.payload.size();
    if (entries_ > proto::batch_extents_max || payload_bytes_ > proto::batch_payload_bytes_max)
        return refuse(batch_ + 1, fmt::format("more than {} extents or {} payload bytes", proto::batch_extents_max,
                                              proto::batch_payload_bytes_max));
    const Disk* known = nullptr;
    for (const proto::ExtentEntry& e : view.entries) {
        if (known == nullptr || known->info.slot != e.slot) {
            BLKFERRY_TRY_ASSIGN(known, disk(e.slot, "extent"));
            touched_[e.slot] = true;
        }
        if (e.extent.end() > known->info.sectors)
            return refuse(batch_ + 1, fmt::format("extent at sector {} with {} sectors lies beyond the end of disk slot {} "
                                                  "({} sectors)",
                                                  e.extent.sector, e.extent.count, e.slot, known->info.sectors));
        BLKFERRY_TRY(name(e, *known));
        if (!proto::is_resync(e.kind))
            captured_.push_back({e.slot, e.extent});
        else if (!known->epoch)
            return refuse(batch_ + 1, fmt::format("resync data for disk slot {}, which has no open epoch", e.slot));
    }
    return {};
}

Result<void> Receiver::epoch_begin(std::span<const std::byte> body, Position position) {
    BLKFERRY_TRY_ASSIGN(const proto::EpochBegin m, proto::decode_epoch_begin(body));
    BLKFERRY_TRY_ASSIGN(Disk * target, disk(m.slot, "EPOCH_BEGIN"));
    if (begin_.prev_mark < m.seq0)
        return refuse(batch_ + 1, fmt::format("the epoch of disk slot {} begins at {}, behind the mark before this batch, "
                                              "{}",
                                              m.slot, m.seq0, begin_.prev_mark));
    if (touched_[m.slot])
        return refuse(batch_ + 1, fmt::format("EPOCH_BEGIN for disk slot {} comes behind extents of it", m.slot));
    if (m.sectors > target->info.sectors)
        return refuse(batch_ + 1, fmt::format("the epoch of disk slot {} announces {} sectors, the disk has {}", m.slot,
                                              m.sectors, target->info.sectors));
    if (!saved_)
        saved_ = table_;
    table_.begin_epoch(*target, m, position);
    return {};
}

Result<void> Receiver::epoch_end(std::span<const std::byte> body, Position position) {
    BLKFERRY_TRY_ASSIGN(const proto::EpochEnd m, proto::decode_epoch_end(body));
    BLKFERRY_TRY_ASSIGN(Disk * target, disk(m.slot, "EPOCH_END"));
    if (!target->epoch) {
        // Sent again by an agent that missed the result: answered once more when it is applied.
        if (target->last && target->last->seq0 == m.seq0)
            return {};
        return refuse(batch_ + 1, fmt::format("EPOCH_END for disk slot {}, which has no open epoch", m.slot));
    }
    if (target->epoch->begin.seq0 != m.seq0)
        return refuse(batch_ + 1, fmt::format("EPOCH_END for disk slot {} names epoch {}, open is {}", m.slot, m.seq0,
                                              target->epoch->begin.seq0));
    if (!saved_)
        saved_ = table_;
    table_.end_epoch(*target, {.seq0 = m.seq0, .position = position, .known = false, .ok = false, .text = {}});
    return {};
}

Result<void> Receiver::point_request(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const proto::PointRequest m, proto::decode_point_request(body));
    if (++points_ > proto::batch_points_max)
        return refuse(batch_ + 1, fmt::format("more than {} point requests ({})", proto::batch_points_max, m.name));
    return {};
}

Result<void> Receiver::end(std::span<const std::byte> body, Step& step) {
    BLKFERRY_TRY_ASSIGN(const proto::BatchEnd m, proto::decode_batch_end(body));
    if (m.extents != entries_ || m.payload_bytes != payload_bytes_)
        return refuse(batch_ + 1, fmt::format("BATCH_END counts {} extents and {} payload bytes, {} and {} came", m.extents,
                                              m.payload_bytes, entries_, payload_bytes_));
    BLKFERRY_TRY(compare_set(m));
    open_ = false;
    saved_.reset();
    ++batch_;
    mark_ = begin_.mark;
    time_ns_ = begin_.time_ns;
    consistent_ = m.consistent;
    step.batch_end = true;
    step.consistent = m.consistent;
    step.points = points_;
    return {};
}

Result<void> Receiver::compare_set(const proto::BatchEnd& m) {
    if (!std::ranges::is_sorted(captured_))
        std::ranges::sort(captured_);
    SetDigest digest;
    std::uint64_t sectors = 0;
    for (std::size_t i = 0; i < captured_.size();) {
        const std::uint16_t slot = captured_[i].slot;
        const std::uint64_t first = captured_[i].extent.sector;
        std::uint64_t end = captured_[i].extent.end();
        for (++i; i < captured_.size() && captured_[i].slot == slot && captured_[i].extent.sector <= end; ++i)
            end = std::max(end, captured_[i].extent.end());
        digest.add(slot, Extent{first, end - first});
        sectors += end - first;
    }
    captured_.clear();
    if (captured_.capacity() > proto::frame_extents_max)
        captured_.shrink_to_fit();
    if (sectors != m.sectors || digest.value() != m.digest)
        return refuse(batch_ + 1, fmt::format("the set of captured sectors differs: {} with digest {:016x} came, BATCH_END "
                                              "says {} with digest {:016x}",
                                              sectors, digest.value(), m.sectors, m.digest));
    return {};
}

}  // namespace blkferry::store
