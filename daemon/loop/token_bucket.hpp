// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace blkferry::loop {

/// A token bucket over bytes; pure: time comes in as monotonic nanoseconds that never go back (a step back counts as 0).
///
/// Who sends at most what available() tells passes at most 1.02 times the rate over any second: the burst is 2 % of a
/// second's bytes. Taking more goes into debt (a record of fixed size can be sent whole); nothing is available until the
/// debt is paid, so the mean holds all the same.
///
/// Use: n = available(now); if 0, wait wait_ns(now); send at most n bytes; take(now, sent).
class TokenBucket {
public:
    /// rate: bytes per second, 0 = unlimited. Starts with a full burst.
    explicit TokenBucket(std::uint64_t rate = 0, std::uint64_t now_ns = 0) noexcept;

    /// Changes the rate from now on; debt stays, tokens above the new burst are lost.
    void set_rate(std::uint64_t rate, std::uint64_t now_ns) noexcept;
    [[nodiscard]] std::uint64_t rate() const noexcept { return rate_; }
    [[nodiscard]] bool unlimited() const noexcept { return rate_ == 0; }
    /// Largest number of bytes that can be available at once (UINT64_MAX if unlimited).
    [[nodiscard]] std::uint64_t burst() const noexcept;

    /// Bytes that may be sent now; UINT64_MAX if unlimited. Less than quantum() is told as 0, so that a slow rate does not
    /// turn into a stream of tiny sends.
    [[nodiscard]] std::uint64_t available(std::uint64_t now_ns) noexcept;
    /// The bytes were sent.
    void take(std::uint64_t now_ns, std::uint64_t bytes) noexcept;
    /// Nanoseconds until available() is not 0; 0 if it is not.
    [[nodiscard]] std::uint64_t wait_ns(std::uint64_t now_ns) noexcept;
    /// Smallest amount that available() tells.
    [[nodiscard]] std::uint64_t quantum() const noexcept;

private:
    void refill(std::uint64_t now_ns) noexcept;

    // Tokens are counted in byte-nanoseconds per second (bytes * 1e9), so that no fraction is lost at any rate.
    using Level = __int128;
    std::uint64_t rate_;
    std::uint64_t last_ns_;
    Level level_;
};

}  // namespace blkferry::loop
