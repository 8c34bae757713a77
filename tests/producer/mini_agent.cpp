// SPDX-License-Identifier: Apache-2.0
#include "mini_agent.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>

#include <fmt/format.h>

#include "proto/frame.hpp"

namespace blkferry::producer {

namespace {
constexpr std::size_t ops_per_batch = 2000;
constexpr std::uint64_t read_sectors_max = 512;
}  // namespace

Result<void> MiniAgent::add(const capture::DiskInfo& info) {
    const auto slot = static_cast<std::uint16_t>(disks_.size());
    ReplicaDisk d;
    d.id = info.disk;
    BLKFERRY_TRY_ASSIGN(capture::RingMemory memory, tracker_.open_ring(info.disk));
    BLKFERRY_TRY_ASSIGN(capture::Ring ring, capture::Ring::open(std::move(memory)));
    d.ring = std::make_unique<capture::Ring>(std::move(ring));
    BLKFERRY_TRY_ASSIGN(d.device, open_file(info.device_path, O_RDONLY));
    d.image.assign(info.sectors * sector_bytes, std::byte{0xee});
    merger_.add(*d.ring, slot);
    disks_.emplace(slot, std::move(d));
    return {};
}

Result<void> MiniAgent::restart() {
    folder_.clear();
    for (auto& [slot, d] : disks_) {
        merger_.remove(slot);
        d.ring.reset();
        BLKFERRY_TRY_ASSIGN(capture::RingMemory memory, tracker_.open_ring(d.id));
        BLKFERRY_TRY_ASSIGN(capture::Ring ring, capture::Ring::open(std::move(memory)));
        d.ring = std::make_unique<capture::Ring>(std::move(ring));
        d.at_block = 0;
    }
    merger_ = capture::Merger(mark_ + 1);
    for (auto& [slot, d] : disks_)
        merger_.add(*d.ring, slot);
    return {};
}

/// Fills the folder until the batch is closed: by a marker, by its size, or because nothing more is there.
Result<void> MiniAgent::collect(bool& any) {
    capture::CapturedOp op;
    for (std::size_t n = 0; n < ops_per_batch; ++n) {
        auto status = merger_.next(op);
        if (status == capture::Merger::Status::hole) {
            BLKFERRY_TRY_ASSIGN(const capture::TrackerInfo info, tracker_.info());
            BLKFERRY_TRY(tracker_.list());
            merger_.fence(info.void_seq);
            status = merger_.next(op);
        }
        if (status == capture::Merger::Status::bad)
            return std::unexpected(merger_.error());
        if (status != capture::Merger::Status::op)
            return {};
        any = true;
        ++counters_.ops;
        folder_.add(op);
        if (op.op == capture::OpKind::overflow)
            ++counters_.overflows;
        if (op.op == capture::OpKind::epoch_switch) {
            // The batch closes here: what follows belongs to the epoch.
            BLKFERRY_TRY(encode_and_apply(folder_.finish()));
            ReplicaDisk& d = disks_.at(op.slot);
            d.newer.clear();
            d.tracked = op.seq;
        }
    }
    return {};
}

Result<bool> MiniAgent::ship() {
    bool any = false;
    BLKFERRY_TRY(collect(any));
    if (!any && merger_.mark() == mark_)
        return false;
    BLKFERRY_TRY(encode_and_apply(folder_.finish()));
    return true;
}

Result<void> MiniAgent::encode_and_apply(fold::Folded folded) {
    fold::BatchParts parts;
    parts.batch = ++batch_;
    parts.begin = {.prev_mark = mark_, .mark = merger_.mark(), .time_ns = merger_.time_ns()};
    BLKFERRY_TRY_ASSIGN(const fold::BatchPlan plan, fold::BatchPlan::make(std::move(folded), std::move(parts)));
    std::vector<std::byte> stream;
    plan.begin(stream);
    fold::JobTotals totals;
    fold::FrameBuffer scratch;
    fold::FrameBuffer out;
    Compressor compressor(static_cast<Codec>(batch_ % 3), 1);
    for (std::size_t i = 0; i < plan.jobs(); ++i) {
        totals += plan.encode(i, &compressor, scratch, out);
        stream.insert(stream.end(), out.view().begin(), out.view().end());
    }
    plan.end(totals, consistent(), stream);
    counters_.wire_bytes += stream.size();
    BLKFERRY_TRY(apply(stream));
    mark_ = merger_.mark();
    merger_.ack(merger_.positions());
    ++counters_.batches;
    return {};
}

Result<void> MiniAgent::apply(std::span<const std::byte> stream) {
    proto::FrameReader reader;
    reader.feed(stream);
    Decompressor decompressor;
    std::vector<std::byte> scratch;
    for (;;) {
        proto::FrameReader::View view;
        BLKFERRY_TRY_ASSIGN(const auto status, reader.next(view));
        if (status == proto::FrameReader::Status::need_more)
            return {};
        BLKFERRY_TRY_ASSIGN(const auto raw, proto::decode_body(view.header, view.wire, decompressor, scratch));
        if (view.header.type != proto::FrameType::extents)
            continue;
        BLKFERRY_TRY_ASSIGN(const proto::ExtentsView extents, proto::decode_extents(raw));
        auto payload = extents.payload;
        for (const proto::ExtentEntry& e : extents.entries) {
            apply_extent(disks_.at(e.slot), e, payload.first(e.payload_bytes()));
            payload = payload.subspan(e.payload_bytes());
        }
    }
}

void MiniAgent::apply_extent(ReplicaDisk& d, const proto::ExtentEntry& e, std::span<const std::byte> payload) {
    std::byte* to = d.image.data() + e.extent.sector * sector_bytes;
    if (payload.empty())
        std::memset(to, 0, e.extent.count * sector_bytes);
    else
        std::memcpy(to, payload.data(), payload.size());
    if (d.tracked != 0)
        d.newer.insert(e.extent);
}

Result<void> MiniAgent::resync() {
    for (auto& [slot, d] : disks_)
        BLKFERRY_TRY(resync_disk(slot, d));
    return {};
}

Result<void> MiniAgent::begin_epoch(ReplicaDisk& d) {
    const auto seq0 = tracker_.resync_begin(d.id);
    if (!seq0) {
        const int e = seq0.error().sys_errno;
        return e == EAGAIN || e == ENOSPC ? Result<void>() : std::unexpected(seq0.error());
    }
    d.begun = *seq0;
    d.at_block = 0;
    ++counters_.epochs;
    return {};
}

Result<void> MiniAgent::resync_disk(std::uint16_t slot, ReplicaDisk& d) {
    const capture::RingStatus s = d.ring->status();
    const bool draining = (s.flags & BLKFERRY_CTL_DRAINING) != 0;
    if (s.state == capture::DiskState::bitmap || (s.state == capture::DiskState::ring && s.gap_seq != 0) || draining)
        return begin_epoch(d);
    if (s.state != capture::DiskState::resync)
        return {};
    d.begun = s.epoch_seq;       // it may have been begun by an agent before us
    if (d.tracked != d.begun)
        return {};               // what was captured before its start has to be shipped first
    BLKFERRY_TRY(read_runs(slot, d));
    if (d.ring->status().snap_blocks != 0)
        return {};
    const auto end = tracker_.resync_end(d.id);
    if (end)
        return {};
    if (end.error().sys_errno == EAGAIN)
        return begin_epoch(d);
    return end.error().sys_errno == ENOSPC || end.error().sys_errno == EINVAL ? Result<void>()
                                                                              : std::unexpected(end.error());
}

/// Reads some runs of the snapshot map; writes what was not captured since seq0; clears them in the module.
Result<void> MiniAgent::read_runs(std::uint16_t slot, ReplicaDisk& d) {
    std::vector<std::byte> buffer(read_sectors_max * sector_bytes);
    std::vector<Extent> done;
    capture::SnapshotCursor cursor(*d.ring, d.at_block);
    Extent run;
    for (int n = 0; n < 16; ++n) {
        if (!cursor.next(run, read_sectors_max)) {
            d.at_block = 0;
            break;
        }
        d.at_block = cursor.block();
        const auto part = std::span(buffer).first(run.count * sector_bytes);
        BLKFERRY_TRY(read_full_at(d.device.get(), part, run.sector * sector_bytes, fmt::format("disk of slot {}", slot)));
        for (const Extent& e : d.newer.missing(run))
            std::memcpy(d.image.data() + e.sector * sector_bytes, part.data() + (e.sector - run.sector) * sector_bytes,
                        e.count * sector_bytes);
        counters_.resync_sectors += run.count;
        done.push_back(run);
    }
    const auto cleared = tracker_.resync_clear(d.id, done, d.begun);
    if (!cleared && cleared.error().sys_errno != ESTALE)
        return std::unexpected(cleared.error());
    return {};
}

bool MiniAgent::consistent() {
    for (const auto& [slot, d] : disks_)
        if (!d.ring->status().consistent_at(merger_.mark()))
            return false;
    return true;
}

}  // namespace blkferry::producer
