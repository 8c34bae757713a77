// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace blkferry {

/// How a frame body travels. The values are wire format.
enum class Codec : std::uint8_t { none = 0, lz4 = 1, zstd = 2 };

[[nodiscard]] std::string_view to_string(Codec codec) noexcept;
/// "none", "lz4" or "zstd".
[[nodiscard]] Result<Codec> parse_codec(std::string_view text);

/// Owns one compression context; use one per thread.
class Compressor {
public:
    /// `level` is zstd's (1..19); lz4 ignores it.
    Compressor(Codec codec, int level);
    ~Compressor();
    Compressor(Compressor&&) noexcept;
    Compressor& operator=(Compressor&&) noexcept;

    [[nodiscard]] Codec codec() const noexcept;
    /// Appends the compressed form of `raw` to `out` and returns true, or leaves `out` as it was and returns false if
    /// that would save less than one sixteenth (incompressible data is sent as it is).
    [[nodiscard]] bool compress(std::span<const std::byte> raw, std::vector<std::byte>& out);
    /// Bytes that compress_into() may use: what is allowed to pay.
    [[nodiscard]] static constexpr std::size_t room(std::size_t raw_bytes) noexcept { return raw_bytes - raw_bytes / 16; }
    /// As compress(), into memory of at least room(raw.size()) bytes; gives the compressed length, or 0 if it does not pay.
    [[nodiscard]] std::size_t compress_into(std::span<const std::byte> raw, std::span<std::byte> out);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Owns one decompression context; use one per thread.
class Decompressor {
public:
    Decompressor();
    ~Decompressor();
    Decompressor(Decompressor&&) noexcept;
    Decompressor& operator=(Decompressor&&) noexcept;

    /// Fills `raw` exactly from `wire`; a body that does not give exactly raw.size() bytes is Errc::corrupt.
    [[nodiscard]] Result<void> decompress(Codec codec, std::span<const std::byte> wire, std::span<std::byte> raw);

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace blkferry
