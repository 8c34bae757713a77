// SPDX-License-Identifier: Apache-2.0
#include "agent/stamp_ages.hpp"

#include <algorithm>
#include <cstdlib>

namespace blkferry::agent {

namespace {
/// Differences below it are slewing and the time between two readings. Stamps of the module are as coarse as a tick.
constexpr std::int64_t jump_ns_min = 500'000'000;
constexpr std::size_t stretches_max = 16;

/// 73 years from the epoch on are enough, and no difference of two overflows whatever a ring claims.
std::int64_t sign(std::uint64_t ns) noexcept { return static_cast<std::int64_t>(std::min<std::uint64_t>(ns, 1ULL << 61)); }
}  // namespace

void StampAges::feed(std::uint64_t realtime_ns, std::uint64_t monotonic_ns) {
    const std::int64_t offset = sign(realtime_ns) - sign(monotonic_ns);
    if (stretches_.empty())
        stretches_.push_back({INT64_MIN, offset});
    else if (std::abs(offset - stretches_.back().offset_ns) >= jump_ns_min)
        stretches_.push_back({sign(monotonic_ns), offset});
    else
        stretches_.back().offset_ns = offset;
    // The oldest stretch that is not needed any more, or one too many: the next takes its place.
    while (stretches_.size() > 1 && (stretches_.size() > stretches_max || stretches_[1].begin_ns + jump_ns_min < floor_ns_)) {
        stretches_.pop_front();
        stretches_.front().begin_ns = INT64_MIN;
    }
}

void StampAges::settled(std::uint64_t monotonic_ns) noexcept { floor_ns_ = std::max(floor_ns_, sign(monotonic_ns)); }

std::int64_t StampAges::made_ns(std::uint64_t stamp_ns, std::int64_t now_ns) const noexcept {
    const std::int64_t least = std::min(floor_ns_, now_ns);
    for (std::size_t i = 0; i < stretches_.size(); ++i) {
        const std::int64_t made = sign(stamp_ns) - stretches_[i].offset_ns;
        const std::int64_t end = i + 1 < stretches_.size() ? stretches_[i + 1].begin_ns : now_ns;
        const bool begun = stretches_[i].begin_ns == INT64_MIN || made >= stretches_[i].begin_ns - jump_ns_min;
        const bool possible = least == INT64_MIN || made >= least - jump_ns_min;
        if (begun && possible && made <= end + jump_ns_min)
            return std::clamp(made, least, now_ns);
    }
    // A jump between two readings that was set right again, or a stamp that lies: not older than what was asked for before.
    return least == INT64_MIN ? now_ns : least;
}

std::uint64_t StampAges::age_ns(std::uint64_t stamp_ns, std::uint64_t monotonic_ns) const noexcept {
    return static_cast<std::uint64_t>(sign(monotonic_ns) - made_ns(stamp_ns, sign(monotonic_ns)));
}

std::uint64_t StampAges::oldest_ns(std::uint64_t stamp_ns, std::uint64_t monotonic_ns) {
    const std::int64_t made = made_ns(stamp_ns, sign(monotonic_ns));
    floor_ns_ = std::max(floor_ns_, made);
    return static_cast<std::uint64_t>(sign(monotonic_ns) - made);
}

}  // namespace blkferry::agent
