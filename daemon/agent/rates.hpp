// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace blkferry::agent {

/// Rates of growing counters: mean of the last seconds, and how fast the link drains. Pure; fed at each tick.
class Rates {
public:
    enum Which : std::uint8_t { capture, ship, wire, resync, durable, count };
    using Values = std::array<std::uint64_t, count>;

    /// `busy`: something waited to be sent the whole time. Ticks closer than 50 ms are ignored.
    void feed(std::uint64_t now_ns, const Values& totals, bool busy) noexcept {
        if (at_ns_ == 0) {
            at_ns_ = now_ns;
            totals_ = totals;
            return;
        }
        const std::uint64_t dt = now_ns - at_ns_;
        if (dt < 50'000'000)
            return;
        const double seconds = static_cast<double>(dt) / 1e9;
        const double weight = std::min(1.0, seconds / window_s);
        for (std::size_t i = 0; i < count; ++i) {
            const double rate = static_cast<double>(totals[i] - std::min(totals_[i], totals[i])) / seconds;
            mean_[i] += (rate - mean_[i]) * weight;
            if (i == wire) {
                // Only a busy link tells what it can; an idle one can do at least what it just did.
                drain_ = busy ? drain_ + (rate - drain_) * 0.3 : std::max(drain_, rate);
            }
        }
        at_ns_ = now_ns;
        totals_ = totals;
    }
    /// Bytes per second.
    [[nodiscard]] std::uint64_t mean(Which w) const noexcept { return static_cast<std::uint64_t>(mean_[w] + 0.5); }
    [[nodiscard]] std::uint64_t drain() const noexcept { return static_cast<std::uint64_t>(drain_); }
    /// A new link: nothing is known of it.
    void forget_drain() noexcept { drain_ = drain_first; }

private:
    static constexpr double window_s = 3.0;
    static constexpr double drain_first = 64e6;
    std::uint64_t at_ns_ = 0;
    Values totals_{};
    std::array<double, count> mean_{};
    double drain_ = drain_first;
};

}  // namespace blkferry::agent
