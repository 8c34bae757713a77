// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "control/server.hpp"
#include "store/source_store.hpp"

namespace blkferry::server {

/// A recovery point of a source that is open.
struct PointTarget {
    std::string source;
    std::string point;
    std::shared_ptr<store::SourceStore> store;
    store::Manifest manifest;
};

/// Reads the whole point and compares it with the digests of its manifest, and the manifest with its signature; digests that
/// it lacks are added. `progress` gets (done, total) bytes; returning false stops with Errc::closed. The answer is that of
/// `verify_point` in docs/control.md. For a worker; it may take hours.
[[nodiscard]] Result<control::Json> verify_point(const PointTarget& target, const std::filesystem::path& source_dir,
                                                 const store::Signer& signer,
                                                 const std::function<bool(std::uint64_t, std::uint64_t)>& progress);

}  // namespace blkferry::server
