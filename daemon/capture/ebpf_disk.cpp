// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include <fmt/format.h>

#include "capture/ebpf_tracker.hpp"

namespace blkferry::capture {

namespace {

constexpr std::uint64_t count_pause_ns = 200'000'000;

std::uint64_t load(const unsigned long long& word) noexcept {
    return __atomic_load_n(&word, __ATOMIC_SEQ_CST);
}

std::unexpected<Error> refuse(int err, std::string text) {
    return std::unexpected(Error{err == EAGAIN ? Errc::again : Errc::conflict, err, std::move(text)});
}

}  // namespace

EbpfDisk::EbpfDisk(MarkerRing ring, ProbeMemory memory) : ring_(std::move(ring)), memory_(std::move(memory)) {
    MarkerRing::publish(ring_.ctl().gap_seq, gap_seq_);
    set_state(DiskState::bitmap);
    observe(1, count_pause_ns);
}

std::uint64_t EbpfDisk::events() const noexcept {
    return load(memory_.disk->events);
}

/// The order of the reads matters, see "Without the module" in docs/capture.md.
bool EbpfDisk::quiet() const noexcept {
    const bool clean = drained_ && events() == round_events_ && load(memory_.disk->inflight) == 0 && load(memory_.disk->full) == 0 &&
                       load(memory_.disk->passthrough) == passthrough_ && (flags_ & BLKFERRY_CTL_UNTRACKED) == 0;
    return clean && events() == round_events_;
}

void EbpfDisk::set_state(DiskState state) noexcept {
    state_ = state;
    MarkerRing::publish(ring_.ctl().state, static_cast<std::uint32_t>(state));
    ring_.wake();
}

void EbpfDisk::open_gap(std::uint64_t seq) noexcept {
    if (gap_seq_ != 0)
        return;
    gap_seq_ = seq;
    MarkerRing::publish(ring_.ctl().gap_seq, seq);
    ring_.wake();
}

void EbpfDisk::publish_snap(std::uint64_t blocks) noexcept {
    snap_blocks_ = blocks;
    MarkerRing::publish(ring_.ctl().snap_blocks, blocks);
}

void EbpfDisk::publish_counters() noexcept {
    const bf_probe_disk& d = *memory_.disk;
    __u64* c = ring_.ctl().counters;
    MarkerRing::publish(c[BLKFERRY_C_DIRTY_OPS], load(d.ops));
    MarkerRing::publish(c[BLKFERRY_C_DIRTY_SECTORS], load(d.sectors_issued));
    MarkerRing::publish(c[BLKFERRY_C_FAILED], load(d.failed));
    MarkerRing::publish(c[BLKFERRY_C_UNKNOWN], load(d.unknown));
    MarkerRing::publish(c[BLKFERRY_C_INFLIGHT_FULL], load(d.full));
    MarkerRing::publish(c[BLKFERRY_C_REUSED], load(d.stale));
    MarkerRing::publish(c[BLKFERRY_C_PASSTHROUGH], load(d.passthrough));
    MarkerRing::publish(c[BLKFERRY_C_BEYOND_END], load(d.beyond_end));
}

void EbpfDisk::suspect() noexcept {
    flags_ |= BLKFERRY_CTL_UNTRACKED;
    MarkerRing::publish(ring_.ctl().flags, flags_);
}

void EbpfDisk::observe(std::uint64_t next_seq, std::uint64_t now_ns) noexcept {
    if (state_ == DiskState::stopped)
        return;
    publish_counters();
    if (load(memory_.disk->passthrough) != passthrough_)
        suspect();
    if (state_ == DiskState::ring && !quiet())
        open_gap(next_seq);
    const std::uint64_t seen = events();
    if ((seen != counted_events_ || counted_ns_ == 0) && now_ns - counted_ns_ >= count_pause_ns) {
        counted_events_ = seen;
        counted_ns_ = now_ns;
        MarkerRing::publish(ring_.ctl().active_blocks, count_blocks(memory_.dirty));
    }
}

Result<void> EbpfDisk::begin(std::uint64_t seq) {
    // Before the map is taken: whatever happens after this read counts against the round.
    round_events_ = events();
    open_gap(seq);
    ring_.append(BLKFERRY_OP_SWITCH, seq);
    epoch_seq_ = seq;
    MarkerRing::publish(ring_.ctl().epoch_seq, seq);
    publish_snap(snap_blocks_ + take_blocks(memory_.dirty, ring_.snap()));
    counted_events_ = round_events_;
    MarkerRing::publish(ring_.ctl().active_blocks, 0);
    set_state(DiskState::resync);
    return {};
}

Result<void> EbpfDisk::clear(std::span<const Extent> ranges, std::optional<std::uint64_t> epoch) {
    if (state_ != DiskState::resync || (epoch && *epoch != epoch_seq_))
        return refuse(ESTALE, "the epoch does not run any more");
    const std::uint64_t sectors = memory_.disk->sectors;
    const std::uint32_t shift = memory_.disk->block_shift;
    const std::uint64_t mask = (1ULL << shift) - 1;
    std::uint64_t cleared = 0;
    for (const Extent& e : ranges) {
        if (e.count == 0 || e.sector >= sectors || e.count > sectors - e.sector)
            return refuse(EINVAL, fmt::format("sectors {}+{} are not on the disk", e.sector, e.count));
        const std::uint64_t past = e.end() == sectors ? (sectors + mask) >> shift : e.end() >> shift;
        cleared += clear_blocks(ring_.snap(), (e.sector + mask) >> shift, past);
    }
    publish_snap(snap_blocks_ - cleared);
    return {};
}

Result<void> EbpfDisk::may_end() noexcept {
    if (state_ != DiskState::resync)
        return refuse(EINVAL, "no resync runs");
    if (snap_blocks_ != 0)
        return refuse(EBUSY, "the snapshot map is not empty");
    if (!ring_.room())
        return refuse(ENOSPC, "the ring of markers is full");
    if (!quiet())
        return refuse(EAGAIN, drained_ ? "the disk was written since the round began"
                                       : "writes that were under way when tracking began may not have ended yet");
    return {};
}

void EbpfDisk::end(std::uint64_t seq) noexcept {
    close_seq_ = seq;
    epoch_seq_ = gap_seq_ = 0;
    // A write between may_end() and here: the mark does not count, a gap opens at once.
    if (!quiet())
        gap_seq_ = seq;
    MarkerRing::publish(ring_.ctl().close_seq, seq);
    MarkerRing::publish(ring_.ctl().epoch_seq, 0);
    MarkerRing::publish(ring_.ctl().gap_seq, gap_seq_);
    set_state(DiskState::ring);
    append_cut(seq);
}

Result<void> EbpfDisk::mark_dirty(std::span<const Extent> ranges) {
    const std::uint64_t sectors = memory_.disk->sectors;
    const std::uint32_t shift = memory_.disk->block_shift;
    for (const Extent& e : ranges)
        if (e.count == 0 || e.sector >= sectors || e.count > sectors - e.sector)
            return refuse(EINVAL, fmt::format("sectors {}+{} are not on the disk", e.sector, e.count));
    if (ranges.empty()) {
        passthrough_ = load(memory_.disk->passthrough);
        flags_ &= ~BLKFERRY_CTL_UNTRACKED;
        MarkerRing::publish(ring_.ctl().flags, flags_);
        mark_blocks(memory_.dirty, 0, memory_.dirty.blocks);
    }
    for (const Extent& e : ranges)
        mark_blocks(memory_.dirty, e.sector >> shift, ((e.end() - 1) >> shift) + 1);
    __atomic_fetch_add(&memory_.disk->events, 1, __ATOMIC_SEQ_CST);
    counted_ns_ = 0;
    return {};
}

void EbpfDisk::stop(std::uint32_t flags) noexcept {
    flags_ |= flags;
    MarkerRing::publish(ring_.ctl().flags, flags_);
    if (state_ != DiskState::stopped)
        set_state(DiskState::stopped);
}

DiskInfo EbpfDisk::info() const {
    const blkferry_ctl& c = ring_.ctl();
    DiskInfo i;
    i.disk = c.disk;
    i.dev = device_number(c.dev_major, c.dev_minor);
    i.data_bytes = c.data_bytes;
    i.descs = c.desc_count;
    i.state = state_;
    i.flags = flags_;
    i.sectors = c.nr_sectors;
    i.block_shift = c.block_shift;
    std::ranges::copy(c.attach_id, i.attach_id.bytes.begin());
    i.gap_seq = gap_seq_;
    i.close_seq = close_seq_;
    i.epoch_seq = epoch_seq_;
    i.active_blocks = c.active_blocks;
    i.snap_blocks = snap_blocks_;
    i.memory = ring_.memory() + memory_.bytes();
    // What is in flight first: a write that is issued between the two is in the counters.
    i.writes = static_cast<std::uint32_t>(load(memory_.disk->inflight));
    i.counters.assign(std::begin(c.counters), std::begin(c.counters) + BLKFERRY_C_MAX);
    return i;
}

}  // namespace blkferry::capture
