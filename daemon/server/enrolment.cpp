// SPDX-License-Identifier: Apache-2.0
#include "server/enrolment.hpp"

#include <algorithm>
#include <cerrno>
#include <unistd.h>

#include <fmt/format.h>

#include "base/fd.hpp"
#include "tls/request.hpp"

namespace blkferry::server {

namespace pki = tls::pki;

namespace {
/// A source that renews all the time fills the CA's folder: not before this part of a certificate's life.
constexpr std::uint64_t renewals_per_life_max = 6;

/// A request of a new key where key and certificate are one file, else of the key that is there.
Result<tls::Request> request_of(const tls::Files& files, const tls::Identity& identity) {
    if (files.cert == files.key)
        return tls::make_request(identity);
    BLKFERRY_TRY_ASSIGN(const std::string key, tls::read_key_file(files.key));
    return tls::make_request(identity, key, files.key.string());
}
}  // namespace

Result<void> Enrolment::prepare(const std::filesystem::path& dir) {
    std::error_code err;
    if (std::filesystem::exists(dir / "ca.crl", err))
        return {};
    auto made = pki::refresh_crl(dir);
    if (!made)
        return std::unexpected(std::move(made).error().with(
            fmt::format("pki {}: the server has to read and write its CA ('blkferry server init' makes one)", dir.string())));
    return {};
}

Result<std::unique_ptr<Enrolment>> Enrolment::open(Options options, const Clock& clock, Log& log) {
    BLKFERRY_TRY(prepare(options.pki));
    BLKFERRY_TRY(pki::ca_fingerprint(options.pki));
    BLKFERRY_TRY_ASSIGN(TokenStore tokens, TokenStore::open(options.pki / "tokens.json"));
    return std::unique_ptr<Enrolment>(new Enrolment(std::move(options), clock, log, std::move(tokens)));
}

Enrolment::Enrolment(Options options, const Clock& clock, Log& log, TokenStore tokens)
    : options_(std::move(options)), clock_(clock), log_(log), tokens_(std::move(tokens)), audit_(options_.audit, clock, log) {
    look();
}

void Enrolment::look() noexcept { usable_until_ms_.store(tokens_.usable_until_ms(now_ms())); }

bool Enrolment::open_now() const noexcept { return now_ms() < usable_until_ms_.load(); }

Result<Enrolment::NewToken> Enrolment::make_token(const std::string& source, std::uint64_t life_ms, const std::string& by) {
    if (!source.empty())
        BLKFERRY_TRY(tls::check_name(source));
    if (life_ms < 1000 || life_ms > token_life_ms_max)
        return fail(Errc::invalid, fmt::format("a token lives from a second to {} days", token_life_ms_max / 86'400'000));
    BLKFERRY_TRY_ASSIGN(const std::string fingerprint, pki::ca_fingerprint(options_.pki));
    const std::uint64_t now = now_ms();
    BLKFERRY_TRY_ASSIGN(const auto made, tokens_.make(source, life_ms, now));
    const auto recorded = audit_.record("token-made", {{"token", made.id}, {"source", source}, {"by", by},
                                                       {"expires_ms", std::to_string(now + life_ms)}});
    if (!recorded) {
        (void)tokens_.revoke(made.id, now);
        return std::unexpected(recorded.error());
    }
    look();
    return NewToken{proto::Token{made.id, made.secret, fingerprint}.str(), made.id, now + life_ms};
}

Result<void> Enrolment::revoke_token(const std::string& id, const std::string& by) {
    BLKFERRY_TRY(tokens_.revoke(id, now_ms()));
    look();
    return audit_.record("token-revoked", {{"token", id}, {"by", by}});
}

proto::CertReply Enrolment::reply(Result<std::string> cert) const {
    proto::CertReply out;
    out.server = options_.server;
    auto ca = cert ? pki::ca_certificate(options_.pki) : Result<std::string>(std::string());
    if (cert && ca) {
        out.cert = std::move(*cert);
        out.ca = std::move(*ca);
        return out;
    }
    const Error& why = cert ? ca.error() : cert.error();
    out.code = to_string(why.code);
    // What concerns this machine is for its own log.
    const bool theirs = why.code == Errc::denied || why.code == Errc::invalid || why.code == Errc::exists || why.code == Errc::again;
    out.text = theirs ? why.text : "the server cannot make certificates now: its log says why";
    return out;
}

proto::CertReply Enrolment::enrol(const proto::CertRequest& request, const Asker& asker) {
    auto cert = grant(request, asker);
    if (!cert) {
        ++counters_.refused;
        audit_.refused({{"token", request.token_id}, {"source", request.source}, {"address", asker.address},
                        {"reason", cert.error().text}});
    }
    look();
    return reply(std::move(cert));
}

Result<bool> Enrolment::has_certificate(const std::string& name) const {
    BLKFERRY_TRY_ASSIGN(const auto list, pki::list(options_.pki));
    const auto now = static_cast<std::int64_t>(now_ms() / 1000);
    return std::ranges::any_of(list, [&](const pki::Listed& l) {
        return l.identity == tls::Identity{tls::Role::source, name} && !l.revoked && l.not_after > now;
    });
}

Result<std::string> Enrolment::grant(const proto::CertRequest& request, const Asker& asker) {
    if (request.token_id.empty())
        return fail(Errc::denied, "a token is needed");
    // The secret before anything that costs something.
    BLKFERRY_TRY_ASSIGN(const StoredToken token, tokens_.check(request.token_id, request.token_secret, now_ms()));
    BLKFERRY_TRY(tls::check_name(request.source));
    BLKFERRY_TRY_ASSIGN(const std::string key, pki::key_of_request(request.csr));
    if (token.used_ms != 0 && token.key_sha256 != key)
        return fail(Errc::denied, "the token was used already: if that was not you, have the server's administrator revoke the source that it made");
    if (!token.source.empty() && token.source != request.source)
        return fail(Errc::denied, fmt::format("the token is for source '{}', not for '{}'", token.source, request.source));
    if (token.used_ms != 0)
        return grant_again(token, request, asker);
    BLKFERRY_TRY_ASSIGN(const bool named, has_certificate(request.source));
    if (token.source.empty() && (named || asker.name_taken))
        return fail(Errc::exists, fmt::format("there is a source '{}' already: take another name (--source), or have the administrator make a "
                                              "token for it ('blkferry-server enroll-token --source {}')", request.source, request.source));
    BLKFERRY_TRY(audit_.record("token-used", {{"token", token.id}, {"source", request.source}, {"address", asker.address}}));
    BLKFERRY_TRY_ASSIGN(auto made, pki::sign(options_.pki, request.csr, {tls::Role::source, request.source}, options_.life_ms / 1000));
    BLKFERRY_TRY(tokens_.use(token.id, request.source, key, made.serial, now_ms()));
    BLKFERRY_TRY(audit_.record("certificate-issued", {{"source", request.source}, {"serial", made.serial}, {"token", token.id},
                                                      {"address", asker.address}, {"not_after_ms", fmt::format("{}000", made.not_after)}}));
    ++counters_.enrolled;
    return std::move(made.cert_pem);
}

/// The first answer was lost on the way: the same key gets the same certificate.
Result<std::string> Enrolment::grant_again(const StoredToken& token, const proto::CertRequest& request, const Asker& asker) {
    if (token.used_by != request.source)
        return fail(Errc::denied, fmt::format("the token was used for source '{}'", token.used_by));
    BLKFERRY_TRY(audit_.record("certificate-told-again", {{"source", request.source}, {"serial", token.serial}, {"token", token.id},
                                                          {"address", asker.address}}));
    return pki::issued(options_.pki, token.serial);
}

proto::CertReply Enrolment::renew(const proto::CertRequest& request, const std::string& name, const std::string& serial,
                                  const std::string& address) {
    auto cert = grant_renewal(request, name, serial, address);
    if (!cert) {
        ++counters_.refused;
        audit_.refused({{"source", name}, {"serial", serial}, {"address", address}, {"reason", cert.error().text}});
    }
    return reply(std::move(cert));
}

Result<std::string> Enrolment::grant_renewal(const proto::CertRequest& request, const std::string& name, const std::string& serial,
                                             const std::string& address) {
    if (request.source != name)
        return fail(Errc::denied, fmt::format("certificate wanted for '{}', but this is '{}'", request.source, name));
    const std::uint64_t now = now_ms();
    const auto before = renewed_ms_.find(name);
    if (before != renewed_ms_.end() && now - before->second < options_.life_ms / renewals_per_life_max)
        return fail(Errc::again, "the certificate was renewed a short while ago");
    // A session outlives its certificate; a revoked one must not make another.
    BLKFERRY_TRY_ASSIGN(const auto list, pki::list(options_.pki));
    const auto old = std::ranges::find(list, serial, &pki::Listed::serial);
    if (old == list.end() || old->revoked)
        return fail(Errc::denied, old == list.end() ? "the certificate was not made by this server's CA folder: renew it where it was made"
                                                    : "the certificate is revoked");
    BLKFERRY_TRY_ASSIGN(auto made, pki::sign(options_.pki, request.csr, {tls::Role::source, name}, options_.life_ms / 1000));
    BLKFERRY_TRY(audit_.record("certificate-renewed", {{"source", name}, {"serial", made.serial}, {"before", serial}, {"address", address},
                                                       {"not_after_ms", fmt::format("{}000", made.not_after)}}));
    renewed_ms_[name] = now;
    ++counters_.renewed;
    return std::move(made.cert_pem);
}

Result<void> Enrolment::renew_own(const tls::Files& files, const tls::Identity& identity, std::uint64_t life_ms) {
    // Before anything is signed: what cannot be put in place should not be made again and again.
    const std::filesystem::path dir = files.cert.has_parent_path() ? files.cert.parent_path() : std::filesystem::path(".");
    if (::access(dir.c_str(), W_OK) != 0)
        return fail_errno(errno, fmt::format("the server has to write {} to renew its certificate there", dir.string()));
    const bool one_file = files.cert == files.key;
    BLKFERRY_TRY_ASSIGN(const tls::Request request, request_of(files, identity));
    BLKFERRY_TRY_ASSIGN(const auto made, pki::sign(options_.pki, request.csr_pem, identity, life_ms / 1000));
    BLKFERRY_TRY_ASSIGN(const std::string ca, pki::ca_certificate(options_.pki));
    BLKFERRY_TRY(tls::check_certificate(made.cert_pem, request.key_pem, ca, identity));
    BLKFERRY_TRY(audit_.record("server-certificate-renewed", {{"server", identity.name}, {"serial", made.serial},
                                                              {"not_after_ms", fmt::format("{}000", made.not_after)}}));
    auto written = one_file ? write_file_durable(files.cert, request.key_pem + made.cert_pem, 0600)
                            : write_file_durable(files.cert, made.cert_pem, 0644);
    if (!written)
        return std::unexpected(std::move(written).error().with("the server's new certificate cannot be put in place"));
    return {};
}

Result<std::vector<std::string>> Enrolment::revoke(const std::string& source, const std::string& by) {
    BLKFERRY_TRY(tls::check_name(source));
    BLKFERRY_TRY_ASSIGN(const auto tokens, tokens_.revoke_of(source, now_ms()));
    look();
    for (const std::string& id : tokens)
        BLKFERRY_TRY(audit_.record("token-revoked", {{"token", id}, {"source", source}, {"by", by}}));
    BLKFERRY_TRY_ASSIGN(const auto certs, pki::revoke(options_.pki, tls::Identity{tls::Role::source, source}));
    std::vector<std::string> serials;
    for (const pki::Listed& cert : certs) {
        serials.push_back(cert.serial);
        ++counters_.revoked;
        // It is revoked, recorded or not.
        if (const auto r = audit_.record("certificate-revoked", {{"source", source}, {"serial", cert.serial}, {"by", by}}); !r)
            log_.error("audit=failed error={}", quote(r.error()));
    }
    return serials;
}

void Enrolment::sweep() {
    const auto expired = tokens_.take_expired(now_ms());
    look();
    if (!expired) {
        log_.error("audit=failed error={}", quote(expired.error()));
        return;
    }
    for (const StoredToken& t : *expired)
        if (const auto r = audit_.record("token-expired", {{"token", t.id}, {"source", t.source}}); !r)
            log_.error("audit=failed error={}", quote(r.error()));
}

}  // namespace blkferry::server
