// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tls/identity.hpp"
#include "tls/stream.hpp"

namespace blkferry::tls {

/// The PEM files of one end.
struct Files {
    std::filesystem::path cert;  ///< own certificate (further ones of the chain may follow)
    std::filesystem::path key;   ///< own private key; refused if group or others can read or write it
    std::filesystem::path ca;    ///< the certificate(s) that peers must be signed by
    std::filesystem::path crl;   ///< revoked certificates; empty: none
};

/// What all connections of one end share. TLS 1.3 only, both ends show certificates, AES-256-GCM or ChaCha20-Poly1305,
/// no session tickets, no resumption. Streams keep what they need of it alive. Not for use by several threads at once.
class TlsContext {
public:
    /// Accepts peers of role source. The own certificate must have role server.
    [[nodiscard]] static Result<TlsContext> make_server(Files files);
    /// Connects to peers of role server, of the name `server_name` unless that is empty. The own certificate must have role
    /// source.
    [[nodiscard]] static Result<TlsContext> make_client(Files files, std::string server_name = {});

    /// Connects to the enrolment of a server whose certificate a CA with this SHA-256 fingerprint (lower-case hex) signed. Shows no
    /// certificate, and needs no file; reload() does nothing.
    [[nodiscard]] static Result<TlsContext> make_enrolling(std::string ca_fingerprint);

    TlsContext(TlsContext&&) noexcept;
    TlsContext& operator=(TlsContext&&) noexcept;
    TlsContext(const TlsContext&) = delete;
    TlsContext& operator=(const TlsContext&) = delete;
    ~TlsContext();

    /// Reads all files again. On an error nothing changes. Streams made before go on with what they had.
    [[nodiscard]] Result<void> reload();
    /// Role and name in the own certificate.
    [[nodiscard]] const Identity& identity() const noexcept;
    /// Validity of the own certificate, seconds since 1970.
    [[nodiscard]] std::int64_t not_before() const noexcept;
    [[nodiscard]] std::int64_t not_after() const noexcept;

    /// Makes a connected, non-blocking stream socket a TLS stream. `peer_text` names the peer in errors (its address). A server may
    /// let the peer enrol (see TlsStream::enrolling).
    [[nodiscard]] Result<TlsStream> wrap(Fd socket, std::string peer_text, bool may_enrol = false) const;
    /// Whether the peer's certificate is in the revocation list as it is loaded now. False without a peer's certificate.
    [[nodiscard]] bool is_revoked(const TlsStream& stream) const;

private:
    struct State;
    explicit TlsContext(std::unique_ptr<State> state) noexcept;
    std::unique_ptr<State> state_;
};

}  // namespace blkferry::tls
