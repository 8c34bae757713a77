// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "proto/control.hpp"
#include "proto/hashing.hpp"
#include "store/checkpoint.hpp"
#include "store/chunk_store.hpp"
#include "store/entry_source.hpp"
#include "store/point.hpp"
#include "store/sector_map.hpp"

namespace blkferry::store {

/// A recovery point was made or refused.
struct PointOutcome {
    bool from_server = false;   ///< asked for by the server's POINT entry, else by the agent's POINT_REQUEST
    proto::PointResult result;
};

/// What one apply_some() did.
struct ApplyReport {
    bool idle = false;          ///< everything up to the limit is applied
    bool checkpointed = false;
    std::uint64_t bytes = 0;    ///< of journal consumed
    std::uint64_t batches = 0;
    std::vector<proto::EpochResult> epochs;  ///< for the agent
    std::vector<PointOutcome> points;
};

/// Applies the journal of one source to staging, in journal order; the same code before and after a restart. Owned by one
/// worker at a time.
class Applier {
public:
    struct Options {
        std::uint64_t chunk_bytes = chunk_bytes_default;       ///< of disks of a new replica
        std::uint64_t checkpoint_bytes = 256U << 20;           ///< journal bytes between checkpoints
        std::uint64_t checkpoint_ns = 10'000'000'000ULL;       ///< time between checkpoints
        std::size_t open_files_max = 256;                      ///< per source, shared by its disks (each has some)
        std::size_t direct_bytes_min = direct_bytes_min_default;  ///< see ChunkStore
        std::size_t map_pages_max = 64;                        ///< cached pages per sector map of a source with few disks
        std::uint64_t turn_ns = 250'000'000;                   ///< apply_some() ends after the step that passes it
        std::size_t points_max = 10'000;                       ///< recovery points above which an agent gets no more
        std::size_t collect_budget = 256;                      ///< chunk files removed per call
    };

    /// Puts staging back to the checkpoint and publishes its pending points. `hand_off` may be null: then all comes from files.
    [[nodiscard]] static Result<std::unique_ptr<Applier>> open(FileSystem& files, const Clock& clock,
                                                               const SnapshotEngine& engine, PointStore& points,
                                                               std::filesystem::path dir, const Uuid& store,
                                                               std::string source, Options options,
                                                               Checkpoint checkpoint, HandOff* hand_off = nullptr);

    /// Applies whole batches and entries below `limit` (a committed end of a batch or entry) until about `budget_bytes` of
    /// journal are consumed or Options::turn_ns are over: many small batches may ask for much work. An error leaves it unusable: reopen the source.
    [[nodiscard]] Result<ApplyReport> apply_some(Position limit, std::uint64_t budget_bytes);
    /// Syncs staging and maps, then stores where redo begins. Nothing to do is no error.
    [[nodiscard]] Result<void> checkpoint();
    /// Takes the names of published points out of the stored checkpoint, so that redo does not publish them again: before a
    /// point is removed.
    [[nodiscard]] Result<void> forget_pending();
    /// Points published since the last call.
    [[nodiscard]] std::vector<Manifest> take_published() { return std::exchange(published_, {}); }
    /// Removes chunk files that no point sees (a bounded number); returns how many. Checkpoints first. While a point is damaged,
    /// all that it may see stays: what was there when the store was opened.
    [[nodiscard]] Result<std::size_t> collect();
    /// Which blocks differ from staging as applied so far.
    [[nodiscard]] Result<proto::HashReply> compare(const proto::HashAsk& ask);

    [[nodiscard]] const Checkpoint& state() const noexcept { return state_; }
    /// The state as last stored.
    [[nodiscard]] const Checkpoint& stored() const noexcept { return stored_; }
    [[nodiscard]] std::uint64_t allocated_bytes() const noexcept;
    /// A checkpoint is due by bytes or time.
    [[nodiscard]] bool checkpoint_due() const;

private:
    struct DiskStore {
        Position epoch = 0;                   ///< that the maps belong to
        std::unique_ptr<ChunkStore> chunks;
        std::unique_ptr<SectorMap> newer;     ///< sectors captured since the open epoch began
        std::unique_ptr<SectorMap> received;  ///< sectors that its resync data covered
    };
    /// Neighbouring entries of one kind, applied as one.
    struct Run {
        std::uint16_t slot = 0;
        proto::ExtentKind kind = proto::ExtentKind::data;
        Extent extent;
        std::span<const std::byte> data;
    };

    Applier(FileSystem& files, const Clock& clock, const SnapshotEngine& engine, PointStore& points,
            std::filesystem::path dir, const Uuid& store, std::string source, Options options, Checkpoint checkpoint,
            HandOff* hand_off);
    [[nodiscard]] Result<void> restore();
    [[nodiscard]] Result<DiskStore*> disk_store(std::uint16_t slot);
    [[nodiscard]] Result<void> apply_batch(Position begin, Position end, ApplyReport& report);
    [[nodiscard]] Result<void> apply_frame(const JournalEntry& entry, ApplyReport& report);
    [[nodiscard]] Result<void> apply_extents(std::span<const std::byte> body);
    [[nodiscard]] Result<void> apply_run(const Run& run);
    [[nodiscard]] Result<void> end_batch(std::span<const std::byte> body, ApplyReport& report);
    [[nodiscard]] Result<void> apply_session(std::span<const std::byte> body);
    [[nodiscard]] Result<void> apply_step(Position limit, ApplyReport& report);
    [[nodiscard]] Result<void> store_checkpoint();
    [[nodiscard]] Result<void> begin_epoch(std::span<const std::byte> body, Position position);
    [[nodiscard]] Result<void> end_epoch(std::span<const std::byte> body, Position position, ApplyReport& report);
    void make_point(bool from_server, std::uint64_t request, proto::PointKind kind, std::string name,
                    ApplyReport& report);
    [[nodiscard]] std::string why_no_point(const std::string& name) const;
    [[nodiscard]] std::size_t share(std::size_t of_source, std::size_t least) const noexcept;
    [[nodiscard]] std::size_t map_pages() const noexcept;
    [[nodiscard]] std::filesystem::path map_path(std::uint16_t slot, Position epoch, const char* kind) const;
    void drop_maps(std::uint16_t slot);
    [[nodiscard]] Result<void> restore_maps();
    [[nodiscard]] Result<void> publish_pending();

    FileSystem& files_;
    const Clock& clock_;
    const SnapshotEngine& engine_;
    PointStore& points_;
    const std::filesystem::path dir_;
    const Uuid store_;
    const std::string source_;
    const Options options_;
    Checkpoint state_;
    Checkpoint stored_;
    const Generation opened_generation_;  ///< every point that was there when it was opened sees an older one
    EntrySource entries_;
    std::map<std::uint16_t, DiskStore> disks_;
    std::vector<std::filesystem::path> old_maps_;        ///< to remove after the next checkpoint
    bool maps_changed_ = false;                          ///< names in maps/ are not durable
    std::vector<proto::PointRequest> requests_;          ///< of the batch being applied
    std::vector<Manifest> published_;
    proto::BatchBegin batch_;                            ///< being applied
    std::uint64_t stored_at_ns_ = 0;
    bool failed_ = false;
};

}  // namespace blkferry::store
