// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

/// Every maximum that a peer may ask for. Nothing is allocated by a size from the wire beyond these.
namespace blkferry::proto {

inline constexpr unsigned protocol_version = 1;

inline constexpr std::size_t frame_header_bytes = 48;
/// Body of a frame, before and after decompression.
inline constexpr std::size_t frame_body_bytes_max = 1U << 20;
/// Handshake, heartbeat and error bodies (JSON).
inline constexpr std::size_t json_body_bytes_max = 64U << 10;

inline constexpr std::size_t disks_max = 256;
inline constexpr std::size_t name_bytes_max = 64;
inline constexpr std::size_t text_bytes_max = 256;
/// 16 EiB would overflow byte offsets: sizes and ends are below this many 512-byte sectors (8 EiB / 512).
inline constexpr std::uint64_t disk_sectors_max = 1ULL << 54;

/// Entries of one EXTENTS frame.
inline constexpr std::size_t frame_extents_max = 4096;
/// Over one batch: entries, and payload bytes (before compression).
inline constexpr std::size_t batch_extents_max = 131072;
inline constexpr std::uint64_t batch_payload_bytes_max = 1ULL << 30;
inline constexpr std::size_t batch_frames_max = 16384;
/// Point requests in one batch.
inline constexpr std::size_t batch_points_max = 4;
/// Batches sent but not acknowledged.
inline constexpr std::size_t batches_unacked_max = 64;

/// Hashes of one HASH_ASK.
inline constexpr std::size_t hash_blocks_max = 1024;
/// Bytes of one hashed block: power of two between 4 KiB and 1 MiB.
inline constexpr std::uint32_t hash_block_bytes_min = 4096;
inline constexpr std::uint32_t hash_block_bytes_max = 1U << 20;

/// A peer that says nothing for this long is dead (heartbeats come each second).
inline constexpr std::uint64_t peer_silence_ms_max = 20'000;
inline constexpr std::uint64_t heartbeat_interval_ms = 1'000;
/// A certificate request, and a certificate with what comes before it (PEM).
inline constexpr std::size_t csr_bytes_max = 8192;
inline constexpr std::size_t cert_bytes_max = 16384;

/// From accept to a valid HELLO.
inline constexpr std::uint64_t handshake_ms_max = 10'000;

}  // namespace blkferry::proto
