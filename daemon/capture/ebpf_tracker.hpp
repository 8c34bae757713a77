// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>

#include "capture/block_probe.hpp"
#include "capture/block_sysfs.hpp"
#include "capture/marker_ring.hpp"
#include "capture/tracker.hpp"

namespace blkferry::capture {

/// A disk that is tracked without the module: the module's states (kmod/uapi/blkferry.h) over what the programs mark, with a ring of
/// markers only.
///
///     BITMAP --resync_begin--> RESYNC --resync_end--> RING (nothing was written since the round began)
///                                 ^                     | a write: gap_seq is the next number drawn
///                                 +----resync_begin-----+
///
/// RING here means that the replica equals the disk, not that writes are captured. Numbers are drawn by the caller. One thread.
class EbpfDisk {
public:
    EbpfDisk(MarkerRing ring, ProbeMemory memory);

    /// No write was issued or is under way since the last round took the map, and none was overlooked.
    [[nodiscard]] bool quiet() const noexcept;
    /// A write is under way.
    [[nodiscard]] bool busy() const noexcept { return __atomic_load_n(&memory_.disk->inflight, __ATOMIC_SEQ_CST) != 0; }
    /// Shows the reader what changed: counters, size of the maps, a gap at `next_seq` if there is one now.
    void observe(std::uint64_t next_seq, std::uint64_t now_ns) noexcept;

    [[nodiscard]] Result<void> begin(std::uint64_t seq);
    [[nodiscard]] Result<void> clear(std::span<const Extent> ranges, std::optional<std::uint64_t> epoch);
    /// Whether end() may be called; errors as BLKFERRY_CMD_RESYNC_END.
    [[nodiscard]] Result<void> may_end() noexcept;
    void end(std::uint64_t seq) noexcept;
    [[nodiscard]] Result<void> mark_dirty(std::span<const Extent> ranges);
    void append_cut(std::uint64_t seq) noexcept { ring_.append(BLKFERRY_OP_CUT, seq); }
    void stop(std::uint32_t flags) noexcept;
    /// Its writes may have gone unseen: sets UNTRACKED until the whole disk is marked.
    void suspect() noexcept;

    [[nodiscard]] DiskState state() const noexcept { return state_; }
    [[nodiscard]] MarkerRing& ring() noexcept { return ring_; }
    [[nodiscard]] const ProbeMemory& memory() const noexcept { return memory_; }
    /// Requests that were issued before it was tracked have ended: without that it is never quiet.
    void set_drained() noexcept { drained_ = true; }
    [[nodiscard]] bool drained() const noexcept { return drained_; }
    [[nodiscard]] DiskInfo info() const;

private:
    [[nodiscard]] std::uint64_t events() const noexcept;
    void open_gap(std::uint64_t seq) noexcept;
    void set_state(DiskState state) noexcept;
    void publish_snap(std::uint64_t blocks) noexcept;
    void publish_counters() noexcept;

    MarkerRing ring_;
    ProbeMemory memory_;
    DiskState state_ = DiskState::bitmap;
    std::uint64_t gap_seq_ = 1;
    std::uint64_t close_seq_ = 0;
    std::uint64_t epoch_seq_ = 0;
    std::uint64_t snap_blocks_ = 0;
    std::uint64_t round_events_ = 0;    ///< before the round took the map
    std::uint64_t counted_events_ = 0;  ///< when the active map was counted last
    std::uint64_t counted_ns_ = 0;
    std::uint64_t passthrough_ = 0;     ///< of which were acted upon
    std::uint32_t flags_ = 0;
    bool drained_ = false;
};

/// Tracks disks without the module, by eBPF programs that mark what is written: nothing is captured, so a mark is consistent only when
/// nothing was written since the round before it began. All of it ends with the process: the next one starts with every block marked
/// and a new load id. No freezing here (cut() with devices is Errc::unsupported). One thread.
class EbpfTracker final : public Tracker {
public:
    [[nodiscard]] static Result<std::unique_ptr<EbpfTracker>> open();

    Result<TrackerInfo> info() override;
    Result<std::vector<DiskInfo>> list() override;
    Result<DiskInfo> disk_get(std::uint32_t disk) override;
    Result<std::uint64_t> find_device(const std::string& path) override;
    Result<DiskInfo> attach(const AttachRequest& request) override;
    Result<std::uint64_t> detach(std::uint32_t disk) override;
    Result<RingMemory> open_ring(std::uint32_t disk) override;
    Result<std::uint64_t> resync_begin(std::uint32_t disk) override;
    Result<void> resync_clear(std::uint32_t disk, std::span<const Extent> ranges, std::optional<std::uint64_t> epoch) override;
    Result<std::uint64_t> resync_end(std::uint32_t disk) override;
    Result<void> mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) override;
    Result<std::uint64_t> cut(std::span<const std::uint64_t> freeze, std::uint32_t freeze_ms) override;
    Result<void> seq_floor(std::uint64_t seq) override;
    [[nodiscard]] int events_fd() const noexcept override { return -1; }
    Result<void> subscribe() override { return {}; }
    Result<std::vector<TrackerEvent>> read_events() override { return std::vector<TrackerEvent>(); }
    void observe() override;
    /// For people: how often the kernel skipped each program.
    [[nodiscard]] std::string skipped_text() const;
    [[nodiscard]] bool only_marks() const noexcept override { return true; }

private:
    struct Entry {
        EbpfDisk disk;
        BlockFacts facts;
        std::uint64_t dev = 0;
        std::uint64_t attached_ns = 0;
    };
    explicit EbpfTracker(std::unique_ptr<BlockProbe> probe);
    [[nodiscard]] Result<Entry*> find(std::uint32_t disk);
    [[nodiscard]] std::uint64_t draw() noexcept;
    void look_at_device(Entry& e, std::uint64_t now_ns);
    void look_for_losses() noexcept;
    [[nodiscard]] DiskInfo info_of(const Entry& e) const;

    std::unique_ptr<BlockProbe> probe_;
    std::map<std::uint32_t, Entry> disks_;
    Uuid load_id_;
    std::uint64_t seq_ = 0;
    std::uint64_t void_seq_ = 0;
    std::uint64_t looked_ns_ = 0;
    BlockProbe::Skipped skipped_;
};

}  // namespace blkferry::capture
