// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include <blkferry.h>

#include "base/result.hpp"

namespace blkferry::capture {

/// One histogram of the module: how long its own code kept the path of an operation (BLKFERRY_A_LATENCY). Pure values.
///
/// Buckets are powers of two of the module's ticks, so a quantile is known by its bucket only: it is told as the longest time
/// that the bucket holds, never less than the true one, and never above the maximum, which is exact. Times round up to whole ns.
class LatencySet {
public:
    LatencySet() = default;
    /// `ticks` of the clock last `ns`; neither is 0. Any contents are taken: sums saturate, and a maximum below what the buckets
    /// show (the module counts while it is read) is raised to that.
    LatencySet(const blkferry_latency& raw, std::uint64_t ticks, std::uint64_t ns) noexcept;

    [[nodiscard]] std::uint64_t samples() const noexcept { return samples_; }
    /// Longest of all samples, 0 without any.
    [[nodiscard]] std::uint64_t max_ns() const noexcept { return samples_ == 0 ? 0 : to_ns(max_); }
    /// What `permille` of 1000 samples did not exceed (1..1000); 0 without any sample.
    [[nodiscard]] std::uint64_t quantile_ns(unsigned permille) const noexcept;
    /// The buckets that hold something: (longest time of the bucket in ns, samples).
    [[nodiscard]] std::vector<std::pair<std::uint64_t, std::uint64_t>> buckets() const;

private:
    [[nodiscard]] std::uint64_t to_ns(std::uint64_t ticks) const noexcept;
    [[nodiscard]] std::uint64_t upper_ns(std::size_t bucket) const noexcept;

    std::array<std::uint64_t, BLKFERRY_LATENCY_BUCKETS> count_{};
    std::uint64_t max_ = 0;  ///< ticks
    std::uint64_t samples_ = 0;
    std::uint64_t ticks_ = 1;
    std::uint64_t ns_ = 1;
};

/// Sets as the module sent them, at most this many; it may know more or fewer than we do.
constexpr std::size_t latency_sets_max = 16;

/// Errc::corrupt: `raw` is not 1..latency_sets_max whole sets, or the clock's ratio is none.
[[nodiscard]] Result<std::vector<LatencySet>> parse_latency(std::span<const std::byte> raw, std::uint64_t ticks, std::uint64_t ns);

}  // namespace blkferry::capture
