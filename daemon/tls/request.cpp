// SPDX-License-Identifier: Apache-2.0
#include "tls/request.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "tls/pki_cert.hpp"

namespace blkferry::tls {

namespace {

using Extensions =
    std::unique_ptr<STACK_OF(X509_EXTENSION), decltype([](STACK_OF(X509_EXTENSION) * s) { sk_X509_EXTENSION_pop_free(s, X509_EXTENSION_free); })>;

Result<std::string> request_pem(EVP_PKEY& key, const Identity& identity) {
    ERR_clear_error();
    const RequestPtr request(X509_REQ_new());
    const Extensions extensions(sk_X509_EXTENSION_new_null());
    const auto failed = [] { return ssl_fail(Errc::io, "OpenSSL: cannot make a certificate request"); };
    if (!request || !extensions)
        return failed();
    X509_NAME* name = X509_REQ_get_subject_name(request.get());
    if (X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(identity.name.data()),
                                   static_cast<int>(identity.name.size()), -1, 0) != 1)
        return failed();
    ExtensionPtr uri(X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, fmt::format("URI:{}", identity.uri()).c_str()));
    if (!uri || sk_X509_EXTENSION_push(extensions.get(), uri.get()) <= 0)
        return failed();
    (void)uri.release();
    const bool ed = EVP_PKEY_get_id(&key) == EVP_PKEY_ED25519 || EVP_PKEY_get_id(&key) == EVP_PKEY_ED448;
    if (X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 || X509_REQ_set_pubkey(request.get(), &key) != 1 ||
        X509_REQ_add_extensions(request.get(), extensions.get()) != 1 ||
        X509_REQ_sign(request.get(), &key, ed ? nullptr : EVP_sha256()) == 0)
        return failed();
    const BioPtr bio(BIO_new(BIO_s_mem()));
    char* data = nullptr;
    if (!bio || PEM_write_bio_X509_REQ(bio.get(), request.get()) != 1)
        return failed();
    const long bytes = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<std::size_t>(bytes));
}

}  // namespace

Result<Request> make_request(const Identity& identity) {
    BLKFERRY_TRY(check_name(identity.name));
    BLKFERRY_TRY_ASSIGN(const KeyPtr key, pki::make_key());
    BLKFERRY_TRY_ASSIGN(std::string csr, request_pem(*key, identity));
    BLKFERRY_TRY_ASSIGN(std::string key_pem, pki::to_pem(*key));
    return Request{std::move(key_pem), std::move(csr)};
}

Result<Request> make_request(const Identity& identity, std::string_view key_pem, std::string_view what) {
    BLKFERRY_TRY(check_name(identity.name));
    BLKFERRY_TRY_ASSIGN(const KeyPtr key, parse_key(key_pem, what));
    BLKFERRY_TRY_ASSIGN(std::string csr, request_pem(*key, identity));
    BLKFERRY_TRY_ASSIGN(std::string own, pki::to_pem(*key));
    return Request{std::move(own), std::move(csr)};
}

Result<void> check_certificate(std::string_view cert_pem, std::string_view key_pem, std::string_view ca_pem, const Identity& identity) {
    ERR_clear_error();
    BLKFERRY_TRY_ASSIGN(const auto certs, parse_certs(cert_pem, "the new certificate"));
    BLKFERRY_TRY_ASSIGN(const KeyPtr key, parse_key(key_pem, "the new key"));
    BLKFERRY_TRY_ASSIGN(const auto cas, parse_certs(ca_pem, "the CA"));
    X509* cert = certs.front().get();
    BLKFERRY_TRY_ASSIGN(const Identity found, identity_of(*cert));
    if (found != identity)
        return fail(Errc::denied, fmt::format("the server made a certificate of {} '{}', wanted was {} '{}'", to_string(found.role), found.name,
                                              to_string(identity.role), identity.name));
    if (X509_check_private_key(cert, key.get()) != 1)
        return ssl_fail(Errc::denied, "the server made a certificate of another key");
    const std::unique_ptr<X509_STORE, Free<X509_STORE_free>> store(X509_STORE_new());
    const std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>> context(X509_STORE_CTX_new());
    if (!store || !context)
        return ssl_fail(Errc::io, "OpenSSL: no memory");
    for (const CertPtr& ca : cas)
        if (X509_STORE_add_cert(store.get(), ca.get()) != 1)
            return ssl_fail(Errc::invalid, "the CA");
    if (X509_STORE_CTX_init(context.get(), store.get(), cert, nullptr) != 1 ||
        X509_STORE_CTX_set_purpose(context.get(), identity.role == Role::server ? X509_PURPOSE_SSL_SERVER : X509_PURPOSE_SSL_CLIENT) != 1)
        return ssl_fail(Errc::io, "OpenSSL: cannot verify a certificate");
    if (X509_verify_cert(context.get()) != 1) {
        ERR_clear_error();
        return fail(Errc::denied, fmt::format("the new certificate is of no use: {}",
                                              X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()))));
    }
    return {};
}

bool is_signed_by(std::string_view cert_pem, std::string_view ca_pem) {
    const auto certs = parse_certs(cert_pem, "certificate");
    const auto cas = parse_certs(ca_pem, "CA");
    const bool found = certs && cas && std::ranges::any_of(*cas, [&](const CertPtr& ca) {
        EVP_PKEY* key = X509_get0_pubkey(ca.get());
        return key != nullptr && X509_verify(certs->front().get(), key) == 1;
    });
    ERR_clear_error();
    return found;
}

Result<std::string> fingerprint_of_pem(std::string_view pem, std::string_view what) {
    BLKFERRY_TRY_ASSIGN(const auto certs, parse_certs(pem, what));
    return fingerprint_of(*certs.front());
}

}  // namespace blkferry::tls
