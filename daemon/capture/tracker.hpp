// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "base/uuid.hpp"
#include "capture/latency.hpp"
#include "extent/extent.hpp"

namespace blkferry::capture {

/// State of a disk; the values are those of enum blkferry_state.
enum class DiskState : std::uint8_t { stopped = 0, bitmap = 1, resync = 2, ring = 3 };
[[nodiscard]] std::string_view to_string(DiskState state) noexcept;

/// A device number as the contract with the module carries it: (major << 32) | minor.
[[nodiscard]] constexpr std::uint64_t device_number(std::uint32_t major, std::uint32_t minor) noexcept {
    return (std::uint64_t{major} << 32) | minor;
}

/// What INFO tells.
struct TrackerInfo {
    std::uint32_t abi = 0;
    std::string version;
    Uuid load_id;                 ///< new at each load of the module (each start of a producer)
    std::uint64_t seq = 0;        ///< newest number drawn
    std::uint64_t void_seq = 0;   ///< a missing number is void if it is <= this, see Merger::fence()
    std::uint32_t inflight = 0;   ///< entries in the in-flight table
    std::vector<LatencySet> latency;  ///< one: how long file systems stood frozen for a cut, since load; empty: not told
};

/// What DISK_GET tells about one attached disk.
struct DiskInfo {
    std::uint32_t disk = 0;       ///< disk id, names it in every other call
    std::uint64_t dev = 0;        ///< device_number()
    std::string name;             ///< kernel name, e.g. "vda"
    std::string device_path;      ///< what to open to read the disk; empty: find the block device of `dev`
    std::uint64_t data_bytes = 0;
    std::uint32_t descs = 0;
    std::uint32_t inline_max = 0; ///< largest payload that is copied, bytes
    DiskState state = DiskState::stopped;
    std::uint32_t flags = 0;      ///< BLKFERRY_CTL_*
    std::uint64_t sectors = 0;
    std::uint32_t block_shift = 12;  ///< log2 of the bytes per dirty-map bit
    Uuid attach_id;               ///< new at each attach
    std::uint64_t gap_seq = 0;
    std::uint64_t close_seq = 0;
    std::uint64_t epoch_seq = 0;
    std::uint64_t active_blocks = 0;
    std::uint64_t snap_blocks = 0;
    std::uint64_t memory = 0;     ///< bytes reserved for the disk
    std::vector<std::uint64_t> counters;  ///< indexed by enum blkferry_counter; may be shorter or longer than ours
    std::optional<std::uint32_t> writes;  ///< in flight, at the same instant as the counters; a producer does not tell
    std::vector<LatencySet> latency;      ///< indexed by enum blkferry_latency_set, may be shorter or longer; empty: not measured

    /// A counter, 0 if the module is too old to have it.
    [[nodiscard]] std::uint64_t counter(std::size_t which) const noexcept { return which < counters.size() ? counters[which] : 0; }
};

struct AttachRequest {
    std::uint64_t dev = 0;
    std::string path;                         ///< of the block device `dev`; opened for the time of the call
    std::optional<std::uint64_t> data_bytes;  ///< rounded up to a power of two
    std::optional<std::uint32_t> descs;
    std::optional<std::uint32_t> inline_max;
};

/// The mappings of one disk's ring and the descriptor to poll. Owns all of them; give it to Ring::open().
struct RingMemory {
    Fd poll;                 ///< readable after a wake-up; POLLHUP when the disk was detached or is gone
    bool drain_poll = false; ///< true: read `poll` empty after POLLIN (Ring::clear_wake() does it)
    Mapping ctl;
    Mapping cons;
    Mapping desc;
    Mapping data;
    Mapping snap;
};

/// A multicast event; `kind` is enum blkferry_event. lost is set when events were dropped: look at every disk again.
struct TrackerEvent {
    std::uint32_t disk = 0;
    std::uint32_t kind = 0;
    DiskState state = DiskState::stopped;
    std::uint32_t flags = 0;
    std::uint64_t seq = 0;
    bool lost = false;
};

/// The agent's only view of capture. The calls are those of kmod/uapi/blkferry.h, whose prose says what they do and
/// which errno each of them gives; Error::sys_errno keeps that errno, Error::text the extended acknowledgement. They
/// are synchronous and short, except cut() with devices to freeze (bounded by `freeze_ms`), resync_begin() (bounded
/// wait for writes in flight) and attach() (allocates the ring). One thread at a time.
class Tracker {
public:
    Tracker() = default;
    Tracker(const Tracker&) = delete;
    Tracker& operator=(const Tracker&) = delete;
    virtual ~Tracker() = default;

