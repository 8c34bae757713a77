// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "proto/limits.hpp"

/// The bytes of a journal: segment header and entry header. Pure. docs/journal-format.md describes them.
namespace blkferry::store {

/// A place in the journal of one source: bytes of entries since the journal began. Only grows.
using Position = std::uint64_t;

/// Types of entries; the values are disk format.
enum class EntryType : std::uint8_t {
    frame = 1,    ///< one frame of a batch, header and body as received
    session = 2,  ///< an agent connected (JSON): its disk table holds from here on, an unfinished batch is void
    point = 3,    ///< the server wants a recovery point at the mark of the last batch (JSON)
    pad = 4,      ///< fills up a block or a segment: its body means nothing and may not have been written
};
[[nodiscard]] std::string_view to_string(EntryType type) noexcept;

inline constexpr std::size_t segment_header_bytes = 4096;
inline constexpr std::size_t entry_header_bytes = 48;
/// Entries start at multiples of this, in the file and in positions.
inline constexpr std::size_t entry_align = 16;
/// No journal grows beyond this, so that sums of positions never wrap.
inline constexpr Position position_max = Position{1} << 62;
/// A PAD fills at most what an entry of full size and another PAD's header did not fit into.
inline constexpr std::size_t pad_body_bytes_max = 2U << 20;
inline constexpr std::size_t entry_body_bytes_max = proto::frame_header_bytes + proto::frame_body_bytes_max;
/// Files are written in blocks of this size; what was durable is never written again, so each commit ends with a full one.
inline constexpr std::size_t block_bytes = 4096;
inline constexpr std::uint64_t segment_bytes_min = 4U << 20;
inline constexpr std::uint64_t segment_bytes_max = 1ULL << 30;

/// Head of a segment file, 4096 bytes, little-endian:
///
///     0 u64 magic "BFJRNL01"   8 u32 version   12 u32 zero   16 u8[16] store uuid
///    32 u64 number            40 u64 first position   48 u64 salt   56 u64 committed
///    64 u32 CRC-32C of bytes 0..63   then zeroes
struct SegmentHeader {
    Uuid store;
    std::uint64_t number = 0;
    Position first = 0;
    std::uint64_t salt = 0;  ///< random, new each time that a file becomes a segment
    Position committed = 0;  ///< everything below was durable when this header was written
    bool operator==(const SegmentHeader&) const = default;
};
using SegmentHeaderBytes = std::array<std::byte, segment_header_bytes>;
[[nodiscard]] SegmentHeaderBytes encode(const SegmentHeader& header) noexcept;
[[nodiscard]] Result<SegmentHeader> decode_segment_header(std::span<const std::byte, segment_header_bytes> raw);

/// Head of an entry, 48 bytes, little-endian:
///
///     0 u32 magic "BFJE"   4 u8 type   5 u8[3] zero   8 u32 length   12 u32 CRC-32C of the body
///    16 u64 position      24 u64 committed           32 u64 salt of the segment
///    40 u32 zero          44 u32 CRC-32C of bytes 0..43
struct EntryHeader {
    EntryType type = EntryType::frame;
    std::uint32_t length = 0;    ///< bytes of body; zeroes fill up to the next multiple of entry_align
    std::uint32_t body_crc = 0;  ///< zero of a PAD
    Position position = 0;
    Position committed = 0;      ///< everything below was durable when this entry was written
    std::uint64_t salt = 0;
    bool operator==(const EntryHeader&) const = default;

    [[nodiscard]] std::uint64_t whole_bytes() const noexcept {
        return (entry_header_bytes + length + entry_align - 1) / entry_align * entry_align;
    }
};
using EntryHeaderBytes = std::array<std::byte, entry_header_bytes>;
[[nodiscard]] EntryHeaderBytes encode(const EntryHeader& header) noexcept;
/// Checks magic, checksum, type, length bound and zero fields.
[[nodiscard]] Result<EntryHeader> decode_entry_header(std::span<const std::byte, entry_header_bytes> raw);

/// "<20 digits>.seg"
[[nodiscard]] std::string segment_name(std::uint64_t number);
/// The number in a segment's file name, or nothing if it is not one.
[[nodiscard]] std::optional<std::uint64_t> parse_segment_name(std::string_view name) noexcept;

}  // namespace blkferry::store
