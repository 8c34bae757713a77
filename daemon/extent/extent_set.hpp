// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "extent/extent.hpp"

namespace blkferry {

/// A set of sectors of one disk, kept as disjoint, non-touching runs in ascending order.
/// Pure: no I/O, no clock. Not thread-safe. insert/erase are O(log n + runs touched).
class ExtentSet {
public:
    /// Adds a run; an empty run changes nothing.
    void insert(Extent e);
    /// Removes a run.
    void erase(Extent e);
    /// The parts of `e` that are not in the set, ascending.
    [[nodiscard]] std::vector<Extent> missing(Extent e) const;
    /// The parts of `e` that are in the set, ascending.
    [[nodiscard]] std::vector<Extent> common(Extent e) const;
    [[nodiscard]] bool overlaps(Extent e) const noexcept;
    [[nodiscard]] bool empty() const noexcept { return runs_.empty(); }
    [[nodiscard]] std::size_t runs() const noexcept { return runs_.size(); }
    [[nodiscard]] std::uint64_t sectors() const noexcept { return sectors_; }
    [[nodiscard]] std::vector<Extent> list() const;
    void clear() noexcept;

private:
    std::map<std::uint64_t, std::uint64_t> runs_;  // first sector -> end
    std::uint64_t sectors_ = 0;
};

/// Digest of a list of (disk slot, runs): both ends of a cycle compute it over the union of the sectors they handled,
/// disks ascending, runs in canonical form (as ExtentSet lists them). XXH3-64 over little-endian slot, sector, count.
class SetDigest {
public:
    SetDigest();
    ~SetDigest();
    SetDigest(const SetDigest&) = delete;
    SetDigest& operator=(const SetDigest&) = delete;

    void add(std::uint16_t slot, const ExtentSet& set);
    /// Adds one run; the caller keeps slots and runs in canonical order.
    void add(std::uint16_t slot, Extent run);
    [[nodiscard]] std::uint64_t value() const noexcept;

private:
    void* state_;
};

}  // namespace blkferry
