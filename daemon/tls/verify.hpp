// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "tls/ssl.hpp"

namespace blkferry::tls {

/// What a connection demands of its peer's certificate, and what the verification found out.
struct PeerCheck {
    Role role = Role::source;
    std::string name;  ///< empty: any
    std::string ca;    ///< the CA file, for texts

    std::string ca_fingerprint;  ///< client without a CA file: the SHA-256 of the CA that the server's chain must end in
    bool may_enrol = false;      ///< server: a peer may ask for enrolment instead of showing a certificate

    bool enrolling = false;         ///< server: the peer asked for it, and shows no certificate
    std::optional<Identity> found;  ///< set when chain, role and name are right
    std::string refusal;            ///< why not
};

/// Installs the verification into a context, and a connection's demand into its SSL (`check` outlives it).
void set_verification(SSL_CTX& context);
[[nodiscard]] bool set_peer_check(SSL& ssl, PeerCheck& check);

/// Server: the ALPN name of enrolment is taken where the connection's demand allows it, and no certificate is asked for then.
void allow_enrolment(SSL_CTX& context);
/// Client: trusts no CA file but the one certificate of the peer's chain that has the demanded fingerprint.
void pin_ca(SSL_CTX& context);
/// What the client wants to speak: replication or enrolment.
[[nodiscard]] bool set_alpn(SSL_CTX& context, bool enrolment);

}  // namespace blkferry::tls
