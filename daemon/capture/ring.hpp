// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <blkferry.h>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "capture/tracker.hpp"
#include "extent/extent.hpp"

namespace blkferry::capture {

/// Operations and states of descriptors; the values are those of enum blkferry_op and enum blkferry_desc_state.
enum class OpKind : std::uint8_t {
    write = BLKFERRY_OP_WRITE,
    zeroes = BLKFERRY_OP_ZEROES,
    discard = BLKFERRY_OP_DISCARD,
    secure_erase = BLKFERRY_OP_SECURE_ERASE,
    overflow = BLKFERRY_OP_OVERFLOW,
    epoch_switch = BLKFERRY_OP_SWITCH,
    cut = BLKFERRY_OP_CUT,
};
[[nodiscard]] constexpr bool is_marker(OpKind k) noexcept { return k >= OpKind::overflow; }

/// How an operation ended: only done ones have been executed and may be shipped.
enum class OpState : std::uint8_t {
    done = BLKFERRY_D_DONE,
    cancelled = BLKFERRY_D_CANCELLED,  ///< never happened: skip
    failed = BLKFERRY_D_FAILED,        ///< its range is in the dirty map: skip
    dirty = BLKFERRY_D_DIRTY,          ///< no payload, its range is in the dirty map: skip
};

/// A finished operation or marker. Checked: the range lies on the disk; a done write has exactly its payload, inside
/// the data ring. `data` stays valid until the ring's tail passes `index`.
struct CapturedOp {
    std::uint64_t seq = 0;
    std::uint64_t sector = 0;
    std::uint64_t time_ns = 0;           ///< CLOCK_REALTIME at submit
    std::uint64_t index = 0;             ///< descriptor index in its ring
    const std::byte* data = nullptr;     ///< payload of nr_sectors * 512 bytes, or null
    std::uint32_t nr_sectors = 0;
    std::uint16_t slot = 0;              ///< of the ring, as told to Merger::add()
    std::uint16_t flags = 0;             ///< BLKFERRY_F_*
    OpKind op = OpKind::write;
    OpState state = OpState::done;

    [[nodiscard]] bool has_payload() const noexcept { return data != nullptr; }
    [[nodiscard]] std::span<const std::byte> payload() const noexcept {
        return {data, data == nullptr ? 0 : std::size_t{nr_sectors} * sector_bytes};
    }
};

/// What does not change while a disk is attached.
struct RingGeometry {
    std::uint32_t disk = 0;
    std::uint32_t desc_count = 0;
    std::uint64_t data_bytes = 0;
    std::uint64_t nr_sectors = 0;
    std::uint32_t dev_major = 0;
    std::uint32_t dev_minor = 0;
    std::uint32_t block_shift = 0;    ///< log2 of the bytes per dirty-map bit
    std::uint32_t logical_block = 0;  ///< bytes
    std::uint64_t map_bytes = 0;
    Uuid attach_id;

    [[nodiscard]] std::uint64_t block_sectors() const noexcept { return 1ULL << (block_shift - BLKFERRY_SECTOR_SHIFT); }
    [[nodiscard]] std::uint64_t blocks() const noexcept {
        return (nr_sectors + block_sectors() - 1) >> (block_shift - BLKFERRY_SECTOR_SHIFT);
    }
};

/// The changing part of the control page; each field read once, no relation between them is promised.
struct RingStatus {
    std::uint64_t head = 0;
    std::uint64_t kernel_tail = 0;
    DiskState state = DiskState::stopped;
    std::uint32_t flags = 0;
    std::uint64_t gap_seq = 0;
    std::uint64_t close_seq = 0;
    std::uint64_t epoch_seq = 0;
    std::uint64_t active_blocks = 0;
    std::uint64_t snap_blocks = 0;

    /// Whether `mark` is a consistent mark for this disk; the status must have been read after the mark was chosen.
    [[nodiscard]] bool consistent_at(std::uint64_t mark) const noexcept {
        return state == DiskState::ring && (gap_seq == 0 || mark < gap_seq) && mark >= close_seq;
    }
};

/// Checked view of one mapped ring, and its only consumer. What it reads is not trusted: whatever the memory holds,
/// no access leaves the mappings; a broken promise makes the ring bad for ever (Peek::bad, error()). One thread.
class Ring {
public:
    /// Takes the mappings over. Checks magic, ABI, powers of two, limits and that the mappings hold the geometry.
    /// Starts at cons->tail if it lies between kernel_tail and head (else at kernel_tail).
    [[nodiscard]] static Result<Ring> open(RingMemory memory);

