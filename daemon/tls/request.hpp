// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "tls/identity.hpp"

/// The side that wants a certificate: its key, its request, and the check of what came back.
namespace blkferry::tls {

struct Request {
    std::string key_pem;  ///< secret: goes to a file of mode 0600 and nowhere else
    std::string csr_pem;  ///< names `identity`
};

/// Makes a key (EC P-256) and a request of it.
[[nodiscard]] Result<Request> make_request(const Identity& identity);
/// A request of a key that is there (PEM; other blocks beside it are skipped).
[[nodiscard]] Result<Request> make_request(const Identity& identity, std::string_view key_pem, std::string_view what);

/// What a CA answered is of use: `cert_pem` is `identity`'s, of the key, valid now, and signed by `ca_pem`.
[[nodiscard]] Result<void> check_certificate(std::string_view cert_pem, std::string_view key_pem, std::string_view ca_pem,
                                             const Identity& identity);
/// One of the CA's keys signed the first certificate of `cert_pem`, whatever its dates are; false also if one of them cannot be read.
[[nodiscard]] bool is_signed_by(std::string_view cert_pem, std::string_view ca_pem);
/// SHA-256 of the first certificate of a PEM text, lower-case hex.
[[nodiscard]] Result<std::string> fingerprint_of_pem(std::string_view pem, std::string_view what);
/// Reads a private key's file; refused if group or others have any right on it, as TlsContext does.
[[nodiscard]] Result<std::string> read_key_file(const std::filesystem::path& path);

}  // namespace blkferry::tls
