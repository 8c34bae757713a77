// SPDX-License-Identifier: Apache-2.0
#include "store/signer.hpp"

#include <vector>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <fmt/format.h>

#include "base/fd.hpp"
#include "base/hash.hpp"

namespace blkferry::store {

namespace {

struct Free {
    void operator()(EVP_PKEY* p) const noexcept { EVP_PKEY_free(p); }
    void operator()(EVP_MD_CTX* p) const noexcept { EVP_MD_CTX_free(p); }
    void operator()(BIO* p) const noexcept { BIO_free(p); }
    void operator()(X509* p) const noexcept { X509_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

std::unexpected<Error> ssl_error(std::string_view what) {
    char text[256];
    const unsigned long code = ERR_get_error();
    ERR_error_string_n(code, text, sizeof(text));
    ERR_clear_error();
    return fail(Errc::invalid, fmt::format("{}: {}", what, code != 0 ? text : "refused"));
}

std::string to_hex(std::span<const std::byte> data) {
    std::string hex;
    hex.reserve(2 * data.size());
    for (const std::byte b : data)
        hex += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return hex;
}

bool from_hex(std::string_view hex, std::vector<unsigned char>& out) {
    const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
    if (hex.size() % 2 != 0)
        return false;
    for (std::size_t i = 0; i < hex.size(); i += 2) {
        const int high = digit(hex[i]);
        const int low = digit(hex[i + 1]);
        if (high < 0 || low < 0)
            return false;
        out.push_back(static_cast<unsigned char>(high * 16 + low));
    }
    return true;
}

/// Ed25519 hashes by itself, EC keys are used with SHA-256.
const EVP_MD* digest_for(EVP_PKEY* key) noexcept {
    return EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
}

const unsigned char* bytes_of(std::string_view text) noexcept {
    return reinterpret_cast<const unsigned char*>(text.data());
}

}  // namespace

struct Signer::Impl {
    Owned<EVP_PKEY> key;
    bool is_private = false;
    std::string id;

    static Result<std::unique_ptr<Signer>> make(Owned<EVP_PKEY> key, bool is_private, std::string_view what) {
        const int kind = EVP_PKEY_get_base_id(key.get());
        if (kind != EVP_PKEY_ED25519 && kind != EVP_PKEY_EC)
            return fail(Errc::invalid, fmt::format("{}: only Ed25519 and EC keys sign manifests", what));
        unsigned char* der = nullptr;
        const int n = i2d_PUBKEY(key.get(), &der);
        if (n <= 0)
            return ssl_error(what);
        auto impl = std::make_unique<Impl>();
        impl->id = to_hex(sha256(std::as_bytes(std::span(der, static_cast<std::size_t>(n)))));
        OPENSSL_free(der);
        impl->key = std::move(key);
        impl->is_private = is_private;
        return std::unique_ptr<Signer>(new Signer(std::move(impl)));
    }
};

Signer::Signer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Signer::~Signer() = default;

Result<std::unique_ptr<Signer>> Signer::load_private(const std::filesystem::path& pem) {
    BLKFERRY_TRY_ASSIGN(const std::string text, read_text_file(pem, 64U << 10));
    const Owned<BIO> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
    Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
    if (!key)
        return ssl_error(fmt::format("cannot read the private key {}", pem.string()));
    return Impl::make(std::move(key), true, pem.string());
}

Result<std::unique_ptr<Signer>> Signer::load_public(const std::filesystem::path& pem) {
    BLKFERRY_TRY_ASSIGN(const std::string text, read_text_file(pem, 64U << 10));
    Owned<BIO> bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
    Owned<EVP_PKEY> key(PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
    if (!key) {
        ERR_clear_error();
        bio.reset(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
        const Owned<X509> certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
        if (certificate)
            key.reset(X509_get_pubkey(certificate.get()));
    }
    if (!key)
        return ssl_error(fmt::format("cannot read a public key or certificate from {}", pem.string()));
    return Impl::make(std::move(key), false, pem.string());
}

Result<std::unique_ptr<Signer>> Signer::generate() {
    Owned<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
    if (!key)
        return ssl_error("cannot make an Ed25519 key");
    return Impl::make(std::move(key), true, "new key");
}

const std::string& Signer::key_id() const noexcept {
    return impl_->id;
}

Result<std::string> Signer::sign(std::string_view text) const {
    if (!impl_->is_private)
        return fail(Errc::denied, "cannot sign with a public key");
    const Owned<EVP_MD_CTX> ctx(EVP_MD_CTX_new());
    std::size_t n = 0;
    if (!ctx || EVP_DigestSignInit(ctx.get(), nullptr, digest_for(impl_->key.get()), nullptr, impl_->key.get()) != 1 ||
        EVP_DigestSign(ctx.get(), nullptr, &n, bytes_of(text), text.size()) != 1)
        return ssl_error("cannot sign");
    std::vector<unsigned char> signature(n);
    if (EVP_DigestSign(ctx.get(), signature.data(), &n, bytes_of(text), text.size()) != 1)
        return ssl_error("cannot sign");
    return to_hex(std::as_bytes(std::span(signature).first(n)));
}

Result<void> Signer::verify(std::string_view text, std::string_view signature_hex) const {
    std::vector<unsigned char> signature;
    const Owned<EVP_MD_CTX> ctx(EVP_MD_CTX_new());
    if (!ctx || EVP_DigestVerifyInit(ctx.get(), nullptr, digest_for(impl_->key.get()), nullptr, impl_->key.get()) != 1)
        return ssl_error("cannot verify a signature");
    const bool good = from_hex(signature_hex, signature) &&
                      EVP_DigestVerify(ctx.get(), signature.data(), signature.size(), bytes_of(text), text.size()) == 1;
    ERR_clear_error();
    if (!good)
        return fail(Errc::corrupt, fmt::format("signature is not one of key {}", impl_->id));
    return {};
}

Result<void> Signer::save_private(const std::filesystem::path& pem) const {
    const Owned<BIO> bio(BIO_new(BIO_s_mem()));
    if (!bio || PEM_write_bio_PrivateKey(bio.get(), impl_->key.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1)
        return ssl_error("cannot write a private key");
    char* data = nullptr;
    const long n = BIO_get_mem_data(bio.get(), &data);
    return write_file_durable(pem, std::string_view(data, static_cast<std::size_t>(n)), 0600);
}

Result<void> Signer::save_public(const std::filesystem::path& pem) const {
    const Owned<BIO> bio(BIO_new(BIO_s_mem()));
    if (!bio || PEM_write_bio_PUBKEY(bio.get(), impl_->key.get()) != 1)
        return ssl_error("cannot write a public key");
    char* data = nullptr;
    const long n = BIO_get_mem_data(bio.get(), &data);
    return write_file_durable(pem, std::string_view(data, static_cast<std::size_t>(n)), 0644);
}

}  // namespace blkferry::store
