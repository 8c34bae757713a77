// SPDX-License-Identifier: Apache-2.0
#include "loop/token_bucket.hpp"

#include <algorithm>
#include <limits>

namespace blkferry::loop {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();
}  // namespace

TokenBucket::TokenBucket(std::uint64_t rate, std::uint64_t now_ns) noexcept
    : rate_(rate), last_ns_(now_ns), level_(rate == 0 ? Level{0} : static_cast<Level>(burst()) * second_ns) {}

std::uint64_t TokenBucket::burst() const noexcept {
    return rate_ == 0 ? no_limit : std::max<std::uint64_t>(rate_ / 50, 1);
}

std::uint64_t TokenBucket::quantum() const noexcept {
    return rate_ == 0 ? 1 : std::clamp<std::uint64_t>(burst() / 4, 1, 16384);
}

void TokenBucket::refill(std::uint64_t now_ns) noexcept {
    if (now_ns <= last_ns_)
        return;
    const Level full = static_cast<Level>(burst()) * second_ns;
    // Compared by time, not by product: after a long sleep the product need not fit even 128 bits.
    const Level to_full_ns = (full - level_) / rate_ + 1;
    const Level elapsed_ns = now_ns - last_ns_;
    level_ = elapsed_ns >= to_full_ns ? full : std::min(full, level_ + elapsed_ns * rate_);
    last_ns_ = now_ns;
}

void TokenBucket::set_rate(std::uint64_t rate, std::uint64_t now_ns) noexcept {
    if (rate_ != 0)
        refill(now_ns);
    last_ns_ = std::max(last_ns_, now_ns);
    rate_ = rate;
    level_ = rate_ == 0 ? Level{0} : std::min(level_, static_cast<Level>(burst()) * second_ns);
}

std::uint64_t TokenBucket::available(std::uint64_t now_ns) noexcept {
    if (rate_ == 0)
        return no_limit;
    refill(now_ns);
    if (level_ <= 0)
        return 0;
    const auto bytes = static_cast<std::uint64_t>(level_ / second_ns);
    return bytes >= quantum() ? bytes : 0;
}

void TokenBucket::take(std::uint64_t now_ns, std::uint64_t bytes) noexcept {
    if (rate_ == 0)
        return;
    refill(now_ns);
    level_ -= static_cast<Level>(bytes) * second_ns;
}

std::uint64_t TokenBucket::wait_ns(std::uint64_t now_ns) noexcept {
    if (available(now_ns) != 0)
        return 0;
    const Level missing = static_cast<Level>(quantum()) * second_ns - level_;
    const Level ns = (missing + rate_ - 1) / rate_;
    return static_cast<std::uint64_t>(std::min<Level>(ns, static_cast<Level>(3600) * second_ns));
}

}  // namespace blkferry::loop
