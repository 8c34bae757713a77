// SPDX-License-Identifier: Apache-2.0
#include "tls/stream.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fmt/format.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include "tls/pki_cert.hpp"
#include "tls/stream_state.hpp"

namespace blkferry::tls {

namespace {

constexpr std::size_t record_bytes_max = 16384;
/// Received in a call beyond the plain bytes that it asks for: records' own bytes, and messages of TLS.
constexpr std::size_t overhead_bytes_max = 64U << 10;
/// A record costs about as much as some hundred bytes, whatever is in it.
constexpr std::uint64_t records_per_call = 256;
/// KeyUpdate, session tickets: a connection may bring so many, and one more for each of these bytes of data. Keys are good for 2^24
/// records (RFC 8446, 5.5), so an honest peer changes them after some gigabytes at the soonest.
constexpr std::uint64_t messages_max = 64;
constexpr std::uint64_t bytes_per_message = 1ULL << 30;

bool is_foreign_protocol(int reason) noexcept {
    switch (reason) {
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST:
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_WRONG_SSL_VERSION:
        case SSL_R_PACKET_LENGTH_TOO_LONG:
        case SSL_R_BAD_RECORD_TYPE:
        case SSL_R_RECORD_LENGTH_MISMATCH: return true;
        default: return false;
    }
}

bool is_version_mismatch(int reason) noexcept {
    return reason == SSL_R_UNSUPPORTED_PROTOCOL || reason == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION ||
           reason == SSL_R_VERSION_TOO_LOW || reason == SSL_R_NO_SHARED_CIPHER || reason == SSL_R_WRONG_CIPHER_RETURNED;
}

/// What a peer's alert says about our certificate; nullptr if the alert is not about that.
const char* certificate_alert(int reason) noexcept {
    switch (reason) {
        case SSL_R_TLSV1_ALERT_UNKNOWN_CA: return "it is not signed by the peer's CA";
        case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED: return "it has expired";
        case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED: return "it is revoked";
        case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
        case SSL_R_TLSV1_ALERT_DECRYPT_ERROR: return "it is malformed or not valid";
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED: return "there is none";
        case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE: return "its role or name is not accepted";
        default: return nullptr;
    }
}

}  // namespace

void TlsStream::State::begin_call(std::size_t plain_bytes) noexcept {
    ERR_clear_error();
    io.last_errno = 0;
    io.allowance = plain_bytes + overhead_bytes_max;
}

// Each costs new keys and perhaps an answer, and OpenSSL reads on behind it for as long as there are more: a peer that sends nothing
// else would keep this end busy for ever with no byte for the caller. Said to be shut, OpenSSL takes nothing more, at once.
void TlsStream::State::watch_messages() noexcept {
    SSL_set_msg_callback(ssl.get(), [](int sent, int, int type, const void*, std::size_t, SSL* of, void* arg) {
        auto& s = *static_cast<State*>(arg);
        if (sent == 0 && type == SSL3_RT_HEADER)
            ++s.records;
        if (sent != 0 || type != SSL3_RT_HANDSHAKE || !s.established || ++s.messages <= messages_max + s.plain_in / bytes_per_message)
            return;
        s.flooded = true;
        SSL_set_shutdown(of, SSL_RECEIVED_SHUTDOWN);
    });
    SSL_set_msg_callback_arg(ssl.get(), this);
}

Result<Step> TlsStream::State::protocol_failure() {
    if (!check.refusal.empty())
        return fail(Errc::denied, fmt::format("{}: refused: {}", peer_text, check.refusal));
    const int reason = ERR_GET_REASON(ERR_peek_error());
    if (const char* why = certificate_alert(reason)) {
        ERR_clear_error();
        return fail(Errc::denied, fmt::format("{}: the peer refused our certificate: {}", peer_text, why));
    }
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        ERR_clear_error();
        return fail(Errc::denied, fmt::format("{}: refused: the peer shows no certificate", peer_text));
    }
    if (!established && reason == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL) {
        ERR_clear_error();
        return fail(Errc::denied, fmt::format("{}: the server takes no enrolment now: no token is open there, or it makes no certificates", peer_text));
    }
    if (!established && is_foreign_protocol(reason)) {
        ERR_clear_error();
        return fail(Errc::invalid, fmt::format("{}: the peer does not speak TLS", peer_text));
    }
    if (!established && is_version_mismatch(reason))
        return ssl_fail(Errc::invalid, fmt::format("{}: the peer offers no TLS 1.3 as needed", peer_text));
    return ssl_fail(established ? Errc::corrupt : Errc::invalid, fmt::format("{}: TLS", peer_text));
}

// A peer that refused our certificate sends an alert and closes; our next write may meet the closed socket first. The
// alert then still waits to be read.
Result<Step> TlsStream::State::socket_failure() {
    const int err = io.last_errno;
    if ((err == EPIPE || err == ECONNRESET) && plain_in == 0 && SSL_is_init_finished(ssl.get()) != 0) {
        char byte = 0;
        std::size_t got = 0;
        ERR_clear_error();
        if (SSL_peek_ex(ssl.get(), &byte, 1, &got) != 1 && ERR_peek_error() != 0 &&
            certificate_alert(ERR_GET_REASON(ERR_peek_error())) != nullptr)
            return protocol_failure();
        ERR_clear_error();
    }
    if (err == 0)
        return Step{Status::closed, 0};
    return fail_errno(err, peer_text);
}

