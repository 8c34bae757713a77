// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "tls/identity.hpp"

/// A small certificate authority in a folder:
///   ca.pem, ca.key       its certificate and key (EC P-256)
///   issued/<serial>.pem  every certificate it signed
///   ca.crl               what it revoked (made by the first revoke)
/// Everything it writes is durable before it returns; keys have mode 0600; nothing is overwritten but the CRL.
namespace blkferry::tls::pki {

inline constexpr unsigned days_max = 3650;

struct Issued {
    Identity identity;
    std::string serial;  ///< hex
    std::int64_t not_after = 0;
    std::filesystem::path cert;
    std::filesystem::path key;  ///< empty if a CSR was signed
};

struct Listed {
    Identity identity;
    std::string serial;
    std::int64_t not_before = 0;
    std::int64_t not_after = 0;
    bool revoked = false;
};

/// Makes the folder and the CA in it; valid `days`. Errc::exists if there is one already.
[[nodiscard]] Result<void> init(const std::filesystem::path& dir, std::string_view name, unsigned days = days_max);

/// Makes a key and a certificate <role>-<name>.pem and .key in `out`. Errc::exists if one of the files is there.
[[nodiscard]] Result<Issued> issue(const std::filesystem::path& dir, Role role, std::string_view name, unsigned days,
                                   const std::filesystem::path& out);

/// Signs the key of a certificate request (PEM; its signature is verified, its names are ignored): <role>-<name>.pem.
[[nodiscard]] Result<Issued> sign_request(const std::filesystem::path& dir, const std::filesystem::path& request,
                                          Role role, std::string_view name, unsigned days,
                                          const std::filesystem::path& out);

/// A certificate that was signed for somebody who is not here.
struct Signed {
    std::string cert_pem;
    std::string serial;
    std::int64_t not_after = 0;
};
inline constexpr std::size_t request_bytes_max = 8192;
/// Signs the key of a certificate request (PEM of at most request_bytes_max) for `life_s` seconds and records it in `dir`. The request
/// is hostile: its signature is verified, its key must be strong enough, and a blkferry: name in it must be `identity`'s.
[[nodiscard]] Result<Signed> sign(const std::filesystem::path& dir, std::string_view request_pem, const Identity& identity,
                                  std::uint64_t life_s);
/// SHA-256 of the public key in a certificate request, lower-case hex; the request is checked as by sign().
[[nodiscard]] Result<std::string> key_of_request(std::string_view request_pem);
/// An issued certificate (PEM) again, by its serial.
[[nodiscard]] Result<std::string> issued(const std::filesystem::path& dir, std::string_view serial);
/// The CA's own certificate (PEM), and its SHA-256 fingerprint in lower-case hex.
[[nodiscard]] Result<std::string> ca_certificate(const std::filesystem::path& dir);
[[nodiscard]] Result<std::string> ca_fingerprint(const std::filesystem::path& dir);

/// Adds a certificate to the CRL, by its serial (hex). Errc::not_found if this CA did not issue it.
[[nodiscard]] Result<Listed> revoke(const std::filesystem::path& dir, std::string_view serial);
/// All certificates of an identity that are not revoked yet; Errc::not_found if there is none.
[[nodiscard]] Result<std::vector<Listed>> revoke(const std::filesystem::path& dir, const Identity& identity);
/// Signs the CRL anew (its validity is renewed).
[[nodiscard]] Result<void> refresh_crl(const std::filesystem::path& dir);

/// What was issued, ordered by beginning of validity.
[[nodiscard]] Result<std::vector<Listed>> list(const std::filesystem::path& dir);

}  // namespace blkferry::tls::pki
