// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct evp_md_ctx_st;

namespace blkferry {

/// CRC-32C (Castagnoli) as in iSCSI: initial value and final xor are all ones. isa-l.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> data) noexcept;
/// Goes on from the checksum of what came before; 0 for nothing.
[[nodiscard]] std::uint32_t crc32c(std::uint32_t before, std::span<const std::byte> data) noexcept;

/// XXH3, 64 bits, seed 0. Finds accidents, not attackers. libxxhash.
[[nodiscard]] std::uint64_t xxh3(std::span<const std::byte> data) noexcept;

using Sha256 = std::array<std::byte, 32>;
/// SHA-256: compared between source and server where equal hashes mean that data is not shipped. OpenSSL.
[[nodiscard]] Sha256 sha256(std::span<const std::byte> data);

/// The same over data that comes in pieces. value() ends it.
class Sha256Stream {
public:
    Sha256Stream();
    void add(std::span<const std::byte> data);
    [[nodiscard]] Sha256 value();

private:
    std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace blkferry
