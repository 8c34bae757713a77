// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace blkferry::tools {

struct OfflineExport {
    std::uint64_t bytes = 0;
    std::string sha256;  ///< hex
};

/// Exports a disk of a recovery point from a store folder, without its server. Errc::unsupported in a build without the
/// store. `slot` may be left out if the point has one disk.
[[nodiscard]] Result<OfflineExport> export_offline(const std::filesystem::path& store, const std::string& source,
                                                   const std::string& point, std::optional<unsigned> slot,
                                                   const std::filesystem::path& file,
                                                   const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);

}  // namespace blkferry::tools
