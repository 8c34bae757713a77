// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

namespace blkferry {

/// The seam for time: daemons use SystemClock, tests and the fault simulation their own.
class Clock {
public:
    virtual ~Clock() = default;
    /// CLOCK_MONOTONIC, nanoseconds.
    [[nodiscard]] virtual std::uint64_t monotonic_ns() const noexcept = 0;
    /// CLOCK_REALTIME, nanoseconds since 1970. For people and manifests only: order is by seq, never by time.
    [[nodiscard]] virtual std::uint64_t realtime_ns() const noexcept = 0;
};

class SystemClock final : public Clock {
public:
    [[nodiscard]] std::uint64_t monotonic_ns() const noexcept override {
        return to_ns(std::chrono::steady_clock::now().time_since_epoch());
    }
    [[nodiscard]] std::uint64_t realtime_ns() const noexcept override {
        return to_ns(std::chrono::system_clock::now().time_since_epoch());
    }

private:
    template <class D>
    static std::uint64_t to_ns(D d) noexcept {
        return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(d).count());
    }
};

}  // namespace blkferry
