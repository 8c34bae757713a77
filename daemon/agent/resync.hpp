// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/compare.hpp"
#include "agent/disk.hpp"
#include "agent/read_pool.hpp"
#include "agent/shipper.hpp"
#include "extent/extent_set.hpp"
#include "loop/loop.hpp"
#include "proto/handshake.hpp"

namespace blkferry::agent {

struct ResyncOptions {
    std::size_t read_bytes = 256U << 10;  ///< of one read
    std::size_t queue_depth = 16;         ///< reads in flight per disk
    /// Where writes are only marked: from the begin of a round to that of the next. Rounds of all disks begin together, at its
    /// multiples. 0: a gap is closed at once.
    std::uint64_t cycle_ns = 0;
};

/// What a resync needs of its surroundings; all of it outlives it.
struct ResyncParts {
    loop::Loop& loop;
    capture::Tracker& tracker;
    Registry& registry;
    Shipper& shipper;
    ReadPool& pool;
    HashExchange& hashes;
    ResyncOptions& options;
    /// A line for the log: key=value, the disk first.
    std::function<void(bool warning, const std::string& line)> log;
    /// Something was added to the open batch: pump the shipper soon.
    std::function<void()> changed;
};

/// Closes the gaps of one disk, the first of which is the initial sync.
///
///                  gap or BITMAP                RESYNC_BEGIN ok            SWITCH merged, its batch closed
///     settled ------------------> wanted ------------------> switching ------------------> announcing
///        ^                          ^ ^                                                        | EPOCH_BEGIN in the batch
///        | RESYNC_END ok     EAGAIN | | overflow (state is BITMAP again), in every phase       v
///     closing <------------------ ending <------------------------------------------------- reading
///               EPOCH_RESULT ok            nothing left to read or to compare: EPOCH_END
///
/// Without a session the phase is off; a new session begins with what the module says. Reads that fail are tried again in
/// smaller pieces, and every few seconds after that: an epoch never ends without them. One thread (the loop's).
class Resync {
public:
    Resync(ResyncParts parts, Disk& disk);
    Resync(const Resync&) = delete;
    Resync& operator=(const Resync&) = delete;

    /// WELCOME arrived and the plan for the disk was made. Marks the whole disk dirty where the plan asks for it. What is
    /// merged in this session begins behind `from_mark`.
    [[nodiscard]] Result<void> session_started(DiskPlan plan, bool known, std::uint64_t from_mark);
    /// Marks the whole disk dirty, unless it is.
    [[nodiscard]] Result<void> mark_whole();
    void session_ended();

    /// A SWITCH of this disk came out of the merger.
    void switch_seen(std::uint64_t seq);
    [[nodiscard]] bool wants_batch() const noexcept { return phase_ == Phase::announcing; }
    /// A batch opens: announces the epoch in it if that is due.
    void batch_opens();
    /// Clears what became durable in the module's snapshot map.
    void batch_durable(const OutBatch& batch);
    void epoch_result(const proto::EpochResult& result);
    /// Does what is possible now; cheap if nothing is.
    void step();
    /// Compare every block of the disk with the replica: it is marked dirty as a whole.
    [[nodiscard]] Result<void> demand_rescan(const std::string& why);

    struct Progress {
        bool active = false;          ///< an epoch is open or wanted
        bool whole = false;           ///< it covers the whole disk (initial sync or rescan)
        SyncKind kind = SyncKind::initial;
        std::uint64_t done_bytes = 0;
        std::uint64_t total_bytes = 0;
    };
    [[nodiscard]] Progress progress() const;
    /// Why it cannot go on, empty if it can.
    [[nodiscard]] const std::string& cause() const noexcept { return cause_; }
    /// The disk was written behind the capture: says so and compares the whole disk with the replica, as demand_rescan().
    void untracked(const std::string& why);
    [[nodiscard]] bool settled() const noexcept { return phase_ == Phase::settled; }
    [[nodiscard]] std::uint64_t epochs() const noexcept { return epochs_; }
    /// The next round begins now, if there is something for it.
    void cycle_now() noexcept { cycle_due_ns_ = next_try_ns_ = 0; }
    /// Rounds that ended, whether or not something was written meanwhile.
    [[nodiscard]] std::uint64_t rounds() const noexcept { return rounds_; }

private:
    enum class Phase : std::uint8_t { off, settled, wanted, switching, announcing, reading, ending, closing };
    struct Ready {
        fold::Piece piece;
        std::shared_ptr<const void> owner;
    };
    struct Retry {
        Extent extent;
        std::uint64_t at_ns = 0;
    };

    void look_at_module(const capture::RingStatus& st);
    void want(std::string_view why);
    void begin();
    void read_on();
    [[nodiscard]] bool next_extent(Extent& extent);
    [[nodiscard]] bool comparable(const Extent& e) const noexcept;
    void read(Extent extent);
    void read_failed(Extent extent, const Error& error);
    void have_data(Extent extent, std::shared_ptr<std::byte> data);
    void have_compared(Extent extent, const std::shared_ptr<std::byte>& data, const std::vector<Extent>& differs);
    void add(Extent extent, proto::ExtentKind kind, const std::byte* data, std::shared_ptr<const void> owner);
    void flush_ready();
    void end_if_done();
    void close_gap();
    void forget_reads();
    [[nodiscard]] bool whole_owed() const noexcept;
    /// Rounds follow each other for ever, and this one is nothing special: not worth a line.
    [[nodiscard]] bool routine() const noexcept { return parts_.options.cycle_ns != 0 && !whole_owed(); }
    void owe(bool on, SyncKind kind);
    void say(bool warning, std::string_view what) const;

    ResyncParts parts_;
    Disk& disk_;
    Phase phase_ = Phase::off;
    std::string cause_;
    bool known_ = false;           ///< the server holds a replica of this disk
    bool drained_ = false;         ///< RESYNC_BEGIN returned 0: reading is allowed
    std::uint64_t seq0_ = 0;       ///< of the epoch, 0 if none
    bool switch_passed_ = false;   ///< the batch with the SWITCH is closed, or durable since long
    std::uint64_t next_try_ns_ = 0;
    bool owed_anew_ = false;       ///< the whole disk was marked after the epoch was announced
    proto::EpochBegin announced_;
    std::uint64_t cursor_block_ = 0;
    bool cursor_end_ = false;
    std::size_t reads_ = 0;        ///< in flight
    std::size_t compares_ = 0;
    std::deque<Retry> retries_;
    std::deque<Ready> ready_;
    ExtentSet durable_;            ///< durable sectors of blocks that are not durable as a whole
    std::uint64_t epochs_ = 0;
    std::uint64_t rounds_ = 0;
    std::uint64_t cycle_due_ns_ = 0;
    std::shared_ptr<bool> epoch_alive_;  ///< callbacks of an abandoned epoch find it gone
};

}  // namespace blkferry::agent
