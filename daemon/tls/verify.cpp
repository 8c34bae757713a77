// SPDX-License-Identifier: Apache-2.0
#include "tls/verify.hpp"

#include <algorithm>
#include <memory>
#include <string_view>

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

namespace {

/// As in the extension: length, name.
constexpr std::string_view alpn_replication = "\x0a" "blkferry/1";
constexpr std::string_view alpn_enrolment = "\x11" "blkferry-enroll/1";

bool offers(const unsigned char* list, unsigned bytes, std::string_view wanted) {
    for (unsigned at = 0; at < bytes; at += 1U + list[at])
        if (std::string_view(reinterpret_cast<const char*>(list + at), std::min<unsigned>(1U + list[at], bytes - at)) == wanted)
            return true;
    return false;
}

int select_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_bytes, const unsigned char* list, unsigned bytes, void*) {
    auto* check = static_cast<PeerCheck*>(SSL_get_ex_data(ssl, check_index()));
    if (check == nullptr)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    const bool enrolment = offers(list, bytes, alpn_enrolment);
    if (!enrolment && !offers(list, bytes, alpn_replication))
        return SSL_TLSEXT_ERR_NOACK;
    if (enrolment && !check->may_enrol) {
        check->refusal = "the peer wants to enrol, and no token is open";
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    if (enrolment) {
        check->enrolling = true;
        SSL_set_verify(ssl, SSL_VERIFY_NONE, nullptr);
    }
    const std::string_view chosen = enrolment ? alpn_enrolment : alpn_replication;
    *out = reinterpret_cast<const unsigned char*>(chosen.data()) + 1;
    *out_bytes = static_cast<unsigned char>(chosen.size() - 1);
    return SSL_TLSEXT_ERR_OK;
}

using StackPtr = std::unique_ptr<STACK_OF(X509), decltype([](STACK_OF(X509) * s) { sk_X509_free(s); })>;

int verify_pinned(X509_STORE_CTX* store, void*) {
    auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    auto* check = ssl != nullptr ? static_cast<PeerCheck*>(SSL_get_ex_data(ssl, check_index())) : nullptr;
    const StackPtr trusted(sk_X509_new_null());
    if (check == nullptr || !trusted)
        return 0;
    const STACK_OF(X509)* chain = X509_STORE_CTX_get0_untrusted(store);
    for (int i = 0; i < sk_X509_num(chain); ++i) {
        X509* cert = sk_X509_value(chain, i);
        if (fingerprint_of(*cert) == check->ca_fingerprint && sk_X509_push(trusted.get(), cert) > 0)
            break;
    }
    if (sk_X509_num(trusted.get()) == 0) {
        check->refusal = "this server's CA is not the one that the token names: another server, or somebody in between";
        X509_STORE_CTX_set_error(store, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
        return 0;
    }
    X509_STORE_CTX_set0_trusted_stack(store, trusted.get());
    return X509_verify_cert(store);
}

}  // namespace

void allow_enrolment(SSL_CTX& context) { SSL_CTX_set_alpn_select_cb(&context, select_alpn, nullptr); }

void pin_ca(SSL_CTX& context) { SSL_CTX_set_cert_verify_callback(&context, verify_pinned, nullptr); }

bool set_alpn(SSL_CTX& context, bool enrolment) {
    const std::string_view name = enrolment ? alpn_enrolment : alpn_replication;
    return SSL_CTX_set_alpn_protos(&context, reinterpret_cast<const unsigned char*>(name.data()),
                                   static_cast<unsigned>(name.size())) == 0;  // 0 is success here
}

}  // namespace blkferry::tls
