// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "agent/read_pool.hpp"
#include "agent/registry.hpp"
#include "capture/ring.hpp"
#include "capture/tracker.hpp"

namespace blkferry::agent {

/// A protected disk that is attached: its record, its ring and the way to read it.
struct Disk {
    ProtectedDisk record;
    std::uint32_t id = 0;        ///< of the module
    std::string name;            ///< kernel name now
    std::string path;            ///< device node now
    std::uint64_t dev = 0;
    std::shared_ptr<capture::Ring> ring;
    std::optional<DiskReader> reader;

    [[nodiscard]] std::uint16_t slot() const noexcept { return record.slot; }
    [[nodiscard]] const capture::RingGeometry& geometry() const noexcept { return ring->geometry(); }
    [[nodiscard]] std::uint64_t block_bytes() const noexcept { return 1ULL << geometry().block_shift; }
};

/// What speaks against going on with a disk where the server stands. Pure.
enum class DiskPlan : std::uint8_t {
    carry_on,       ///< the replica follows this tracking session: the maps say what is missing
    whole_initial,  ///< the server has nothing of the disk
    whole_rescan,   ///< the server's replica is of another tracking session or not in step, or one of the two went back in time
};

struct PlanFacts {
    bool known = false;           ///< server: holds a replica
    bool same_load = false;       ///< server's marks count in this module session
    Uuid server_attach;           ///< tracking session the replica follows
    Uuid attach;                  ///< tracking session now
    bool in_step = false;         ///< server: the replica is synced, or an epoch is open (or its result is on its way)
    bool went_back = false;       ///< the server lost what it had acknowledged, or the module's counter is behind the server's mark
};
[[nodiscard]] DiskPlan plan_disk(const PlanFacts& facts) noexcept;

}  // namespace blkferry::agent
