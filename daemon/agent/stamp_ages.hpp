// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>

namespace blkferry::agent {

/// How old stamps of CLOCK_REALTIME are, although that clock is set forward and back meanwhile. Records of the rings carry such a
/// stamp and no other; lag must neither grow by a day because somebody set the clock, nor shrink to nothing.
///
/// It notes each jump, so a stamp stands for one moment of the monotonic clock in each stretch between two jumps. Stamps are asked for in
/// the order in which they were made, so what lies before the last answer is out of the question; of what is left the oldest counts.
/// Pure; times in nanoseconds.
class StampAges {
public:
    /// What both clocks show now. To be called often: a jump is only known as well as this is (250 ms).
    void feed(std::uint64_t realtime_ns, std::uint64_t monotonic_ns);
    /// Nothing made before this moment will be asked for again.
    void settled(std::uint64_t monotonic_ns) noexcept;
    /// Age of the oldest stamp there is. Those asked for later were made later.
    std::uint64_t oldest_ns(std::uint64_t stamp_ns, std::uint64_t monotonic_ns);
    /// The same, forgotten at once.
    [[nodiscard]] std::uint64_t age_ns(std::uint64_t stamp_ns, std::uint64_t monotonic_ns) const noexcept;

private:
    struct Stretch {
        std::int64_t begin_ns;   ///< monotonic
        std::int64_t offset_ns;  ///< realtime - monotonic
    };
    [[nodiscard]] std::int64_t made_ns(std::uint64_t stamp_ns, std::int64_t now_ns) const noexcept;

    std::deque<Stretch> stretches_;  ///< oldest first
    std::int64_t floor_ns_ = INT64_MIN;
};

}  // namespace blkferry::agent
