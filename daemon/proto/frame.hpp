// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "codec/compress.hpp"
#include "proto/limits.hpp"

namespace blkferry::proto {

/// Frame types; the values are wire format.
enum class FrameType : std::uint8_t {
    hello = 1,         ///< agent -> server, first frame (JSON)
    welcome = 2,       ///< server -> agent, answer (JSON)
    batch_begin = 3,   ///< agent -> server; journalled, as are the next five
    extents = 4,
    epoch_begin = 5,
    epoch_end = 6,
    point_request = 7,
    batch_end = 8,
    ack = 9,           ///< server -> agent: batch durable
    epoch_result = 10, ///< server -> agent: sets of a resync cycle compared
    point_result = 11, ///< server -> agent: recovery point made or refused
    hash_ask = 12,     ///< agent -> server: compare hashes with staging
    hash_reply = 13,   ///< server -> agent
    heartbeat = 14,    ///< both ways (JSON status)
    error = 15,        ///< both ways (JSON code and text), last frame before close
    cert_request = 16, ///< agent -> server: enrolment, or renewal in a session (JSON)
    cert_reply = 17,   ///< server -> agent, answer (JSON)
    retire = 18,       ///< agent -> server: this source goes for good; server -> agent: noted (empty)
};

[[nodiscard]] std::string_view to_string(FrameType type) noexcept;
/// Largest body of a frame of this type, before and after decompression; decode_header refuses more.
[[nodiscard]] std::size_t body_bytes_max(FrameType type) noexcept;
/// Whether frames of this type belong to a batch (and so to the journal).
[[nodiscard]] bool is_batch_frame(FrameType type) noexcept;

/// The fixed header in front of every body. 48 bytes, little-endian:
///
///     0 u32 magic "BFR1"   4 u8 version   5 u8 type   6 u8 codec   7 u8 zero
///     8 u32 wire_len      12 u32 raw_len
///    16 u64 batch         24 u32 index in the batch   28 u32 zero
///    32 u64 XXH3-64 of the body before compression
///    40 u32 zero          44 u32 CRC-32C of bytes 0..43
struct FrameHeader {
    FrameType type = FrameType::error;
    Codec codec = Codec::none;
    std::uint32_t wire_len = 0;  ///< bytes of body that follow
    std::uint32_t raw_len = 0;   ///< bytes of body after decompression; == wire_len if codec is none
    std::uint64_t batch = 0;     ///< batch number; 0 outside of batches
    std::uint32_t index = 0;     ///< 0 for BATCH_BEGIN, then counting; 0 outside of batches
    std::uint64_t body_xxh3 = 0;

    bool operator==(const FrameHeader&) const = default;
};

using HeaderBytes = std::array<std::byte, frame_header_bytes>;

[[nodiscard]] HeaderBytes encode_header(const FrameHeader& header) noexcept;
/// Checks magic, checksum, version, type, codec, zero fields and length bounds; the error says which one is wrong.
[[nodiscard]] Result<FrameHeader> decode_header(std::span<const std::byte, frame_header_bytes> raw);

/// Appends a whole frame to `out`: header and body, compressed if `compressor` is given and it pays.
/// `raw` must not exceed frame_body_bytes_max.
void encode_frame(FrameType type, std::uint64_t batch, std::uint32_t index, std::span<const std::byte> raw,
                  Compressor* compressor, std::vector<std::byte>& out);

/// The body after decompression and verification, as a view of `wire` (codec none) or of `scratch` (which is resized).
[[nodiscard]] Result<std::span<const std::byte>> decode_body(const FrameHeader& header, std::span<const std::byte> wire,
                                                             Decompressor& decompressor,
                                                             std::vector<std::byte>& scratch);

/// Verifies an uncompressed body.
[[nodiscard]] Result<void> verify_body(const FrameHeader& header, std::span<const std::byte> raw);
/// Decompresses into `raw`, which has header.raw_len bytes, and verifies. For bodies that travelled compressed.
[[nodiscard]] Result<void> decode_body_into(const FrameHeader& header, std::span<const std::byte> wire,
                                            Decompressor& decompressor, std::span<std::byte> raw);

/// Cuts a byte stream into frames. feed() appends received bytes; next() gives the next whole frame as views that stay
/// valid until the next feed() or next(). A malformed header makes it bad for ever. Memory is bounded by one frame plus
/// what one feed() brings.
class FrameReader {
public:
    struct View {
        FrameHeader header;
        std::span<const std::byte> whole;  ///< header and body as received
        std::span<const std::byte> wire;   ///< body as received
    };
    enum class Status : std::uint8_t { frame, need_more };

    void feed(std::span<const std::byte> data);
    /// `view` is set if the result is Status::frame.
    [[nodiscard]] Result<Status> next(View& view);
    /// Bytes received and not yet given out.
    [[nodiscard]] std::size_t buffered() const noexcept { return buffer_.size() - at_; }

private:
    std::vector<std::byte> buffer_;
    std::size_t at_ = 0;
};

}  // namespace blkferry::proto
