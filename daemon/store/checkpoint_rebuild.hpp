// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>

#include "store/checkpoint.hpp"
#include "store/file.hpp"
#include "store/signer.hpp"

namespace blkferry::store {

/// A source's checkpoint as it was found when its store was opened.
struct FoundCheckpoint {
    Checkpoint checkpoint;
    std::optional<Error> damage;  ///< the file was damaged or lost: `checkpoint` is what the rest of the folder tells
};

/// Reads `<dir>/checkpoint.json`. If it is damaged, or missing although there was one, a new one is made from the journal (last
/// complete batch, disks), the manifests and the names of chunk files, and stored; the damaged file is kept as
/// `checkpoint.json.damaged`. It says of no disk that it is in step and names a load that no module has, so the agent compares all
/// blocks with the source; its generation is above all that a recovery point sees. Errors are those of the disk.
[[nodiscard]] Result<FoundCheckpoint> find_checkpoint(FileSystem& files, const std::filesystem::path& dir, const Uuid& store,
                                                      const Signer* signer, std::uint64_t chunk_bytes);

}  // namespace blkferry::store
