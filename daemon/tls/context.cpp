// SPDX-License-Identifier: Apache-2.0
#include "tls/context.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#include "tls/request.hpp"
#include "tls/stream_state.hpp"

namespace blkferry::tls {

namespace {

constexpr std::size_t pem_bytes_max = 1U << 20;
/// One recv(2) takes up to this many bytes of records.
constexpr std::size_t read_buffer_bytes = 64U << 10;

struct Loaded {
    ContextPtr context;
    Identity identity;
    std::int64_t not_before = 0;
    std::int64_t not_after = 0;
};

Result<void> use_own(SSL_CTX* context, const Files& files, Role role, Loaded& out) {
    BLKFERRY_TRY_ASSIGN(const std::string cert_pem, read_text_file(files.cert, pem_bytes_max));
    BLKFERRY_TRY_ASSIGN(auto certs, parse_certs(cert_pem, files.cert.string()));
    auto identity = identity_of(*certs.front());
    if (!identity)
        return std::unexpected(std::move(identity).error().with(files.cert.string()));
    if (identity->role != role)
        return fail(Errc::denied, fmt::format("{}: certificate of {} '{}', one of role {} is needed", files.cert.string(),
                                              to_string(identity->role), identity->name, to_string(role)));
    if (SSL_CTX_use_certificate(context, certs.front().get()) != 1)
        return ssl_fail(Errc::invalid, files.cert.string());
    for (std::size_t i = 1; i < certs.size(); ++i) {
        if (SSL_CTX_add1_chain_cert(context, certs[i].get()) != 1)
            return ssl_fail(Errc::invalid, files.cert.string());
    }
    BLKFERRY_TRY_ASSIGN(std::string key_pem, read_key_file(files.key));
    auto key = parse_key(key_pem, files.key.string());
    OPENSSL_cleanse(key_pem.data(), key_pem.size());
    if (!key)
        return std::unexpected(std::move(key).error());
    if (SSL_CTX_use_PrivateKey(context, key->get()) != 1 || SSL_CTX_check_private_key(context) != 1)
        return ssl_fail(Errc::invalid, fmt::format("{}: is not the key of {}", files.key.string(), files.cert.string()));
    out.not_before = seconds_of(X509_get0_notBefore(certs.front().get()));
    out.not_after = seconds_of(X509_get0_notAfter(certs.front().get()));
    out.identity = std::move(*identity);
    return {};
}

Result<void> use_ca(SSL_CTX* context, const Files& files) {
    BLKFERRY_TRY_ASSIGN(const std::string ca_pem, read_text_file(files.ca, pem_bytes_max));
    BLKFERRY_TRY_ASSIGN(auto cas, parse_certs(ca_pem, files.ca.string()));
    X509_STORE* store = SSL_CTX_get_cert_store(context);
    for (const CertPtr& ca : cas) {
        if (X509_check_ca(ca.get()) == 0)
            return fail(Errc::invalid, fmt::format("{}: holds a certificate that is not of a CA", files.ca.string()));
        if (X509_STORE_add_cert(store, ca.get()) != 1 || SSL_CTX_add_client_CA(context, ca.get()) != 1)
            return ssl_fail(Errc::invalid, files.ca.string());
    }
    if (files.crl.empty())
        return {};
    BLKFERRY_TRY_ASSIGN(const std::string crl_pem, read_text_file(files.crl, pem_bytes_max));
    BLKFERRY_TRY_ASSIGN(const CrlPtr crl, parse_crl(crl_pem, files.crl.string()));
    if (X509_STORE_add_crl(store, crl.get()) != 1 || X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) != 1)
        return ssl_fail(Errc::invalid, files.crl.string());
    return {};
}

Result<Loaded> new_context(Role role) {
    ERR_clear_error();
    Loaded out;
    out.context.reset(SSL_CTX_new(role == Role::server ? TLS_server_method() : TLS_client_method()));
    SSL_CTX* context = out.context.get();
    if (context == nullptr || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256") != 1 ||
        SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384") != 1 || SSL_CTX_set_num_tickets(context, 0) != 1)
        return ssl_fail(Errc::unsupported, "OpenSSL: cannot set up TLS 1.3");
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, read_buffer_bytes);
    set_verification(*context);
    if (role == Role::server)
        allow_enrolment(*context);
    return out;
}

Result<Loaded> load(const Files& files, Role role) {
    BLKFERRY_TRY_ASSIGN(Loaded out, new_context(role));
    if (role == Role::source && !set_alpn(*out.context, false))
        return ssl_fail(Errc::unsupported, "OpenSSL: cannot name the protocol");
    BLKFERRY_TRY(use_own(out.context.get(), files, role, out));
    BLKFERRY_TRY(use_ca(out.context.get(), files));
    return out;
}

}  // namespace