    [[nodiscard]] const RingGeometry& geometry() const noexcept { return geometry_; }
    [[nodiscard]] RingStatus status() const noexcept;
    [[nodiscard]] std::uint64_t counter(blkferry_counter which) const noexcept;
    [[nodiscard]] int poll_fd() const noexcept { return memory_.poll.get(); }
    /// Call after POLLIN: makes the poll descriptor unreadable until the next wake-up.
    void clear_wake() noexcept;

    enum class Peek : std::uint8_t {
        ready,       ///< `op` is set (all but slot)
        empty,       ///< nothing behind the cursor as of the last refresh()
        unfinished,  ///< the descriptor at the cursor is not final; op.seq and op.index are set
        bad,         ///< broken promise, see error()
    };
    /// Re-reads head; false if it is impossible (then the ring is bad).
    bool refresh() noexcept;
    /// The operation at the cursor. Does not re-read head.
    [[nodiscard]] Peek peek(CapturedOp& op) noexcept;
    /// Moves the cursor past the operation that peek() gave.
    void advance() noexcept;
    /// First index that was not consumed yet.
    [[nodiscard]] std::uint64_t cursor() const noexcept { return cursor_; }
    /// First index that was not acknowledged yet.
    [[nodiscard]] std::uint64_t tail() const noexcept { return tail_; }
    /// Gives everything before `index` back to the module; tail() <= index <= cursor(), else it does nothing and returns
    /// false. Payload spans of those operations are invalid from here on.
    bool ack(std::uint64_t index) noexcept;
    /// Moves the cursor back to tail(), to read what is not acknowledged once more.
    void rewind() noexcept;
    /// Descriptors between tail and the head last read.
    [[nodiscard]] std::uint64_t pending() const noexcept { return head_ - tail_; }

    /// Asks for a wake-up when a descriptor ends. Returns false, and asks for none, if there is something to do already:
    /// the protocol is arm(), and sleep only if it returned true.
    [[nodiscard]] bool arm() noexcept;
    void disarm() noexcept;

    /// Why the ring is bad; names the disk and the descriptor.
    [[nodiscard]] const Error& error() const noexcept { return error_; }
    [[nodiscard]] bool bad() const noexcept { return bad_; }

    /// Finds the next run of blocks in the snapshot map at or after block `from`, of at most `max_blocks`. Gives its
    /// first block, or blocks() if there is none; `count` is set. Reads whole words, 64 blocks at a time.
    [[nodiscard]] std::uint64_t snapshot_run(std::uint64_t from, std::uint64_t max_blocks,
                                             std::uint64_t& count) const noexcept;
    /// Sectors of `count` blocks from `block`, cut at the disk's end.
    [[nodiscard]] Extent block_extent(std::uint64_t block, std::uint64_t count) const noexcept;
    /// Sectors, runs and SetDigest (slot 0) of the whole snapshot map: what EPOCH_BEGIN announces.
    struct SnapshotSummary {
        std::uint64_t sectors = 0;
        std::uint64_t runs = 0;
        std::uint64_t digest = 0;
    };
    [[nodiscard]] SnapshotSummary snapshot_summary() const;

private:
    Ring() = default;
    Peek fail_desc(std::uint64_t seq, std::string what) noexcept;

    RingMemory memory_;
    RingGeometry geometry_;
    std::uint64_t cursor_ = 0;
    std::uint64_t tail_ = 0;
    std::uint64_t head_ = 0;
    std::uint64_t last_seq_ = 0;  ///< of the operation before the cursor, 0 if unknown
    std::uint64_t peeked_seq_ = 0;
    bool bad_ = false;
    Error error_;
};

/// Walks the snapshot map: `for (SnapshotCursor c(ring); c.next(run, max_sectors);)`. It may start anywhere and sees
/// bits as they are when it reaches them.
class SnapshotCursor {
public:
    explicit SnapshotCursor(const Ring& ring, std::uint64_t from_block = 0) noexcept : ring_(&ring), at_(from_block) {}
    /// The next run of at most `max_sectors` (rounded down to whole blocks, at least one block); false at the end.
    [[nodiscard]] bool next(Extent& run, std::uint64_t max_sectors) noexcept;
    [[nodiscard]] std::uint64_t block() const noexcept { return at_; }

private:
    const Ring* ring_;
    std::uint64_t at_;
};

}  // namespace blkferry::capture
