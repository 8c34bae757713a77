// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/hash.hpp"
#include "base/result.hpp"
#include "proto/limits.hpp"

namespace blkferry::proto {

/// HASH_ASK: u64 request, u16 slot, u16 zero, u32 block_bytes, u64 sector, u32 count, u32 zero, count * 32 bytes SHA-256.
/// "These are the hashes of `count` blocks from `sector` on: which differ from staging?" The server answers in stream
/// order: after every batch received before has been applied. The last block of a disk may be short.
struct HashAsk {
    std::uint64_t request = 0;
    std::uint16_t slot = 0;
    std::uint32_t block_bytes = 0;  ///< power of two, hash_block_bytes_min .. hash_block_bytes_max
    std::uint64_t sector = 0;       ///< multiple of block_bytes / 512
    std::vector<Sha256> hashes;     ///< 1 .. hash_blocks_max
    bool operator==(const HashAsk&) const = default;
};
void encode(const HashAsk& m, std::vector<std::byte>& out);
[[nodiscard]] Result<HashAsk> decode_hash_ask(std::span<const std::byte> body);

/// HASH_REPLY: u64 request, u32 count, u32 zero, (count + 7) / 8 bytes; bit i of byte i / 8 set: block i differs.
struct HashReply {
    std::uint64_t request = 0;
    std::vector<bool> differs;
    bool operator==(const HashReply&) const = default;
};
void encode(const HashReply& m, std::vector<std::byte>& out);
[[nodiscard]] Result<HashReply> decode_hash_reply(std::span<const std::byte> body);

}  // namespace blkferry::proto
