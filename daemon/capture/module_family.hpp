// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/result.hpp"

namespace blkferry::capture {

/// Id of the module's generic netlink family. Anybody may ask. Errc::not_found (ENOENT): the module is not loaded; the text says what to do.
[[nodiscard]] Result<std::uint16_t> module_family();

}  // namespace blkferry::capture
