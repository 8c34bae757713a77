// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "extent/extent.hpp"
#include "proto/limits.hpp"

/// Bodies of the frames that make a batch. Each encode_* appends the body to a vector, each decode_* checks every bound
/// and returns a value or a view into the given bytes. docs/protocol.md describes the layouts.
namespace blkferry::proto {

/// What an extent entry stands for; the values are wire format.
enum class ExtentKind : std::uint8_t {
    data = 1,         ///< captured write, payload follows
    zero = 2,         ///< captured write of zeroes
    discard = 3,      ///< captured discard: contents undefined on the source, zero on the replica
    resync_data = 4,  ///< read from the source disk in the open epoch, payload follows
    resync_zero = 5,  ///< read as zeroes in the open epoch
    resync_same = 6,  ///< found equal by hash in the open epoch: nothing to write, but covered
};

[[nodiscard]] constexpr bool is_resync(ExtentKind k) noexcept { return k >= ExtentKind::resync_data; }
[[nodiscard]] constexpr bool has_payload(ExtentKind k) noexcept {
    return k == ExtentKind::data || k == ExtentKind::resync_data;
}

/// One entry of an EXTENTS frame. 16 bytes: u16 slot, u8 kind, u8 zero, u32 sectors, u64 sector.
struct ExtentEntry {
    std::uint16_t slot = 0;  ///< index of the disk in HELLO's table
    ExtentKind kind = ExtentKind::data;
    Extent extent;           ///< count <= 2^32 - 1, end() <= disk_sectors_max

    [[nodiscard]] std::size_t payload_bytes() const noexcept {
        return has_payload(kind) ? static_cast<std::size_t>(extent.count * sector_bytes) : 0;
    }
    bool operator==(const ExtentEntry&) const = default;
};
inline constexpr std::size_t extent_entry_bytes = 16;

/// EXTENTS: u32 number of entries, u32 zero, the entries, then the payloads in the order of the entries, unpadded.
struct ExtentsView {
    std::vector<ExtentEntry> entries;
    std::span<const std::byte> payload;  ///< all payloads, exactly the sum of payload_bytes()
};
[[nodiscard]] Result<ExtentsView> decode_extents(std::span<const std::byte> body);
/// Bytes of an EXTENTS body in front of the payload.
[[nodiscard]] constexpr std::size_t extents_head_bytes(std::size_t entries) noexcept {
    return 8 + entries * extent_entry_bytes;
}
/// Appends the head; the caller appends the payloads.
void encode_extents_head(std::span<const ExtentEntry> entries, std::vector<std::byte>& out);

/// BATCH_BEGIN, 32 bytes: u64 prev_mark, u64 mark, u64 time_ns, u64 zero.
struct BatchBegin {
    std::uint64_t prev_mark = 0;  ///< mark of the batch before: the server refuses a hole
    std::uint64_t mark = 0;       ///< >= prev_mark
    std::uint64_t time_ns = 0;    ///< wall time on the source of the newest operation in it (of the cut if idle)
    bool operator==(const BatchBegin&) const = default;
};
void encode(const BatchBegin& m, std::vector<std::byte>& out);
[[nodiscard]] Result<BatchBegin> decode_batch_begin(std::span<const std::byte> body);

enum class EpochKind : std::uint8_t {
    initial = 1,  ///< initial sync: every block, replica contents unknown or absent
    gap = 2,      ///< dirty map of a gap
    rescan = 3,   ///< tracking was lost: every block, by hash
};
[[nodiscard]] std::string_view to_string(EpochKind kind) noexcept;

/// EPOCH_BEGIN, 40 bytes: u16 slot, u8 kind, u8 zero, u32 block_shift, u64 seq0, u64 sectors, u64 digest, u64 zero.
/// A resync epoch opens for one disk. All captured operations of this disk up to seq0 are in earlier batches
/// (prev_mark >= seq0), all in this and later batches have seq > seq0 and win over the epoch's data.
struct EpochBegin {
    std::uint16_t slot = 0;
    EpochKind kind = EpochKind::initial;
    std::uint32_t block_shift = 12;
    std::uint64_t seq0 = 0;
    std::uint64_t sectors = 0;  ///< sectors that the cycle will cover
    std::uint64_t digest = 0;   ///< SetDigest of them with slot 0
    bool operator==(const EpochBegin&) const = default;
};
void encode(const EpochBegin& m, std::vector<std::byte>& out);
[[nodiscard]] Result<EpochBegin> decode_epoch_begin(std::span<const std::byte> body);

/// EPOCH_END, 32 bytes: u16 slot, u16 zero, u32 zero, u64 seq0, u64 sectors, u64 digest. Every block was sent; the server
/// compares the set it received with the set announced and answers EPOCH_RESULT once the batch is applied.
struct EpochEnd {
    std::uint16_t slot = 0;
    std::uint64_t seq0 = 0;
    std::uint64_t sectors = 0;
    std::uint64_t digest = 0;
    bool operator==(const EpochEnd&) const = default;
};
void encode(const EpochEnd& m, std::vector<std::byte>& out);
[[nodiscard]] Result<EpochEnd> decode_epoch_end(std::span<const std::byte> body);

enum class PointKind : std::uint8_t {
    crash = 1,  ///< crash-consistent
    fs = 2,     ///< file systems were frozen at the cut
};
[[nodiscard]] std::string_view to_string(PointKind kind) noexcept;

/// POINT_REQUEST: u64 request, u8 kind, u8 name length, name. Make a recovery point at this batch's mark.
struct PointRequest {
    std::uint64_t request = 0;
    PointKind kind = PointKind::crash;
    std::string name;  ///< may be empty: the server names it; else [A-Za-z0-9._-]{1,64}, first character alphanumeric
    bool operator==(const PointRequest&) const = default;
};
void encode(const PointRequest& m, std::vector<std::byte>& out);
[[nodiscard]] Result<PointRequest> decode_point_request(std::span<const std::byte> body);
/// Whether a text may name a source, point or certificate (it becomes a file name).
[[nodiscard]] bool valid_name(std::string_view name) noexcept;

/// BATCH_END, 40 bytes: u32 extents, u32 flags (bit 0 consistent), u64 payload_bytes, u64 sectors, u64 digest, u64 zero.
struct BatchEnd {
    std::uint32_t extents = 0;        ///< entries in all EXTENTS frames of the batch
    bool consistent = false;          ///< no gap on any disk at the mark: a crash-consistent cut
    std::uint64_t payload_bytes = 0;  ///< of all entries
    std::uint64_t sectors = 0;        ///< in the union of captured (not resync) extents over all disks
    std::uint64_t digest = 0;         ///< SetDigest of that union, disks ascending by slot
    bool operator==(const BatchEnd&) const = default;
};
void encode(const BatchEnd& m, std::vector<std::byte>& out);
[[nodiscard]] Result<BatchEnd> decode_batch_end(std::span<const std::byte> body);

}  // namespace blkferry::proto
