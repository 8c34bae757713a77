// SPDX-License-Identifier: Apache-2.0
#include "capture/block_device.hpp"

#include <cerrno>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <fmt/format.h>

#include "capture/tracker.hpp"

namespace blkferry::capture {

Result<std::uint64_t> block_device_number(const std::string& path) {
    struct stat st{};
    if (::stat(path.c_str(), &st) != 0)
        return fail_errno(errno, fmt::format("cannot find device {}", path));
    if (!S_ISBLK(st.st_mode))
        return fail(Errc::invalid, fmt::format("{} is not a block device", path));
    return device_number(major(st.st_rdev), minor(st.st_rdev));
}

}  // namespace blkferry::capture
