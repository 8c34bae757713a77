// SPDX-License-Identifier: Apache-2.0
// The server's own certificate: renewed in time where the CA's key is here, else the administrator is told.
#include <fmt/format.h>

#include "base/fd.hpp"
#include "server/server.hpp"
#include "tls/renewal.hpp"
#include "tls/request.hpp"

namespace blkferry::server {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t day_ns = 86'400 * second_ns;
constexpr std::size_t pem_bytes_max = 1U << 20;
}  // namespace

/// Whether the CA in `pki` made the certificate that is in use now.
Result<void> Server::look_at_own_certificate() {
    own_.renewable = false;
    if (enrolment_ == nullptr)
        return {};
    BLKFERRY_TRY_ASSIGN(const std::string cert, read_text_file(options_.tls.cert, pem_bytes_max));
    BLKFERRY_TRY_ASSIGN(const std::string ca, tls::pki::ca_certificate(options_.pki));
    own_.renewable = tls::is_signed_by(cert, ca);
    return {};
}

void Server::certificate_tick() {
    const std::uint64_t now = loop::Loop::now_ns();
    const auto wall = static_cast<std::int64_t>(around_.clock.realtime_ns() / second_ns);
    if (const std::string text = own_.warning(tls_.not_before(), tls_.not_after(), wall);
        !text.empty() && (own_.warned_ns == 0 || now - own_.warned_ns >= day_ns)) {
        own_.warned_ns = now;
        log_.warn("server={} event=certificate_ends not_after={} days_left={} text={}", tls_.identity().name, tls_.not_after(),
                  OwnCertificate::days_left(tls_.not_after(), wall), quote(text));
    }
    if (!own_.renewable || own_.working || now < own_.not_before_ns || wall < tls::renewal_due_s(tls_.not_before(), tls_.not_after()))
        return;
    own_.working = true;
    enrolment_pool_->submit([this, alive = alive_, e = enrolment_.get(), &loop = loop_, files = options_.tls, identity = tls_.identity(),
                             life_ms = options_.server_certificate_life_ms] {
        auto result = e->renew_own(files, identity, life_ms);
        loop.post([this, alive, result = std::move(result)]() mutable {
            if (*alive)
                certificate_renewed(std::move(result));
        });
    });
}

void Server::certificate_renewed(Result<void> result) {
    own_.working = false;
    if (result)
        result = tls_.reload();
    const std::uint64_t now = loop::Loop::now_ns();
    if (!result) {
        ++own_.failed;
        own_.not_before_ns = now + tls::renewal_retry_s(tls_.not_before(), tls_.not_after()) * second_ns;
        if (own_.error != result.error().text)
            log_.error("server={} event=certificate_renewal_failed not_after={} code={} error={} text=\"the one that it has stays in use\"",
                       tls_.identity().name, tls_.not_after(), to_string(result.error().code), quote(result.error()));
        own_.error = result.error().text;
        return;
    }
    ++own_.renewed;
    own_.error.clear();
    own_.not_before_ns = 0;
    own_.warned_ns = 0;
    log_.info("server={} event=certificate_renewed not_after={}", tls_.identity().name, tls_.not_after());
}

}  // namespace blkferry::server
