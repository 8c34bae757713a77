// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>

#include "base/result.hpp"
#include "store/file.hpp"

namespace blkferry::store {

/// How a chunk file is cloned into a new generation. Stateless, thread-safe.
class SnapshotEngine {
public:
    virtual ~SnapshotEngine() = default;
    [[nodiscard]] virtual std::string_view name() const noexcept = 0;
    /// Gives `target` (new, empty) the contents and size of `source`; later writes to one never show in the other.
    /// Durable only after target.sync().
    [[nodiscard]] virtual Result<void> clone(File& source, File& target) const = 0;
};

/// FICLONE: needs XFS with reflink, btrfs or the like.
[[nodiscard]] std::unique_ptr<SnapshotEngine> make_reflink_engine();
/// Copies the data ranges, keeps the holes. Works anywhere.
[[nodiscard]] std::unique_ptr<SnapshotEngine> make_copy_engine();
/// "reflink" or "copy" by name, or "auto": tries a reflink between two small files in `dir`.
[[nodiscard]] Result<std::unique_ptr<SnapshotEngine>> make_engine(std::string_view name, FileSystem& files,
                                                                  const std::filesystem::path& dir);

}  // namespace blkferry::store
