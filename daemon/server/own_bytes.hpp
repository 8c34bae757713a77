// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "store/manifest.hpp"

namespace blkferry::server {

/// What each of a source's recovery points holds alone: bytes on disk of the chunk files that no other point and not staging
/// sees. That is what its removal frees; on a store that shares blocks between files (engine reflink) it is the most that it
/// frees. `points` are all of the source. Reads folders and the sizes of these files only; what changes meanwhile may be missed.
[[nodiscard]] std::vector<std::uint64_t> own_bytes(const std::filesystem::path& source_dir,
                                                   const std::vector<store::Manifest>& points);

}  // namespace blkferry::server