Result<Step> TlsStream::State::outcome(int ssl_result) {
    if (flooded) {
        failed = true;
        ERR_clear_error();
        return fail(Errc::invalid, fmt::format("{}: the peer sends TLS messages (KeyUpdate, session tickets) and no data: {} of them with {} "
                                               "bytes of data, {} are allowed and one more a GiB",
                                               peer_text, messages, plain_in, messages_max));
    }
    switch (SSL_get_error(ssl.get(), ssl_result)) {
        case SSL_ERROR_NONE: return Step{};
        case SSL_ERROR_WANT_READ: return Step{Status::want_read, 0};
        case SSL_ERROR_WANT_WRITE: return Step{Status::want_write, 0};
        case SSL_ERROR_ZERO_RETURN: return Step{Status::closed, 0};
        case SSL_ERROR_SYSCALL: failed = true; return socket_failure();
        default: failed = true; return protocol_failure();
    }
}

TlsStream::TlsStream(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
TlsStream::TlsStream(TlsStream&&) noexcept = default;
TlsStream& TlsStream::operator=(TlsStream&&) noexcept = default;

// Closing with unread bytes makes the kernel send RST, which can overtake the alert that tells the peer why.
TlsStream::~TlsStream() {
    if (!state_ || !state_->failed)
        return;
    ::shutdown(state_->io.fd, SHUT_WR);
    std::array<char, 4096> bin{};
    for (int i = 0; i < 64 && ::recv(state_->io.fd, bin.data(), bin.size(), MSG_DONTWAIT) > 0; ++i) {
    }
}

int TlsStream::fd() const noexcept { return state_->io.fd; }

Result<Step> TlsStream::handshake() {
    State& s = *state_;
    if (s.established)
        return Step{};
    s.begin_call(0);
    const int r = SSL_do_handshake(s.ssl.get());
    if (r != 1)
        return s.outcome(r);
    if (s.check.enrolling) {
        s.established = true;
        return Step{};
    }
    const CertPtr cert(SSL_get1_peer_certificate(s.ssl.get()));
    if (!s.check.found || !cert || SSL_get_verify_result(s.ssl.get()) != X509_V_OK) {
        s.failed = true;
        return fail(Errc::denied, fmt::format("{}: refused: the peer's certificate was not verified", s.peer_text));
    }
    s.fingerprint = fingerprint_of(*cert);
    BLKFERRY_TRY_ASSIGN(s.serial, pki::serial_of(*cert));
    s.established = true;
    return Step{};
}

Result<Step> TlsStream::read(std::span<std::byte> out) {
    State& s = *state_;
    BLKFERRY_ASSERT(s.established);
    if (s.ended)
        return *s.ended;
    std::size_t total = 0;
    s.begin_call(out.size());
    const std::uint64_t last = s.records + records_per_call;
    while (total < out.size() && s.records < last) {
        std::size_t n = 0;
        ERR_clear_error();
        s.io.last_errno = 0;
        const int r = SSL_read_ex(s.ssl.get(), out.data() + total, out.size() - total, &n);
        if (r != 1) {
            auto step = s.outcome(r);
            if (total == 0)
                return step;
            if (!step || step->status == Status::closed)
                s.ended = std::move(step);  // told by the next call
            break;
        }
        total += n;
        s.plain_in += n;
    }
    return Step{Status::done, total};
}

Result<Step> TlsStream::write(std::span<const std::byte> data) {
    State& s = *state_;
    BLKFERRY_ASSERT(s.established);
    BLKFERRY_ASSERT(data.size() >= s.record_on_way);
    std::size_t total = 0;
    s.begin_call(0);
    while (total < data.size()) {
        std::size_t n = 0;
        const std::size_t rest = data.size() - total;
        ERR_clear_error();
        s.io.last_errno = 0;
        const int r = SSL_write_ex(s.ssl.get(), data.data() + total, rest, &n);
        if (r != 1) {
            auto step = s.outcome(r);
            if (step && (step->status == Status::want_write || step->status == Status::want_read)) {
                s.record_on_way = std::min(rest, record_bytes_max);
                if (total > 0)
                    break;
            }
            return step;
        }
        s.record_on_way = 0;
        total += n;
        s.plain_out += n;
    }
    return Step{Status::done, total};
}

bool TlsStream::pending() const noexcept { return SSL_has_pending(state_->ssl.get()) == 1; }

Result<Step> TlsStream::shutdown() {
    State& s = *state_;
    if (!s.established || s.failed)
        return Step{};
    s.begin_call(0);
    const int r = SSL_shutdown(s.ssl.get());
    if (r >= 0)
        return Step{};
    return s.outcome(r);
}

const std::string& TlsStream::peer_name() const noexcept {
    static const std::string none;
    return state_->check.found ? state_->check.found->name : none;
}
Role TlsStream::peer_role() const noexcept { return state_->check.role; }
bool TlsStream::flooded() const noexcept { return state_->flooded; }
bool TlsStream::enrolling() const noexcept { return state_->check.enrolling; }
const std::string& TlsStream::peer_serial() const noexcept { return state_->serial; }
const std::string& TlsStream::peer_fingerprint() const noexcept { return state_->fingerprint; }
std::uint64_t TlsStream::records_read() const noexcept { return state_->records; }
std::uint64_t TlsStream::bytes_read() const noexcept { return state_->plain_in; }
std::uint64_t TlsStream::bytes_written() const noexcept { return state_->plain_out; }
std::uint64_t TlsStream::wire_bytes_read() const noexcept { return state_->io.in; }
std::uint64_t TlsStream::wire_bytes_written() const noexcept { return state_->io.out; }

}  // namespace blkferry::tls
