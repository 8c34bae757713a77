// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "capture/tracker.hpp"

namespace blkferry::agent {

/// Sectors of 512 bytes that a block device counted as written or discarded, out of the text of its `stat` file (kernel
/// documentation, block/stat.rst; kernels before 4.18 have no discards). Errc::corrupt: it is no such text.
[[nodiscard]] Result<std::uint64_t> parse_disk_stat(std::string_view text);
/// The same of the device itself, read from sysfs; `dev` as DiskInfo::dev.
[[nodiscard]] Result<std::uint64_t> read_disk_stat(std::uint64_t dev);

/// Finds writes that reached a disk without the module: the disk's own counter against the captured sectors.
///
/// The difference (own counter - captured) can only fall while everything is captured: a write is captured before the disk
/// counts it, and what is cancelled or counted twice lowers it for good. So its value at an instant without a write in flight is
/// a bound, and a reading above that bound is a write that was not captured. A disk that does not count (iostats off, a driver
/// without accounting) is never suspected; a disk that is never quiet has no bound and is not judged until it is.
/// Pure; one per disk, fed every second.
class SelfCheck {
public:
    /// `own_sectors` must be read before `info`. Gives the sectors that bypassed the capture since the last call, seen in
    /// `confirmations` calls in a row, else nothing.
    [[nodiscard]] std::optional<std::uint64_t> feed(std::uint64_t own_sectors, const capture::DiskInfo& info);

    static constexpr int confirmations = 3;

private:
    struct Sample {
        std::uint64_t own = 0;
        std::uint64_t captured = 0;
        std::uint64_t odd = 0;     ///< events that break the rule and are repaired by the module itself
        std::uint32_t writes = 0;  ///< in flight
    };
    [[nodiscard]] static Sample sample(std::uint64_t own_sectors, const capture::DiskInfo& info) noexcept;

    Uuid attach_;
    std::optional<Sample> last_;
    std::optional<std::int64_t> bound_;
    int above_ = 0;
};

}  // namespace blkferry::agent
