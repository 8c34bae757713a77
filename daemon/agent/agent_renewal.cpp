// SPDX-License-Identifier: Apache-2.0
// The certificate of this source: renewed in time, over the session that it made possible.
#include "agent/agent.hpp"

#include <ctime>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tls/renewal.hpp"

namespace blkferry::agent {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
/// For an answer: after this the request counts as lost.
constexpr std::uint64_t answer_ns_max = 60 * second_ns;
}  // namespace

Renewal::Files Agent::certificate_files() const { return {config_.cert, config_.key, config_.ca}; }

void Agent::renewal_tick(std::uint64_t now) {
    if (renewal_.writing || now < renewal_.not_before_ns || !session_->established() || !renewal_.offered ||
        std::time(nullptr) < tls::renewal_due_s(tls_->not_before(), tls_->not_after()))
        return;
    renewal_.not_before_ns = now + answer_ns_max;
    auto request = Renewal::begin(certificate_files(), tls_->identity());
    if (!request)
        return renewal_failed(request.error());
    renewal_.asked = std::move(*request);
    log_.debug("source={} event=renewal_asked", config_.source);
    session_->ask_certificate({.source = tls_->identity().name, .csr = renewal_.asked->csr_pem, .token_id = {}, .token_secret = {},
                               .agent_version = BLKFERRY_VERSION});
}

void Agent::certificate_reply(proto::CertReply reply) {
    if (!renewal_.asked || renewal_.writing)
        return;  // nobody asked
    renewal_.writing = true;
    auto result = std::make_shared<Result<void>>();
    pool_.submit([result, files = certificate_files(), identity = tls_->identity(), request = *renewal_.asked,
                  reply = std::move(reply)](WorkerContext&) { *result = Renewal::finish(files, identity, request, reply); },
                 [this, result, alive = std::weak_ptr<bool>(alive_)] {
                     if (alive.expired())
                         return;
                     renewal_.writing = false;
                     renewal_.asked.reset();
                     if (*result)
                         *result = tls_->reload();
                     if (!*result)
                         return renewal_failed(result->error());
                     ++renewal_.count;
                     renewal_.error.clear();
                     renewal_.not_before_ns = 0;
                     log_.info("source={} event=certificate_renewed not_after={}", config_.source, tls_->not_after());
                 });
}

void Agent::renewal_failed(const Error& why) {
    renewal_.asked.reset();
    renewal_.not_before_ns = loop::Loop::now_ns() + tls::renewal_retry_s(tls_->not_before(), tls_->not_after()) * second_ns;
    if (renewal_.error != why.text)
        log_.warn("source={} event=renewal_failed not_after={} code={} error={}", config_.source, tls_->not_after(), to_string(why.code),
                  service::quote(why.text));
    renewal_.error = why.text;
}

control::Json Agent::certificate_status() const {
    return {{"not_after_ms", tls_->not_after() * 1000},
            {"renew_ms", tls::renewal_due_s(tls_->not_before(), tls_->not_after()) * 1000},
            {"renewed", renewal_.count},
            {"error", renewal_.error}};
}

}  // namespace blkferry::agent
