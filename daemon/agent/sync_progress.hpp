// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "agent/registry.hpp"

namespace blkferry::agent {

/// What one protected disk has to ship by resync, as the module's maps say it at this moment.
struct DiskProgress {
    std::uint16_t slot = 0;
    bool active = false;         ///< a resync of it runs or is wanted
    bool whole = false;          ///< of the whole disk (initial sync or rescan)
    SyncKind kind = SyncKind::initial;
    std::uint64_t left_bytes = 0;
    std::uint64_t size_bytes = 0;
    bool all_marked = false;     ///< every block waits for the next epoch
};

/// How far a phase has come, over all its disks together. A phase begins when a disk has something to resync and ends when
/// none of its disks has. In a phase of syncs (initial sync, rescan) only the disks that sync count, each with its whole size and
/// also after it has finished, while the others go on and while the backlog is flushed. In a phase of gaps a disk counts with what
/// was shipped and what is left.
///
/// Done bytes never fall within a phase: what the source writes again while it is copied is not taken from them. They reach the
/// total only when no backlog is left. A disk that must start from its first byte again (marked as a whole, another kind of sync)
/// begins a new phase. Pure; one thread.
class SyncProgress {
public:
    struct Sum {
        std::uint64_t done_bytes = 0;
        std::uint64_t total_bytes = 0;
        bool operator==(const Sum&) const = default;
    };

    /// The facts of all attached disks now, and the backlog of the source.
    void feed(std::span<const DiskProgress> disks, std::uint64_t backlog_bytes);
    /// Nothing if no phase runs.
    [[nodiscard]] std::optional<Sum> sum() const;
    /// Of one disk; nothing if it is not of the phase.
    [[nodiscard]] std::optional<Sum> disk(std::uint16_t slot) const;

private:
    struct Part {
        Sum sum;
        std::uint64_t left_bytes = 0;
        SyncKind kind = SyncKind::initial;
        bool whole = false;
        bool all_marked = false;
        bool active = false;
    };
    [[nodiscard]] bool restarts(const DiskProgress& disk) const;
    void feed_disk(const DiskProgress& disk);

    bool syncs_ = false;  ///< the phase is one of syncs, not of gaps
    bool backlog_ = false;
    std::map<std::uint16_t, Part> parts_;
};

}  // namespace blkferry::agent
