// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace blkferry::store {

/// Signs and checks small texts with the server's key (Ed25519, or EC P-256 with SHA-256). OpenSSL. Thread-safe.
class Signer {
public:
    /// A PEM private key: can sign and verify.
    [[nodiscard]] static Result<std::unique_ptr<Signer>> load_private(const std::filesystem::path& pem);
    /// A PEM public key or certificate: can only verify.
    [[nodiscard]] static Result<std::unique_ptr<Signer>> load_public(const std::filesystem::path& pem);
    /// A new Ed25519 key in memory.
    [[nodiscard]] static Result<std::unique_ptr<Signer>> generate();
    ~Signer();

    /// Lower-case hex of SHA-256 over the public key (DER): names the key.
    [[nodiscard]] const std::string& key_id() const noexcept;
    /// Signature in lower-case hex.
    [[nodiscard]] Result<std::string> sign(std::string_view text) const;
    /// Errc::corrupt if the signature is not this key's over this text.
    [[nodiscard]] Result<void> verify(std::string_view text, std::string_view signature_hex) const;
    /// Private key as PEM (mode 0600, durable).
    [[nodiscard]] Result<void> save_private(const std::filesystem::path& pem) const;
    [[nodiscard]] Result<void> save_public(const std::filesystem::path& pem) const;

private:
    struct Impl;
    explicit Signer(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace blkferry::store
