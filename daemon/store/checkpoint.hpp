// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "store/chunk_store.hpp"
#include "store/disk_table.hpp"
#include "store/manifest.hpp"

namespace blkferry::store {

inline constexpr std::size_t checkpoint_bytes_max = 16U << 20;

/// Where redo begins after a restart, and all that applying needs besides chunks and maps. `checkpoint.json`, replaced
/// atomically: one line of JSON, one line with its CRC-32C.
struct Checkpoint {
    Position position = 0;        ///< journal applied up to here
    std::uint64_t batch = 0;      ///< last applied batch
    std::uint64_t mark = 0;
    std::uint64_t mark_time_ns = 0;
    bool consistent = false;      ///< what BATCH_END of that batch said
    Generation generation = 1;    ///< current: files above it are removed at open
    std::uint64_t chunk_bytes = chunk_bytes_default;
    DiskTable table;
    std::uint64_t head_serial = 0;  ///< newest recovery point
    std::string head_hash;
    std::vector<Manifest> pending;  ///< points that this checkpoint makes valid; published right after it
    bool operator==(const Checkpoint&) const = default;
};
[[nodiscard]] std::string encode(const Checkpoint& c);
/// Errc::corrupt if the checksum or a member is wrong.
[[nodiscard]] Result<Checkpoint> decode_checkpoint(std::string_view text);

}  // namespace blkferry::store
