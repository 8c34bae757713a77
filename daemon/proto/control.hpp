// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "proto/limits.hpp"

/// Answers of the server, and the two frames that go both ways.
namespace blkferry::proto {

/// ACK, 24 bytes: u64 batch, u64 mark, u64 window_bytes. Everything up to and including the batch is durable in the
/// journal.
struct Ack {
    std::uint64_t batch = 0;
    std::uint64_t mark = 0;
    std::uint64_t window_bytes = 0;  ///< bytes of batches the agent may have unacknowledged from now on
    bool operator==(const Ack&) const = default;
};
void encode(const Ack& m, std::vector<std::byte>& out);
[[nodiscard]] Result<Ack> decode_ack(std::span<const std::byte> body);

/// EPOCH_RESULT: u16 slot, u8 ok, u8 zero, u32 text length, u64 seq0, text. The sets of the cycle were compared.
struct EpochResult {
    std::uint16_t slot = 0;
    bool ok = false;
    std::uint64_t seq0 = 0;
    std::string text;  ///< why not
    bool operator==(const EpochResult&) const = default;
};
void encode(const EpochResult& m, std::vector<std::byte>& out);
[[nodiscard]] Result<EpochResult> decode_epoch_result(std::span<const std::byte> body);

/// POINT_RESULT: u64 request, u64 mark, u8 ok, u8 name length, u16 text length, name, text.
struct PointResult {
    std::uint64_t request = 0;
    std::uint64_t mark = 0;
    bool ok = false;
    std::string name;
    std::string text;  ///< why not
    bool operator==(const PointResult&) const = default;
};
void encode(const PointResult& m, std::vector<std::byte>& out);
[[nodiscard]] Result<PointResult> decode_point_result(std::span<const std::byte> body);

}  // namespace blkferry::proto
