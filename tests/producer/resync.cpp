// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <chrono>
#include <thread>

#include "disk.hpp"

namespace blkferry::producer {

namespace {
constexpr auto drain_max = std::chrono::milliseconds(500);
constexpr std::uint32_t ring_keep = 1;
}  // namespace

bool Disk::drained(std::uint32_t parity) {
    const auto end = std::chrono::steady_clock::now() + drain_max;
    for (;;) {
        {
            const std::scoped_lock held(lock_);
            if (inflight_[parity] == 0)
                return true;
        }
        if (std::chrono::steady_clock::now() > end)
            return false;
        std::this_thread::sleep_for(std::chrono::microseconds(300));
    }
}

/// Under lock_: starts an epoch.
Result<void> Disk::switch_epoch() {
    if (state_ == BLKFERRY_STOPPED)
        return refuse(ENODEV, "the disk was detached");
    if (state_ == BLKFERRY_RESYNC && map_.snap_bits != 0)
        return refuse(EBUSY, "the running round has blocks left: clear them first");
    if (state_ == BLKFERRY_RING && gap_seq_ == 0)
        return refuse(EINVAL, "no gap is open: nothing to resync");
    if (inflight_[parity_ ^ 1] != 0)
        return refuse(EAGAIN, "writes of the round before are in flight");
    if (bf_ring_room(&ring_) <= ring_keep)
        return refuse(ENOSPC, "the ring is full: consume it first");
    const std::uint64_t seq0 = marker(BLKFERRY_OP_SWITCH, 0);
    std::atomic_ref<__u64>(ctl().epoch_seq).store(seq0);
    gap(seq0);
    parity_ ^= 1;
    bf_map_move_begin(&map_);
    set_flags(BLKFERRY_CTL_DRAINING, BLKFERRY_CTL_BAD_CONSUMER);
    set_state(BLKFERRY_RESYNC);
    return {};
}

Result<std::uint64_t> Disk::resync_begin() {
    const std::scoped_lock control(control_);
    std::unique_lock held(lock_);
    if ((flags_ & BLKFERRY_CTL_DRAINING) == 0) {
        if (intake(ring_.desc_count) != 0) {
            bad_consumer();
            tell(held);
            return refuse(EINVAL, "the consumer's tail is not valid: set it to kernel_tail");
        }
        const std::uint32_t old = parity_ ^ 1;
        held.unlock();
        if (!drained(old))
            return refuse(EAGAIN, "writes of the round before are in flight");
        held.lock();
        const auto switched = switch_epoch();
        tell(held);
        if (!switched)
            return std::unexpected(switched.error());
        for (std::uint64_t c = 0; c < map_.nchunks; ++c) {
            const std::scoped_lock chunk(lock_);
            bf_map_move_chunk(&map_, c);
            publish_map();
        }
        held.lock();
        bf_map_move_end(&map_);
    }
    const std::uint32_t old = parity_ ^ 1;
    held.unlock();
    if (!drained(old))
        return refuse(EAGAIN, "writes that were in flight at the switch have not ended");
    held.lock();
    if (state_ != BLKFERRY_RESYNC)
        return refuse(state_ == BLKFERRY_STOPPED ? ENODEV : EAGAIN, "the ring overflowed meanwhile");
    set_flags(0, BLKFERRY_CTL_DRAINING);
    return ctl().epoch_seq;
}

Result<void> Disk::check_ranges(std::span<const Extent> ranges) const {
    for (const Extent& e : ranges)
        if (!bf_extent_valid(e.sector, e.count, sectors_))
            return refuse(EINVAL, "a range is empty or ends beyond the disk");
    return {};
}

Result<void> Disk::resync_clear(std::span<const Extent> ranges, std::uint64_t epoch) {
    BLKFERRY_TRY(check_ranges(ranges));
    const std::scoped_lock control(control_);
    const std::scoped_lock held(lock_);
    if (epoch != 0 && epoch != ctl().epoch_seq)
        return refuse(ESTALE, "that epoch does not run any more");
    for (const Extent& e : ranges) {
        u64 past = 0;
        const u64 first = bf_extent_inner(e.sector, e.count, sectors_, map_shift_, &past);
        if (first < past)
            bf_map_clear_snap(&map_, first, past);
    }
    publish_map();
    return {};
}

Result<std::uint64_t> Disk::resync_end() {
    const std::scoped_lock control(control_);
    std::unique_lock held(lock_);
    if (intake(ring_.desc_count) != 0)
        bad_consumer();
    Result<std::uint64_t> seq = 0;
    if (state_ != BLKFERRY_RESYNC) {
        seq = refuse(EINVAL, "no resync is running");
    } else if (map_.snap_bits != 0 || (flags_ & BLKFERRY_CTL_DRAINING) != 0) {
        seq = refuse(EBUSY, "the running round has not ended");
    } else if (map_.active_bits != 0) {
        seq = refuse(EAGAIN, "blocks were marked meanwhile: one more round");
    } else if (bf_ring_room(&ring_) <= ring_keep) {
        seq = refuse(ENOSPC, "the ring is full: consume it first");
    } else {
        seq = marker(BLKFERRY_OP_CUT, 0);
        gap_seq_ = 0;
        std::atomic_ref<__u64>(ctl().close_seq).store(*seq);
        std::atomic_ref<__u64>(ctl().gap_seq).store(0, std::memory_order_release);
        std::atomic_ref<__u64>(ctl().epoch_seq).store(0);
        set_state(BLKFERRY_RING);
    }
    tell(held);
    return seq;
}

Result<void> Disk::mark_dirty(std::span<const Extent> ranges) {
    BLKFERRY_TRY(check_ranges(ranges));
    const std::scoped_lock control(control_);
    std::unique_lock held(lock_);
    if (state_ == BLKFERRY_STOPPED)
        return refuse(ENODEV, "the disk was detached");
    gap_next();
    if (ranges.empty()) {
        set_flags(0, BLKFERRY_CTL_UNTRACKED);
        mark(0, sectors_);
    }
    for (const Extent& e : ranges)
        mark(e.sector, e.count);
    tell(held);
    return {};
}

Result<std::uint64_t> Disk::cut(std::uint16_t flags) {
    std::unique_lock held(lock_);
    if (state_ != BLKFERRY_RING && state_ != BLKFERRY_RESYNC)
        return refuse(ENODEV, "the disk is not in RING or RESYNC");
    if (bf_ring_room(&ring_) <= ring_keep && (intake(256) != 0 || bf_ring_room(&ring_) <= ring_keep))
        return refuse(ENOSPC, "the ring is full: consume it first");
    const std::uint64_t seq = marker(BLKFERRY_OP_CUT, flags);
    tell(held);
    return seq;
}

bool Disk::holds_numbers() {
    const std::scoped_lock held(lock_);
    if (intake(ring_.desc_count) != 0)
        bad_consumer();
    return state_ >= BLKFERRY_RESYNC || ring_.head != ring_.tail;
}

void Disk::stop() {
    std::unique_lock held(lock_);
    set_state(BLKFERRY_STOPPED);
    news_pending_ |= 1U << BLKFERRY_EV_DETACHED;
    tell(held);
    const std::scoped_lock again(lock_);
    wake_.reset();
}

capture::DiskInfo Disk::info() {
    capture::DiskInfo i;
    const std::scoped_lock held(lock_);
    const blkferry_ctl& c = ctl();
    i.disk = config_.id;
    i.dev = config_.dev;
    i.name = config_.path.substr(config_.path.find_last_of('/') + 1);
    i.device_path = config_.path;
    i.data_bytes = config_.data_bytes;
    i.descs = config_.descs;
    i.inline_max = config_.inline_max;
    i.state = static_cast<capture::DiskState>(state_);
    i.flags = flags_;
    i.sectors = sectors_;
    i.block_shift = c.block_shift;
    for (std::size_t k = 0; k < i.attach_id.bytes.size(); ++k)
        i.attach_id.bytes[k] = c.attach_id[k];
    i.gap_seq = gap_seq_;
    i.close_seq = c.close_seq;
    i.epoch_seq = c.epoch_seq;
    i.active_blocks = map_.active_bits;
    i.snap_blocks = map_.snap_bits;
    for (const Region& r : regions_)
        i.memory += r.bytes;
    i.memory += active_.size() * 8 + moved_.size() + sizeof(bf_overlap);
    i.counters.assign(c.counters, c.counters + BLKFERRY_C_MAX);
    return i;
}

}  // namespace blkferry::producer
