// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.hpp"

namespace blkferry::capture {

/// What sysfs tells about a whole disk.
struct BlockFacts {
    std::string name;                ///< kernel name
    std::uint64_t sectors = 0;       ///< of 512 bytes, whatever the logical block is
    std::uint32_t logical_block = 512;
    std::uint64_t tags = 0;          ///< requests that it can have at once, at most
    std::uint64_t diskseq = 0;       ///< changes with the medium; 0: not told (before 5.15)
    std::uint64_t writes_inflight = 0;
    bool counts = false;             ///< writes_inflight is kept (queue/iostats)
};

/// Reads the facts of device `dev` (device_number()); `sys` is where sysfs is mounted. Refuses, saying why, what the fallback without the
/// module cannot track: a partition (EINVAL), no medium (EINVAL), a read-only disk (EROFS), zoned, DAX or bio-based (EOPNOTSUPP);
/// ENODEV: no such device.
[[nodiscard]] Result<BlockFacts> read_block_facts(std::uint64_t dev, const std::filesystem::path& sys = "/sys");

/// Requests that all disks of the machine can have at once, at most.
[[nodiscard]] std::uint64_t all_tags(const std::filesystem::path& sys = "/sys");

}  // namespace blkferry::capture
