// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/result.hpp"
#include "tls/identity.hpp"

/// Owners for OpenSSL's objects, its error queue as an Error, and reading PEM; private to this library.
namespace blkferry::tls {

template <auto Function>
struct Free {
    template <class T>
    void operator()(T* p) const noexcept {
        Function(p);
    }
};
using BioPtr = std::unique_ptr<BIO, Free<BIO_free_all>>;
using BioMethodPtr = std::unique_ptr<BIO_METHOD, Free<BIO_meth_free>>;
using BnPtr = std::unique_ptr<BIGNUM, Free<BN_free>>;
using IntegerPtr = std::unique_ptr<ASN1_INTEGER, Free<ASN1_INTEGER_free>>;
using TimePtr = std::unique_ptr<ASN1_TIME, Free<ASN1_TIME_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using CertPtr = std::unique_ptr<X509, Free<X509_free>>;
using CrlPtr = std::unique_ptr<X509_CRL, Free<X509_CRL_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, Free<X509_REQ_free>>;
using RevokedPtr = std::unique_ptr<X509_REVOKED, Free<X509_REVOKED_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Free<GENERAL_NAMES_free>>;
using ContextPtr = std::unique_ptr<SSL_CTX, Free<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Free<SSL_free>>;

/// Takes everything from this thread's OpenSSL error queue; "what: first reason; further reason".
[[nodiscard]] Error ssl_error(Errc code, std::string_view what);
[[nodiscard]] std::unexpected<Error> ssl_fail(Errc code, std::string_view what);

/// All certificates of a PEM text, at least one.
[[nodiscard]] Result<std::vector<CertPtr>> parse_certs(std::string_view pem, std::string_view what);
/// A private key without passphrase.
[[nodiscard]] Result<KeyPtr> parse_key(std::string_view pem, std::string_view what);
[[nodiscard]] Result<CrlPtr> parse_crl(std::string_view pem, std::string_view what);

/// The one blkferry: URI of a certificate; Errc::denied if there is none, or more than one.
[[nodiscard]] Result<Identity> identity_of(const X509& cert);
/// The same of a certificate request, which need not name itself.
[[nodiscard]] Result<std::optional<Identity>> identity_of(const X509_REQ& request);
/// SHA-256 of the DER form, lower-case hex.
[[nodiscard]] std::string fingerprint_of(const X509& cert);
/// Seconds since 1970; 0 if the field is malformed.
[[nodiscard]] std::int64_t seconds_of(const ASN1_TIME* time) noexcept;
[[nodiscard]] std::string date_text(const ASN1_TIME* time);

}  // namespace blkferry::tls
