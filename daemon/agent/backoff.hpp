// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace blkferry::agent {

/// Waiting time before the next attempt to connect: doubles from `first_ms` to `max_ms`, each time scattered over
/// [half, whole], so that many sources do not come back in step. Pure: the caller brings the randomness.
class Backoff {
public:
    static constexpr std::uint64_t first_ms = 200;
    static constexpr std::uint64_t max_ms = 15'000;

    /// The next waiting time in milliseconds; `random` is any 64-bit random number.
    [[nodiscard]] std::uint64_t next_ms(std::uint64_t random) noexcept {
        const std::uint64_t whole = ceiling_;
        ceiling_ = std::min(ceiling_ * 2, max_ms);
        return whole / 2 + random % (whole - whole / 2 + 1);
    }
    /// A session was established: begin anew.
    void reset() noexcept { ceiling_ = first_ms; }

private:
    std::uint64_t ceiling_ = first_ms;
};

}  // namespace blkferry::agent