    [[nodiscard]] virtual Result<TrackerInfo> info() = 0;
    /// All attached disks. Takes the lock of each disk in turn: what was drawn before the call is in the rings after it.
    [[nodiscard]] virtual Result<std::vector<DiskInfo>> list() = 0;
    [[nodiscard]] virtual Result<DiskInfo> disk_get(std::uint32_t disk) = 0;
    /// The device number behind a path (for attach()): the block device's, or what a producer knows under that path.
    [[nodiscard]] virtual Result<std::uint64_t> find_device(const std::string& path) = 0;
    [[nodiscard]] virtual Result<DiskInfo> attach(const AttachRequest& request) = 0;
    /// Gives the new void_seq.
    [[nodiscard]] virtual Result<std::uint64_t> detach(std::uint32_t disk) = 0;
    /// Opens the disk's character device (EBUSY: another consumer has it) and maps all regions.
    [[nodiscard]] virtual Result<RingMemory> open_ring(std::uint32_t disk) = 0;
    /// Gives seq0. Errors to expect: EAGAIN (call again), ENOSPC (consume first), EBUSY (snapshot map not empty).
    [[nodiscard]] virtual Result<std::uint64_t> resync_begin(std::uint32_t disk) = 0;
    /// Any number of ranges; sent in pieces of BLKFERRY_RANGES_MAX. With `epoch` (seq0) it applies only while that epoch
    /// runs, else ESTALE: an acknowledgement that comes late must not clear blocks of the next round.
    [[nodiscard]] virtual Result<void> resync_clear(std::uint32_t disk, std::span<const Extent> ranges,
                                                    std::optional<std::uint64_t> epoch = std::nullopt) = 0;
    /// Gives the CUT's number. Errors to expect: EAGAIN (one more round), EBUSY, EINVAL, ENOSPC.
    [[nodiscard]] virtual Result<std::uint64_t> resync_end(std::uint32_t disk) = 0;
    /// Marks ranges, or the whole disk if there are none.
    [[nodiscard]] virtual Result<void> mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) = 0;
    /// Gives the CUT's number. `freeze` are device numbers, top-down, at most BLKFERRY_FREEZE_MAX; empty: no freeze.
    [[nodiscard]] virtual Result<std::uint64_t> cut(std::span<const std::uint64_t> freeze, std::uint32_t freeze_ms) = 0;
    /// The next number drawn will be > seq.
    [[nodiscard]] virtual Result<void> seq_floor(std::uint64_t seq) = 0;

    /// Brings the mapped pages up to date where they are kept in this process (the module keeps its own). Cheap.
    virtual void observe() {}
    /// Writes are only marked, not captured: RING means that the replica equals the disk, and every write ends it.
    [[nodiscard]] virtual bool only_marks() const noexcept { return false; }

    /// Readable when read_events() has something; -1 before the first successful subscribe().
    [[nodiscard]] virtual int events_fd() const noexcept = 0;
    [[nodiscard]] virtual Result<void> subscribe() = 0;
    /// All events that are there; never blocks. Errc::closed: the producer went away.
    [[nodiscard]] virtual Result<std::vector<TrackerEvent>> read_events() = 0;
};

}  // namespace blkferry::capture
