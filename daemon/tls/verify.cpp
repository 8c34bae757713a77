// SPDX-License-Identifier: Apache-2.0
#include "tls/verify.hpp"

#include <fmt/format.h>

namespace blkferry::tls {

namespace {

int check_index() {
    static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
    return index;
}

std::string who(const X509* cert) {
    if (cert == nullptr)
        return "certificate";
    const auto identity = identity_of(*cert);
    return identity ? fmt::format("certificate of {} '{}'", to_string(identity->role), identity->name) : "certificate";
}

std::string chain_refusal(X509_STORE_CTX* store, const PeerCheck& check) {
    const int err = X509_STORE_CTX_get_error(store);
    X509* cert = X509_STORE_CTX_get_current_cert(store);
    switch (err) {
        case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
        case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
        case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
        case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
        case X509_V_ERR_CERT_SIGNATURE_FAILURE:
            return fmt::format("{} is not signed by the CA in {}", who(cert), check.ca);
        case X509_V_ERR_CERT_HAS_EXPIRED:
            return fmt::format("{} expired on {}: issue a new one", who(cert), date_text(X509_get0_notAfter(cert)));
        case X509_V_ERR_CERT_NOT_YET_VALID:
            return fmt::format("{} is valid from {} on: check the clocks", who(cert),
                               date_text(X509_get0_notBefore(cert)));
        case X509_V_ERR_CERT_REVOKED: return fmt::format("{} is revoked", who(cert));
        case X509_V_ERR_CRL_HAS_EXPIRED: return "the revocation list (CRL) has expired: make it anew";
        case X509_V_ERR_UNABLE_TO_GET_CRL: return fmt::format("the revocation list (CRL) is not of the CA in {}", check.ca);
        case X509_V_ERR_INVALID_PURPOSE: return fmt::format("{} is not made for this role (extended key usage)", who(cert));
        default: return fmt::format("{}: {}", who(cert), X509_verify_cert_error_string(err));
    }
}

// Role and name are decided here, inside the handshake: before the peer gets or gives a byte of protocol.
int verify(int chain_ok, X509_STORE_CTX* store) {
    auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    auto* check = ssl != nullptr ? static_cast<PeerCheck*>(SSL_get_ex_data(ssl, check_index())) : nullptr;
    if (check == nullptr)
        return 0;
    if (chain_ok == 0) {
        check->refusal = chain_refusal(store, *check);
        return 0;
    }
    if (X509_STORE_CTX_get_error_depth(store) != 0)
        return 1;
    const X509* cert = X509_STORE_CTX_get_current_cert(store);
    auto identity = identity_of(*cert);
    if (!identity) {
        check->refusal = identity.error().text;
    } else if (identity->role != check->role) {
        check->refusal = fmt::format("{}: a certificate of role {} is needed", who(cert), to_string(check->role));
    } else if (!check->name.empty() && identity->name != check->name) {
        check->refusal = fmt::format("{}: '{}' is expected", who(cert), check->name);
    } else {
        check->found = std::move(*identity);
        return 1;
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

}  // namespace

void set_verification(SSL_CTX& context) {
    SSL_CTX_set_verify(&context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
    SSL_CTX_set_verify_depth(&context, 3);
}

bool set_peer_check(SSL& ssl, PeerCheck& check) {
    return check_index() >= 0 && SSL_set_ex_data(&ssl, check_index(), &check) == 1;
}

}  // namespace blkferry::tls
