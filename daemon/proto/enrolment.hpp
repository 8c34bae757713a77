// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "proto/limits.hpp"

/// How a source gets its first certificate, and later ones. JSON; unknown members are ignored.
namespace blkferry::proto {

/// CERT_REQUEST. Without a token it is a renewal, and comes in a session.
struct CertRequest {
    std::string source;         ///< name that the certificate is to have
    std::string csr;            ///< PEM, at most csr_bytes_max
    std::string token_id;       ///< enrolment
    std::string token_secret;   ///< enrolment; never logged
    std::string agent_version;
    bool operator==(const CertRequest&) const = default;
};
void encode(const CertRequest& m, std::vector<std::byte>& out);
[[nodiscard]] Result<CertRequest> decode_cert_request(std::span<const std::byte> body);

/// CERT_REPLY. A refused renewal costs nothing else: the session goes on.
struct CertReply {
    std::string code;    ///< empty: granted; else a name of Errc
    std::string text;    ///< why not
    std::string cert;    ///< PEM, at most cert_bytes_max
    std::string ca;      ///< PEM, at most cert_bytes_max
    std::string server;  ///< name of the server
    bool operator==(const CertReply&) const = default;
};
void encode(const CertReply& m, std::vector<std::byte>& out);
[[nodiscard]] Result<CertReply> decode_cert_reply(std::span<const std::byte> body);

inline constexpr std::size_t token_id_bytes = 16;      ///< hexadecimal digits
inline constexpr std::size_t token_secret_bytes = 32;  ///< hexadecimal digits: 128 random bits
inline constexpr std::size_t fingerprint_bytes = 64;   ///< hexadecimal digits of a SHA-256

/// What an administrator carries from the server to a source: "bf1-<id>-<secret>-<fingerprint of the CA>".
struct Token {
    std::string id;
    std::string secret;
    std::string ca_fingerprint;
    [[nodiscard]] std::string str() const;
    /// Accepts what str() gives, with white space around it. The error never repeats the text.
    [[nodiscard]] static Result<Token> parse(std::string_view text);
    bool operator==(const Token&) const = default;
};

/// WELCOME's feature: the server takes CERT_REQUEST in a session.
inline constexpr std::string_view feature_renew = "renew";
/// WELCOME's feature: the server takes RETIRE.
inline constexpr std::string_view feature_retire = "retire";

}  // namespace blkferry::proto