struct TlsContext::State {
    Files files;
    Role role = Role::source;
    std::string server_name;
    Loaded loaded;
    std::string ca_fingerprint = {};  ///< set: enrolling
};

TlsContext::TlsContext(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsContext::TlsContext(TlsContext&&) noexcept = default;
TlsContext& TlsContext::operator=(TlsContext&&) noexcept = default;
TlsContext::~TlsContext() = default;

Result<TlsContext> TlsContext::make_server(Files files) {
    BLKFERRY_TRY_ASSIGN(Loaded loaded, load(files, Role::server));
    return TlsContext(std::make_unique<State>(State{std::move(files), Role::server, {}, std::move(loaded)}));
}

Result<TlsContext> TlsContext::make_client(Files files, std::string server_name) {
    if (!server_name.empty())
        BLKFERRY_TRY(check_name(server_name));
    BLKFERRY_TRY_ASSIGN(Loaded loaded, load(files, Role::source));
    return TlsContext(
        std::make_unique<State>(State{std::move(files), Role::source, std::move(server_name), std::move(loaded)}));
}

Result<TlsContext> TlsContext::make_enrolling(std::string ca_fingerprint) {
    BLKFERRY_TRY_ASSIGN(Loaded loaded, new_context(Role::source));
    if (!set_alpn(*loaded.context, true))
        return ssl_fail(Errc::unsupported, "OpenSSL: cannot name the protocol");
    pin_ca(*loaded.context);
    return TlsContext(std::make_unique<State>(State{{}, Role::source, {}, std::move(loaded), std::move(ca_fingerprint)}));
}

Result<void> TlsContext::reload() {
    if (!state_->ca_fingerprint.empty())
        return {};
    BLKFERRY_TRY_ASSIGN(Loaded loaded, load(state_->files, state_->role));
    state_->loaded = std::move(loaded);
    return {};
}

const Identity& TlsContext::identity() const noexcept { return state_->loaded.identity; }
std::int64_t TlsContext::not_before() const noexcept { return state_->loaded.not_before; }
std::int64_t TlsContext::not_after() const noexcept { return state_->loaded.not_after; }

bool TlsContext::is_revoked(const TlsStream& stream) const {
    const CertPtr cert(SSL_get1_peer_certificate(stream.state_->ssl.get()));
    const std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>> check(X509_STORE_CTX_new());
    X509_STORE* trusted = SSL_CTX_get_cert_store(state_->loaded.context.get());
    if (!cert || !check || X509_STORE_CTX_init(check.get(), trusted, cert.get(), nullptr) != 1)
        return false;
    ERR_clear_error();
    const bool valid = X509_verify_cert(check.get()) == 1;
    ERR_clear_error();
    return !valid && X509_STORE_CTX_get_error(check.get()) == X509_V_ERR_CERT_REVOKED;
}

Result<TlsStream> TlsContext::wrap(Fd socket, std::string peer_text, bool may_enrol) const {
    ERR_clear_error();
    auto s = std::make_unique<TlsStream::State>();
    s->io.fd = socket.get();
    s->socket = std::move(socket);
    s->peer_text = std::move(peer_text);
    s->check.role = state_->role == Role::server ? Role::source : Role::server;
    s->check.name = state_->server_name;
    s->check.ca = state_->ca_fingerprint.empty() ? state_->files.ca.string() : "the token";
    s->check.ca_fingerprint = state_->ca_fingerprint;
    s->check.may_enrol = may_enrol && state_->role == Role::server;
    s->ssl.reset(SSL_new(state_->loaded.context.get()));
    BioPtr bio = make_socket_bio(s->io);
    if (!s->ssl || !bio || !set_peer_check(*s->ssl, s->check))
        return ssl_fail(Errc::no_space, fmt::format("{}: cannot make a TLS connection", s->peer_text));
    BIO* raw = bio.release();
    SSL_set_bio(s->ssl.get(), raw, raw);  // takes the one reference for both directions
    s->watch_messages();
    if (state_->role == Role::server)
        SSL_set_accept_state(s->ssl.get());
    else
        SSL_set_connect_state(s->ssl.get());
    return TlsStream(std::move(s));
}

}  // namespace blkferry::tls
