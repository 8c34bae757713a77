// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "tls/context.hpp"

namespace blkferry::server {

/// The server's own certificate on its way through time.
///
///     CA's key here:  waiting --a third of the life left--> renewing (worker) --> waiting (done, or again after a while)
///     CA elsewhere:   waiting --a third of the life left, at most 30 days--> warning, every day
///
/// The swap is one rename: where key and certificate are one file a new key comes with the new certificate, else the key stays. Connections
/// that live go on with what they began with.
struct OwnCertificate {
    bool renewable = false;            ///< it is of the CA whose key is in `pki`
    bool working = false;              ///< a worker renews it
    std::uint64_t renewed = 0;         ///< since the start
    std::uint64_t failed = 0;
    std::uint64_t not_before_ns = 0;   ///< no further try before this, monotonic
    std::uint64_t warned_ns = 0;       ///< monotonic
    std::string error;                 ///< of the last try; empty: it was well, or there was none

    /// Seconds since 1970 from which on the administrator of an outside CA is told.
    [[nodiscard]] static std::int64_t warn_s(std::int64_t not_before, std::int64_t not_after) noexcept;
    /// Whole days until `not_after`; negative when it is over.
    [[nodiscard]] static std::int64_t days_left(std::int64_t not_after, std::int64_t now) noexcept;
    /// What status says of it, for people; empty if all is well.
    [[nodiscard]] std::string warning(std::int64_t not_before, std::int64_t not_after, std::int64_t now) const;
};

}  // namespace blkferry::server
