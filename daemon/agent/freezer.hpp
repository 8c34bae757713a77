// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <sys/types.h>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "loop/loop.hpp"

namespace blkferry::agent {

/// A mounted file system that can be frozen: its mount point, opened before anything is frozen.
struct MountPoint {
    std::string path;
    Fd fd;
};

/// Opens where the file systems on these devices (device_number(), as mounted_on() gives them) are mounted. The order is kept.
[[nodiscard]] Result<std::vector<MountPoint>> open_mount_points(const std::vector<std::uint64_t>& devices, const std::string& proc = "/proc");

/// Freezes file systems without the module. A child process does it: it thaws them, in reverse order, when told, when this process
/// ends in whatever way, and at the latest after the given time, so that a dying agent leaves nothing frozen. A file system that cannot
/// freeze (vfat) is synced instead. One thread (the loop's).
class Freezer {
public:
    using Frozen = std::move_only_function<void(Result<void>)>;
    static constexpr std::uint32_t ms_max = 10'000;

    /// `frozen` is called once, in the loop: all are frozen, or none and why.
    [[nodiscard]] static Result<std::unique_ptr<Freezer>> start(loop::Loop& loop, std::vector<MountPoint> mounts, std::uint32_t ms,
                                                                Frozen frozen);
    Freezer(const Freezer&) = delete;
    Freezer& operator=(const Freezer&) = delete;
    /// Thaws.
    ~Freezer();

    /// Thaws now, within milliseconds. Errc::timeout: the time was over before, they were thawed already.
    [[nodiscard]] Result<void> thaw();

private:
    Freezer() = default;
    void heard();

    std::vector<MountPoint> mounts_;
    Fd socket_;
    pid_t child_ = -1;
    Frozen frozen_;
    loop::Watch watch_;
};

}  // namespace blkferry::agent
