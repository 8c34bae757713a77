// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "capture/merger.hpp"
#include "capture/tracker.hpp"
#include "extent/extent_set.hpp"
#include "fold/encoder.hpp"
#include "fold/folder.hpp"

namespace blkferry::producer {

/// The rules of the source and the replica side in one small, synchronous loop, for tests of the parts that the agent is
/// made of: merge, fold, encode, decode, apply with "captured wins", resync, acknowledge. Keeps the replica in memory.
class MiniAgent {
public:
    explicit MiniAgent(capture::Tracker& tracker) : tracker_(tracker) {}

    /// Takes an attached disk in.
    [[nodiscard]] Result<void> add(const capture::DiskInfo& info);
    /// Drops all rings and opens them again, as a new agent would; the replica stays.
    [[nodiscard]] Result<void> restart();

    /// Ships at most one batch; false if there was nothing to ship.
    [[nodiscard]] Result<bool> ship();
    /// Starts, continues or ends the resync of disks that need one; a few runs at a time.
    [[nodiscard]] Result<void> resync();
    /// Every disk is in RING without a gap at the replica's mark.
    [[nodiscard]] bool consistent();

    [[nodiscard]] std::uint64_t mark() const noexcept { return mark_; }
    [[nodiscard]] const std::vector<std::byte>& image(std::uint16_t slot) const { return disks_.at(slot).image; }
    struct Counters {
        std::uint64_t batches = 0;
        std::uint64_t ops = 0;
        std::uint64_t overflows = 0;
        std::uint64_t epochs = 0;
        std::uint64_t resync_sectors = 0;
        std::uint64_t wire_bytes = 0;
    };
    [[nodiscard]] const Counters& counters() const noexcept { return counters_; }

private:
    struct ReplicaDisk {
        std::uint32_t id = 0;
        std::unique_ptr<capture::Ring> ring;
        Fd device;
        std::vector<std::byte> image;
        std::uint64_t begun = 0;      ///< seq0 of the epoch whose blocks may be read; 0: none
        std::uint64_t tracked = 0;    ///< number of the last SWITCH shipped: `newer` holds what came after it
        std::uint64_t at_block = 0;   ///< where the resync reader is
        ExtentSet newer;              ///< captured since `tracked`
    };
    [[nodiscard]] Result<void> collect(bool& any);
    [[nodiscard]] Result<void> encode_and_apply(fold::Folded folded);
    [[nodiscard]] Result<void> apply(std::span<const std::byte> stream);
    void apply_extent(ReplicaDisk& d, const proto::ExtentEntry& e, std::span<const std::byte> payload);
    [[nodiscard]] Result<void> resync_disk(std::uint16_t slot, ReplicaDisk& d);
    [[nodiscard]] Result<void> begin_epoch(ReplicaDisk& d);
    [[nodiscard]] Result<void> read_runs(std::uint16_t slot, ReplicaDisk& d);

    capture::Tracker& tracker_;
    std::map<std::uint16_t, ReplicaDisk> disks_;
    capture::Merger merger_;
    fold::Folder folder_;
    std::uint64_t batch_ = 0;
    std::uint64_t mark_ = 0;
    Counters counters_;
};

}  // namespace blkferry::producer
