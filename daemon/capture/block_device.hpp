// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace blkferry::capture {

/// device_number() of the block device at `path`: what Tracker::find_device() gives for real disks.
/// Errors: the errno of stat(2); Errc::invalid if something else is there.
[[nodiscard]] Result<std::uint64_t> block_device_number(const std::string& path);

}  // namespace blkferry::capture
