// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace blkferry {

/// 16 opaque bytes: load ids, attach ids, disk ids. Text form is the usual 8-4-4-4-12 lower-case hex.
struct Uuid {
    std::array<std::uint8_t, 16> bytes{};

    auto operator<=>(const Uuid&) const = default;
    [[nodiscard]] bool is_nil() const noexcept { return *this == Uuid{}; }
    [[nodiscard]] std::string str() const;
    /// Accepts exactly the text form that str() gives.
    [[nodiscard]] static Result<Uuid> parse(std::string_view text);
    /// Version 4, from the system's random source.
    [[nodiscard]] static Uuid random();
};

}  // namespace blkferry
