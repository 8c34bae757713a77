// SPDX-License-Identifier: Apache-2.0
// Sources that want a certificate, and those that lose theirs.
#include <cstdlib>

#include <fmt/format.h>

#include "base/fd.hpp"
#include "server/server.hpp"
#include "tls/request.hpp"

namespace blkferry::server {

Result<void> Server::begin_enrolment() {
    if (options_.pki.empty())
        return {};
    if (options_.tls.crl != options_.pki / "ca.crl")
        return fail(Errc::invalid, fmt::format("crl {}: with 'pki' the revocation list is {}, leave the key 'crl' out",
                                               options_.tls.crl.string(), (options_.pki / "ca.crl").string()));
    BLKFERRY_TRY_ASSIGN(enrolment_, Enrolment::open({.pki = options_.pki, .audit = options_.audit, .life_ms = options_.certificate_life_ms,
                                                     .server = tls_.identity().name}, around_.clock, log_));
    BLKFERRY_TRY_ASSIGN(const std::string made_by, tls::pki::ca_fingerprint(options_.pki));
    BLKFERRY_TRY_ASSIGN(const std::string ca, read_text_file(options_.tls.ca, 1U << 20));
    BLKFERRY_TRY_ASSIGN(const std::string trusted, tls::fingerprint_of_pem(ca, options_.tls.ca.string()));
    if (made_by != trusted)
        log_.warn("server={} event=other-ca ca={} pki={} text=\"certificates made by enrolment are accepted only if that CA is in 'ca' too\"",
                  tls_.identity().name, quote(options_.tls.ca.string()), quote(options_.pki.string()));
    enrolment_pool_ = std::make_unique<WorkerPool>(1U);
    return {};
}

Result<void> Server::certificate_request(Live& live, const proto::FrameReader::View& view) {
    Session& session = *live.session;
    if (enrolment_ == nullptr)
        return fail(Errc::unsupported, "CERT_REQUEST refused: this server makes no certificates");
    if (!session.enrolling() && live.replica == nullptr)
        return fail(Errc::invalid, "CERT_REQUEST refused: HELLO comes first");
    if (live.certifying || live.answered)
        return fail(Errc::conflict, "CERT_REQUEST refused: one at a time");
    BLKFERRY_TRY_ASSIGN(const auto body, decode_body(view.header, view.wire, around_.decompressor, around_.scratch));
    BLKFERRY_TRY_ASSIGN(auto request, proto::decode_cert_request(body));
    live.certifying = true;
    const bool stranger = session.enrolling();
    Enrolment::Asker asker{session.peer(), replicas_.contains(request.source)};
    enrolment_pool_->submit([this, alive = alive_, e = enrolment_.get(), &loop = loop_, id = session.id(), stranger, asker = std::move(asker),
                             request = std::move(request), name = session.peer_name(), serial = session.stream().peer_serial()] {
        auto reply = stranger ? e->enrol(request, asker) : e->renew(request, name, serial, asker.address);
        loop.post([this, alive, id, reply = std::move(reply)] {
            if (*alive)
                certificate_reply(id, reply);
        });
    });
    return {};
}

void Server::certificate_reply(std::uint64_t id, const proto::CertReply& reply) {
    const auto it = sessions_.find(id);
    if (it == sessions_.end())
        return;
    it->second.certifying = false;
    it->second.answered = it->second.replica == nullptr;
    it->second.session->send_message(proto::FrameType::cert_reply, reply);
}

// ---- sources that go for good ------------------------------------------------------------------------------------------------

namespace {
std::filesystem::path retired_file(const std::filesystem::path& store, const std::string& source) {
    return store::Store::source_dir(store, source) / "retired";
}
}  // namespace

std::uint64_t Server::retired_ms(const std::string& source) const {
    const auto it = retired_.find(source);
    return it == retired_.end() ? 0 : it->second;
}

void Server::read_retired(const std::vector<std::string>& sources) {
    for (const std::string& source : sources) {
        const auto text = read_text_file(retired_file(options_.store_dir, source), 64);
        if (text)
            retired_[source] = std::max<std::uint64_t>(std::strtoull(text->c_str(), nullptr, 10), 1);
    }
}

void Server::forget_retired(const std::string& source) {
    if (retired_.erase(source) == 0)
        return;
    std::error_code ignored;
    std::filesystem::remove(retired_file(options_.store_dir, source), ignored);
    log_.info("source={} event=returned", source);
}

Result<void> Server::retire(Live& live) {
    if (live.replica == nullptr)
        return fail(Errc::invalid, "RETIRE refused: HELLO comes first");
    if (live.certifying)
        return fail(Errc::conflict, "RETIRE refused: a CERT_REQUEST is under way");
    live.certifying = true;
    WorkerPool& pool = enrolment_ != nullptr ? *enrolment_pool_ : lookups_;
    pool.submit([this, alive = alive_, e = enrolment_.get(), &loop = loop_, &clock = around_.clock, id = live.session->id(),
                 source = live.replica->name(), file = retired_file(options_.store_dir, live.replica->name())] {
        Result<std::uint64_t> when = clock.realtime_ns() / 1'000'000;
        if (auto r = write_file_durable(file, fmt::format("{}\n", *when), 0600); !r)
            when = std::unexpected(std::move(r).error());
        if (when && e != nullptr) {
            const auto revoked = e->revoke(source, fmt::format("source {}", source));
            if (!revoked && revoked.error().code != Errc::not_found)
                when = std::unexpected(revoked.error());
        }
        loop.post([this, alive, id, source, when = std::move(when)] {
            if (*alive)
                retired(id, source, when);
        });
    });
    return {};
}

void Server::retired(std::uint64_t id, const std::string& source, const Result<std::uint64_t>& when) {
    const auto it = sessions_.find(id);
    if (!when) {
        log_.error("source={} event=retire error={}", source, quote(when.error()));
        if (it != sessions_.end())
            it->second.session->refuse({when.error().code, 0, "the server could not note that the source retires: its log says why"});
        return;
    }
    retired_[source] = *when;
    log_.info("source={} event=retired text=\"replica and recovery points stay\"", source);
    if (it != sessions_.end())
        it->second.session->send(proto::FrameType::retire, {});
    if (const auto r = enforce_revocation(); !r)
        log_.error("source={} event=retire error={}", source, quote(r.error()));
}

// ---- revocation ------------------------------------------------------------------------------------------------------------

Result<std::size_t> Server::enforce_revocation() {
    BLKFERRY_TRY(tls_.reload());
    return end_revoked();
}

std::size_t Server::end_revoked() {
    std::vector<Session*> revoked;
    for (auto& [id, live] : sessions_)
        if (tls_.is_revoked(live.session->stream()))
            revoked.push_back(live.session.get());
    for (Session* s : revoked)
        s->refuse({Errc::denied, 0, "the certificate is revoked"});
    return revoked.size();
}

}  // namespace blkferry::server
