// SPDX-License-Identifier: Apache-2.0
#include "capture/ring.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <unistd.h>

#include <fmt/format.h>

#include "extent/extent_set.hpp"

namespace blkferry::capture {

namespace {

/// One load of a word that the module (or whoever owns the memory) may change at any moment.
template <class T>
T load(const T& word, std::memory_order order = std::memory_order_relaxed) noexcept {
    return std::atomic_ref<T>(const_cast<T&>(word)).load(order);
}

template <class T>
const T* view(const Mapping& m) noexcept {
    return static_cast<const T*>(static_cast<const void*>(m.data()));
}

const blkferry_ctl& ctl_of(const RingMemory& m) noexcept {
    return *view<blkferry_ctl>(m.ctl);
}

blkferry_cons& cons_of(const RingMemory& m) noexcept {
    return *static_cast<blkferry_cons*>(static_cast<void*>(m.cons.data()));
}

bool power_of_two_within(std::uint64_t v, std::uint64_t min, std::uint64_t max) noexcept {
    return std::has_single_bit(v) && v >= min && v <= max;
}

constexpr std::uint64_t sectors_max = 1ULL << 54;  // byte offsets stay below 8 EiB
constexpr std::uint32_t block_shift_max = 30;

RingGeometry read_geometry(const blkferry_ctl& ctl) noexcept {
    RingGeometry g;
    g.disk = load(ctl.disk);
    g.desc_count = load(ctl.desc_count);
    g.data_bytes = load<__u64>(ctl.data_bytes);
    g.nr_sectors = load<__u64>(ctl.nr_sectors);
    g.dev_major = load(ctl.dev_major);
    g.dev_minor = load(ctl.dev_minor);
    g.block_shift = load(ctl.block_shift);
    g.logical_block = load(ctl.logical_block);
    g.map_bytes = load<__u64>(ctl.map_bytes);
    for (std::size_t i = 0; i < BLKFERRY_UUID_LEN; ++i)
        g.attach_id.bytes[i] = load(ctl.attach_id[i]);
    return g;
}

Result<void> check_geometry(const RingGeometry& g, const RingMemory& m) {
    const auto refuse = [&](std::string_view field, std::uint64_t value) {
        return fail(Errc::corrupt, fmt::format("ring of disk {} refused: {} is {}", g.disk, field, value));
    };
    if (g.disk >= BLKFERRY_DISKS_MAX)
        return refuse("disk id", g.disk);
    if (!power_of_two_within(g.desc_count, BLKFERRY_DESCS_MIN, BLKFERRY_DESCS_MAX))
        return refuse("number of descriptors", g.desc_count);
    if (!power_of_two_within(g.data_bytes, BLKFERRY_DATA_BYTES_MIN, BLKFERRY_DATA_BYTES_MAX))
        return refuse("size of the data ring", g.data_bytes);
    if (g.nr_sectors == 0 || g.nr_sectors > sectors_max)
        return refuse("number of sectors", g.nr_sectors);
    if (g.block_shift < 12 || g.block_shift > block_shift_max)
        return refuse("block shift", g.block_shift);
    if (!power_of_two_within(g.logical_block, sector_bytes, 1U << block_shift_max))
        return refuse("logical block size", g.logical_block);
    if (g.map_bytes % 8 != 0 || g.map_bytes > sectors_max || g.map_bytes * 8 < g.blocks())
        return refuse("size of the snapshot map", g.map_bytes);
    if (m.desc.size() < std::size_t{g.desc_count} * sizeof(blkferry_desc) || m.data.size() < g.data_bytes ||
        m.snap.size() < g.map_bytes)
        return fail(Errc::corrupt, fmt::format("ring of disk {} refused: its mappings are smaller than it says", g.disk));
    return {};
}

}  // namespace

std::string_view to_string(DiskState state) noexcept {
    switch (state) {
        case DiskState::stopped: return "STOPPED";
        case DiskState::bitmap: return "BITMAP";
        case DiskState::resync: return "RESYNC";
        case DiskState::ring: return "RING";
    }
    return "UNKNOWN";
}

Result<Ring> Ring::open(RingMemory memory) {
    if (memory.ctl.size() < sizeof(blkferry_ctl) || memory.cons.size() < sizeof(blkferry_cons))
        return fail(Errc::corrupt, "ring refused: its control pages are not mapped");
    const blkferry_ctl& ctl = ctl_of(memory);
    if (const auto magic = load(ctl.magic); magic != BLKFERRY_CTL_MAGIC)
        return fail(Errc::corrupt, fmt::format("ring refused: magic number {:#010x}", magic));
    if (const auto abi = load(ctl.abi); abi != BLKFERRY_ABI_VERSION)
        return fail(Errc::unsupported, fmt::format("ring refused: ABI version {}, this program speaks {}; install module "
                                                   "and agent of one release",
                                                   abi, BLKFERRY_ABI_VERSION));
    Ring ring;
    ring.geometry_ = read_geometry(ctl);
    BLKFERRY_TRY(check_geometry(ring.geometry_, memory));
    ring.memory_ = std::move(memory);
    // Only we write tail, and kernel_tail never passes a tail it accepted, so this order of reads is safe.
    const std::uint64_t tail = load<__u64>(cons_of(ring.memory_).tail, std::memory_order_acquire);
    const std::uint64_t kernel_tail = load<__u64>(ctl.kernel_tail, std::memory_order_acquire);
    const std::uint64_t head = load<__u64>(ctl.head, std::memory_order_acquire);
    if (head - kernel_tail > ring.geometry_.desc_count)
        return fail(Errc::corrupt, fmt::format("ring of disk {} refused: {} descriptors of {} in use", ring.geometry_.disk,
                                               head - kernel_tail, ring.geometry_.desc_count));
    ring.tail_ = tail - kernel_tail <= head - kernel_tail ? tail : kernel_tail;
    ring.cursor_ = ring.tail_;
    ring.head_ = head;
    if (ring.tail_ != tail)
        std::atomic_ref<__u64>(cons_of(ring.memory_).tail).store(ring.tail_, std::memory_order_release);
    return ring;
}

RingStatus Ring::status() const noexcept {
    const blkferry_ctl& ctl = ctl_of(memory_);
    RingStatus s;
    s.head = load<__u64>(ctl.head, std::memory_order_acquire);
    s.kernel_tail = load<__u64>(ctl.kernel_tail);
    const auto state = load(ctl.state, std::memory_order_acquire);
    s.state = state <= BLKFERRY_RING ? static_cast<DiskState>(state) : DiskState::stopped;
    s.flags = load(ctl.flags);
    s.gap_seq = load<__u64>(ctl.gap_seq);
    s.close_seq = load<__u64>(ctl.close_seq);
    s.epoch_seq = load<__u64>(ctl.epoch_seq);
    s.active_blocks = load<__u64>(ctl.active_blocks);
    s.snap_blocks = load<__u64>(ctl.snap_blocks);
    return s;
}

std::uint64_t Ring::counter(blkferry_counter which) const noexcept {
    return load<__u64>(ctl_of(memory_).counters[which]);
}

void Ring::clear_wake() noexcept {
    if (!memory_.drain_poll)
        return;
    std::array<std::byte, 256> sink;
    while (::read(memory_.poll.get(), sink.data(), sink.size()) == static_cast<ssize_t>(sink.size())) {
    }
}

Ring::Peek Ring::fail_desc(std::uint64_t seq, std::string what) noexcept {
    bad_ = true;
    error_ = Error{Errc::corrupt, 0,
                   fmt::format("ring of disk {}: descriptor {} (seq {}) is broken: {}; mark the disk dirty and rescan it",
                               geometry_.disk, cursor_, seq, what)};
    return Peek::bad;
}

bool Ring::refresh() noexcept {
    if (bad_)
        return false;
    const std::uint64_t head = load<__u64>(ctl_of(memory_).head, std::memory_order_acquire);
    if (head - tail_ > geometry_.desc_count || head - tail_ < head_ - tail_) {
        bad_ = true;
        error_ = Error{Errc::corrupt, 0,
                       fmt::format("ring of disk {}: head went from {} to {} with tail {}; mark the disk dirty and rescan "
                                   "it",
                                   geometry_.disk, head_, head, tail_)};
        return false;
    }
    head_ = head;
    return true;
}

Ring::Peek Ring::peek(CapturedOp& op) noexcept {
    if (bad_)
        return Peek::bad;
    if (cursor_ == head_)
        return Peek::empty;
    const blkferry_desc& d = view<blkferry_desc>(memory_.desc)[cursor_ & (geometry_.desc_count - 1)];
    const std::uint32_t state = load(d.state, std::memory_order_acquire);
    op.seq = load<__u64>(d.seq);
    op.index = cursor_;
    if (op.seq <= last_seq_) [[unlikely]]
        return fail_desc(op.seq, fmt::format("its number is not above {}", last_seq_));
    if (state == BLKFERRY_D_BUSY || state == BLKFERRY_D_COPIED)
        return Peek::unfinished;
    if (state < BLKFERRY_D_DONE || state > BLKFERRY_D_DIRTY) [[unlikely]]
        return fail_desc(op.seq, fmt::format("its state is {}", state));
    const std::uint16_t kind = load(d.op);
    const std::uint32_t data_len = load(d.data_len);
    op.sector = load<__u64>(d.sector);
    op.nr_sectors = load(d.nr_sectors);
    op.time_ns = load<__u64>(d.time_ns);
    op.flags = load(d.flags);
    op.state = static_cast<OpState>(state);
    op.op = static_cast<OpKind>(kind);
    op.data = nullptr;
    if (kind >= BLKFERRY_OP_WRITE && kind <= BLKFERRY_OP_SECURE_ERASE) [[likely]] {
        if (op.nr_sectors == 0 || op.sector >= geometry_.nr_sectors || op.nr_sectors > geometry_.nr_sectors - op.sector)
            [[unlikely]]
            return fail_desc(op.seq, fmt::format("sectors {}+{} of {}", op.sector, op.nr_sectors, geometry_.nr_sectors));
        if (state == BLKFERRY_D_DONE && kind == BLKFERRY_OP_WRITE) {
            const std::uint64_t at = load<__u64>(d.data_pos) & (geometry_.data_bytes - 1);
            if (data_len != std::uint64_t{op.nr_sectors} * sector_bytes || data_len > geometry_.data_bytes - at) [[unlikely]]
                return fail_desc(op.seq, fmt::format("{} bytes of payload at {} for {} sectors", data_len, at, op.nr_sectors));
            op.data = memory_.data.data() + at;
        } else if (kind != BLKFERRY_OP_WRITE && data_len != 0) [[unlikely]] {
            return fail_desc(op.seq, fmt::format("{} bytes of payload for operation {}", data_len, kind));
        }
    } else if (kind >= BLKFERRY_OP_OVERFLOW && kind <= BLKFERRY_OP_CUT) {
        if (op.sector != 0 || op.nr_sectors != 0 || data_len != 0 || state != BLKFERRY_D_DONE) [[unlikely]]
            return fail_desc(op.seq, fmt::format("marker {} with a range, payload or state {}", kind, state));
    } else {
        return fail_desc(op.seq, fmt::format("its operation is {}", kind));
    }
    peeked_seq_ = op.seq;
    return Peek::ready;
}

void Ring::advance() noexcept {
    BLKFERRY_ASSERT(cursor_ != head_ && peeked_seq_ > last_seq_);
    last_seq_ = peeked_seq_;
    ++cursor_;
}

bool Ring::ack(std::uint64_t index) noexcept {
    if (index - tail_ > cursor_ - tail_)
        return false;
    tail_ = index;
    std::atomic_ref<__u64>(cons_of(memory_).tail).store(index, std::memory_order_release);
    return true;
}

void Ring::rewind() noexcept {
    cursor_ = tail_;
    last_seq_ = 0;
    peeked_seq_ = 0;
}

bool Ring::arm() noexcept {
    std::atomic_ref<__u32>(cons_of(memory_).need_wake).store(1, std::memory_order_seq_cst);
    // The module stores a state and then reads need_wake; we store need_wake and then read states.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    CapturedOp op;
    if (refresh()) {
        const Peek p = peek(op);
        if (p == Peek::empty || p == Peek::unfinished)
            return true;
    }
    disarm();
    return false;
}

void Ring::disarm() noexcept {
    std::atomic_ref<__u32>(cons_of(memory_).need_wake).store(0, std::memory_order_relaxed);
}

std::uint64_t Ring::snapshot_run(std::uint64_t from, std::uint64_t max_blocks, std::uint64_t& count) const noexcept {
    const std::uint64_t blocks = geometry_.blocks();
    const __u64* words = view<__u64>(memory_.snap);
    count = 0;
    if (from >= blocks)
        return blocks;
    std::uint64_t w = from >> 6;
    std::uint64_t word = load(words[w]);
    std::uint64_t bits = word & (~0ULL << (from & 63));
    const std::uint64_t words_end = (blocks + 63) >> 6;
    while (bits == 0) {
        if (++w == words_end)
            return blocks;
        bits = word = load(words[w]);
    }
    const std::uint64_t first = (w << 6) + static_cast<unsigned>(std::countr_zero(bits));
    if (first >= blocks)
        return blocks;
    const std::uint64_t limit = std::min(blocks, max_blocks < blocks - first ? first + max_blocks : blocks);
    std::uint64_t clear = ~word & (~0ULL << (first & 63));
    while (clear == 0 && ((w + 1) << 6) < limit)
        clear = ~load(words[++w]);
    const std::uint64_t end = clear == 0 ? limit : (w << 6) + static_cast<unsigned>(std::countr_zero(clear));
    count = std::min(end, limit) - first;
    return first;
}

Extent Ring::block_extent(std::uint64_t block, std::uint64_t count) const noexcept {
    const unsigned shift = geometry_.block_shift - BLKFERRY_SECTOR_SHIFT;
    const std::uint64_t first = block << shift;
    const std::uint64_t end = std::min((block + count) << shift, geometry_.nr_sectors);
    return {first, first < end ? end - first : 0};
}

Ring::SnapshotSummary Ring::snapshot_summary() const {
    SnapshotSummary sum;
    SetDigest digest;
    std::uint64_t count = 0;
    for (std::uint64_t at = 0;; at += count) {
        at = snapshot_run(at, geometry_.blocks(), count);
        if (count == 0)
            break;
        const Extent run = block_extent(at, count);
        digest.add(0, run);
        sum.sectors += run.count;
        ++sum.runs;
    }
    sum.digest = digest.value();
    return sum;
}

bool SnapshotCursor::next(Extent& run, std::uint64_t max_sectors) noexcept {
    const std::uint64_t max_blocks = std::max<std::uint64_t>(1, max_sectors / ring_->geometry().block_sectors());
    std::uint64_t count = 0;
    at_ = ring_->snapshot_run(at_, max_blocks, count);
    if (count == 0)
        return false;
    run = ring_->block_extent(at_, count);
    at_ += count;
    return true;
}

}  // namespace blkferry::capture
