// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

/// When a certificate is to be replaced: one rule for sources and servers. Pure; times are seconds since 1970.
namespace blkferry::tls {

/// When two thirds of the life are over.
[[nodiscard]] constexpr std::int64_t renewal_due_s(std::int64_t not_before, std::int64_t not_after) noexcept {
    return not_before + (not_after - not_before) / 3 * 2;
}

/// How long to wait after a failure: short-lived certificates are tried more often.
[[nodiscard]] constexpr std::uint64_t renewal_retry_s(std::int64_t not_before, std::int64_t not_after) noexcept {
    return static_cast<std::uint64_t>(std::clamp<std::int64_t>((not_after - not_before) / 60, 1, 3600));
}

}  // namespace blkferry::tls
