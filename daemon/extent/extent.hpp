// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

namespace blkferry {

inline constexpr std::uint64_t sector_bytes = 512;

/// A run of 512-byte sectors: [sector, sector + count).
struct Extent {
    std::uint64_t sector = 0;
    std::uint64_t count = 0;

    [[nodiscard]] constexpr std::uint64_t end() const noexcept { return sector + count; }
    auto operator<=>(const Extent&) const = default;
};

}  // namespace blkferry
