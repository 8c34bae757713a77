// SPDX-License-Identifier: Apache-2.0
#include "capture/latency.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>

namespace blkferry::capture {

namespace {

__extension__ using Wide = unsigned __int128;
constexpr std::uint64_t u64_max = std::numeric_limits<std::uint64_t>::max();

std::uint64_t add(std::uint64_t a, std::uint64_t b) noexcept {
    return a > u64_max - b ? u64_max : a + b;
}

constexpr std::uint64_t upper_ticks(std::size_t bucket) noexcept {
    return bucket >= 63 ? u64_max : (std::uint64_t{2} << bucket) - 1;
}

}  // namespace

LatencySet::LatencySet(const blkferry_latency& raw, std::uint64_t ticks, std::uint64_t ns) noexcept
    : max_(raw.max), ticks_(ticks), ns_(ns) {
    BLKFERRY_ASSERT(ticks != 0 && ns != 0);
    std::copy(std::begin(raw.count), std::end(raw.count), count_.begin());
    for (std::size_t i = 0; i < count_.size(); ++i) {
        samples_ = add(samples_, count_[i]);
        if (count_[i] != 0 && i != 0)
            max_ = std::max(max_, std::uint64_t{1} << i);
    }
}

std::uint64_t LatencySet::to_ns(std::uint64_t ticks) const noexcept {
    const Wide ns = (Wide{ticks} * ns_ + (ticks_ - 1)) / ticks_;
    return ns > u64_max ? u64_max : static_cast<std::uint64_t>(ns);
}

std::uint64_t LatencySet::upper_ns(std::size_t bucket) const noexcept {
    return std::min(to_ns(upper_ticks(bucket)), max_ns());
}

std::uint64_t LatencySet::quantile_ns(unsigned permille) const noexcept {
    BLKFERRY_ASSERT(permille >= 1 && permille <= 1000);
    const auto rank = static_cast<std::uint64_t>((Wide{samples_} * permille + 999) / 1000);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < count_.size(); ++i) {
        seen = add(seen, count_[i]);
        if (seen != 0 && seen >= rank)
            return upper_ns(i);
    }
    return 0;
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> LatencySet::buckets() const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> out;
    for (std::size_t i = 0; i < count_.size(); ++i)
        if (count_[i] != 0)
            out.emplace_back(to_ns(upper_ticks(i)), count_[i]);
    return out;
}

Result<std::vector<LatencySet>> parse_latency(std::span<const std::byte> raw, std::uint64_t ticks, std::uint64_t ns) {
    constexpr std::size_t size = sizeof(blkferry_latency);
    if (raw.empty() || raw.size() % size != 0 || raw.size() / size > latency_sets_max)
        return fail(Errc::corrupt, fmt::format("latency: {} bytes of the module's answer are not 1 to {} sets of {} bytes", raw.size(),
                                               latency_sets_max, size));
    if (ticks == 0 || ns == 0)
        return fail(Errc::corrupt, fmt::format("latency: the module says that {} ticks last {} ns", ticks, ns));
    std::vector<LatencySet> sets;
    for (std::size_t at = 0; at < raw.size(); at += size) {
        blkferry_latency set;
        std::memcpy(&set, raw.data() + at, size);
        sets.emplace_back(set, ticks, ns);
    }
    return sets;
}

}  // namespace blkferry::capture
