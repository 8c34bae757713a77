// SPDX-License-Identifier: Apache-2.0
#include "server/own_certificate.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tls/renewal.hpp"

namespace blkferry::server {

namespace {
constexpr std::int64_t day_s = 86'400;
constexpr std::int64_t warn_before_s_max = 30 * day_s;
}  // namespace

std::int64_t OwnCertificate::warn_s(std::int64_t not_before, std::int64_t not_after) noexcept {
    return std::max(tls::renewal_due_s(not_before, not_after), not_after - warn_before_s_max);
}

std::int64_t OwnCertificate::days_left(std::int64_t not_after, std::int64_t now) noexcept {
    const std::int64_t left = not_after - now;
    return left >= 0 ? left / day_s : -((-left + day_s - 1) / day_s);
}

std::string OwnCertificate::warning(std::int64_t not_before, std::int64_t not_after, std::int64_t now) const {
    const std::int64_t days = days_left(not_after, now);
    const std::string when = now >= not_after ? std::string("the server's own certificate has expired: no source can connect")
                                              : fmt::format("the server's own certificate ends in {} days: then no source can connect", days);
    if (renewable)
        return error.empty() ? std::string() : fmt::format("{}; it could not be renewed: {}", when, error);
    if (now < warn_s(not_before, not_after))
        return {};
    return when + "; its CA's key is not on this server: have the CA issue another ('blkferry pki issue'), put it in place of 'cert' and "
                  "'key', and reload the server";
}

}  // namespace blkferry::server
