// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "tls/ssl.hpp"

/// Keys, certificates and revocation lists as objects, no files; private to this library and its tests.
namespace blkferry::tls::pki {

struct Validity {
    std::time_t from = 0;
    std::time_t to = 0;
};

/// EC P-256.
[[nodiscard]] Result<KeyPtr> make_key();
[[nodiscard]] Result<CertPtr> make_ca(EVP_PKEY& key, std::string_view name, Validity validity);
/// Signs `subject_key` as `identity`; usage (client or server) follows the role.
[[nodiscard]] Result<CertPtr> make_cert(X509& ca, EVP_PKEY& ca_key, EVP_PKEY& subject_key, const Identity& identity,
                                        Validity validity);
/// A new list with everything of `old` (may be null) and `add` (may be null), numbered one higher.
[[nodiscard]] Result<CrlPtr> make_crl(X509& ca, EVP_PKEY& ca_key, X509_CRL* old, const X509* add, Validity validity);

[[nodiscard]] Result<std::string> to_pem(const X509& cert);
[[nodiscard]] Result<std::string> to_pem(const EVP_PKEY& key);
[[nodiscard]] Result<std::string> to_pem(const X509_CRL& crl);
/// Upper-case hex, as OpenSSL prints it.
[[nodiscard]] Result<std::string> serial_of(const X509& cert);

}  // namespace blkferry::tls::pki
