// SPDX-License-Identifier: Apache-2.0
#include "extent/extent_set.hpp"

#include <algorithm>
#include <array>
#include <iterator>

#include <xxhash.h>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace blkferry {

void ExtentSet::insert(Extent e) {
    if (e.count == 0)
        return;
    std::uint64_t first = e.sector;
    std::uint64_t end = e.end();
    auto it = runs_.upper_bound(first);
    if (it != runs_.begin() && std::prev(it)->second >= first)
        --it;
    while (it != runs_.end() && it->first <= end) {
        first = std::min(first, it->first);
        end = std::max(end, it->second);
        sectors_ -= it->second - it->first;
        it = runs_.erase(it);
    }
    runs_.emplace_hint(it, first, end);
    sectors_ += end - first;
}

void ExtentSet::erase(Extent e) {
    if (e.count == 0)
        return;
    auto it = runs_.upper_bound(e.sector);
    if (it != runs_.begin() && std::prev(it)->second > e.sector)
        --it;
    while (it != runs_.end() && it->first < e.end()) {
        const auto [first, end] = *it;
        it = runs_.erase(it);
        sectors_ -= end - first;
        if (first < e.sector) {
            runs_.emplace_hint(it, first, e.sector);
            sectors_ += e.sector - first;
        }
        if (end > e.end()) {
            it = runs_.emplace_hint(it, e.end(), end);
            sectors_ += end - e.end();
        }
    }
}

std::vector<Extent> ExtentSet::common(Extent e) const {
    std::vector<Extent> out;
    auto it = runs_.upper_bound(e.sector);
    if (it != runs_.begin() && std::prev(it)->second > e.sector)
        --it;
    for (; it != runs_.end() && it->first < e.end(); ++it) {
        const std::uint64_t first = std::max(it->first, e.sector);
        const std::uint64_t end = std::min(it->second, e.end());
        if (first < end)
            out.push_back({first, end - first});
    }
    return out;
}

std::vector<Extent> ExtentSet::missing(Extent e) const {
    std::vector<Extent> out;
    std::uint64_t at = e.sector;
    for (const Extent& c : common(e)) {
        if (c.sector > at)
            out.push_back({at, c.sector - at});
        at = c.end();
    }
    if (at < e.end())
        out.push_back({at, e.end() - at});
    return out;
}

bool ExtentSet::overlaps(Extent e) const noexcept {
    if (e.count == 0)
        return false;
    const auto it = runs_.lower_bound(e.end());
    return it != runs_.begin() && std::prev(it)->second > e.sector;
}

std::vector<Extent> ExtentSet::list() const {
    std::vector<Extent> out;
    out.reserve(runs_.size());
    for (const auto& [first, end] : runs_)
        out.push_back({first, end - first});
    return out;
}

void ExtentSet::clear() noexcept {
    runs_.clear();
    sectors_ = 0;
}

SetDigest::SetDigest() : state_(XXH3_createState()) {
    BLKFERRY_ASSERT(state_ != nullptr);
    XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}

SetDigest::~SetDigest() {
    XXH3_freeState(static_cast<XXH3_state_t*>(state_));
}

void SetDigest::add(std::uint16_t slot, const ExtentSet& set) {
    for (const Extent& run : set.list())
        add(slot, run);
}

void SetDigest::add(std::uint16_t slot, Extent run) {
    std::array<std::byte, 18> raw;
    store_le<std::uint16_t>(raw.data(), slot);
    store_le<std::uint64_t>(raw.data() + 2, run.sector);
    store_le<std::uint64_t>(raw.data() + 10, run.count);
    XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), raw.data(), raw.size());
}

std::uint64_t SetDigest::value() const noexcept {
    return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_));
}

}  // namespace blkferry
