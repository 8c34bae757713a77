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

    std::optional<Identity> found;  ///< set when chain, role and name are right
    std::string refusal;            ///< why not
};

/// Installs the verification into a context, and a connection's demand into its SSL (`check` outlives it).
void set_verification(SSL_CTX& context);
[[nodiscard]] bool set_peer_check(SSL& ssl, PeerCheck& check);

}  // namespace blkferry::tls
