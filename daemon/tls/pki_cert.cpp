// SPDX-License-Identifier: Apache-2.0
#include "tls/pki_cert.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>

namespace blkferry::tls::pki {

namespace {

constexpr int serial_bits = 127;

std::unexpected<Error> out_of_luck(std::string_view what) { return ssl_fail(Errc::io, fmt::format("OpenSSL: {}", what)); }

Result<void> set_name(X509_NAME* name, std::string_view organization, std::string_view common) {
    const auto add = [&](const char* field, std::string_view text) {
        return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(text.data()),
                                          static_cast<int>(text.size()), -1, 0) == 1;
    };
    if (!add("O", organization) || !add("CN", common))
        return out_of_luck("cannot set a certificate's name");
    return {};
}

Result<void> add_extension(X509& cert, X509& issuer, int nid, const std::string& value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, &issuer, &cert, nullptr, nullptr, 0);
    const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
    if (!extension || X509_add_ext(&cert, extension.get(), -1) != 1)
        return out_of_luck(fmt::format("cannot add extension {}", OBJ_nid2sn(nid)));
    return {};
}

// Serial (random, positive), version, validity and public key.
Result<CertPtr> begin_cert(EVP_PKEY& key, Validity validity) {
    CertPtr cert(X509_new());
    const BnPtr serial(BN_new());
    if (!cert || !serial || BN_rand(serial.get(), serial_bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) != 1 ||
        BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(cert.get())) == nullptr ||
        X509_set_version(cert.get(), X509_VERSION_3) != 1 || X509_set_pubkey(cert.get(), &key) != 1 ||
        ASN1_TIME_set(X509_getm_notBefore(cert.get()), validity.from) == nullptr ||
        ASN1_TIME_set(X509_getm_notAfter(cert.get()), validity.to) == nullptr)
        return out_of_luck("cannot make a certificate");
    return cert;
}

// Ed25519 and Ed448 keys name no digest of their own.
const EVP_MD* digest_for(EVP_PKEY& key) {
    return EVP_PKEY_get_id(&key) == EVP_PKEY_ED25519 || EVP_PKEY_get_id(&key) == EVP_PKEY_ED448 ? nullptr : EVP_sha256();
}

template <class Write>
Result<std::string> write_pem(Write&& write) {
    const BioPtr bio(BIO_new(BIO_s_mem()));
    if (!bio || write(bio.get()) != 1)
        return out_of_luck("cannot write PEM");
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    if (data == nullptr || size <= 0)
        return out_of_luck("cannot write PEM");
    return std::string(data, static_cast<std::size_t>(size));
}

}  // namespace

Result<KeyPtr> make_key() {
    KeyPtr key(EVP_EC_gen("P-256"));
    if (!key)
        return out_of_luck("cannot make a key");
    return key;
}

Result<CertPtr> make_ca(EVP_PKEY& key, std::string_view name, Validity validity) {
    ERR_clear_error();
    BLKFERRY_TRY_ASSIGN(CertPtr cert, begin_cert(key, validity));
    BLKFERRY_TRY(set_name(X509_get_subject_name(cert.get()), "blkferry CA", name));
    if (X509_set_issuer_name(cert.get(), X509_get_subject_name(cert.get())) != 1)
        return out_of_luck("cannot name a CA");
    BLKFERRY_TRY(add_extension(*cert, *cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
    BLKFERRY_TRY(add_extension(*cert, *cert, NID_key_usage, "critical,keyCertSign,cRLSign"));
    BLKFERRY_TRY(add_extension(*cert, *cert, NID_subject_key_identifier, "hash"));
    BLKFERRY_TRY(add_extension(*cert, *cert, NID_authority_key_identifier, "keyid:always"));
    if (X509_sign(cert.get(), &key, digest_for(key)) == 0)
        return out_of_luck("cannot sign a certificate");
    return cert;
}

Result<CertPtr> make_cert(X509& ca, EVP_PKEY& ca_key, EVP_PKEY& subject_key, const Identity& identity,
                          Validity validity) {
    ERR_clear_error();
    BLKFERRY_TRY(check_name(identity.name));
    BLKFERRY_TRY_ASSIGN(CertPtr cert, begin_cert(subject_key, validity));
    BLKFERRY_TRY(set_name(X509_get_subject_name(cert.get()), fmt::format("blkferry {}", to_string(identity.role)),
                          identity.name));
    if (X509_set_issuer_name(cert.get(), X509_get_subject_name(&ca)) != 1)
        return out_of_luck("cannot name an issuer");
    BLKFERRY_TRY(add_extension(*cert, ca, NID_basic_constraints, "critical,CA:FALSE"));
    BLKFERRY_TRY(add_extension(*cert, ca, NID_key_usage, "critical,digitalSignature"));
    BLKFERRY_TRY(
        add_extension(*cert, ca, NID_ext_key_usage, identity.role == Role::server ? "serverAuth" : "clientAuth"));
    BLKFERRY_TRY(add_extension(*cert, ca, NID_subject_key_identifier, "hash"));
    BLKFERRY_TRY(add_extension(*cert, ca, NID_authority_key_identifier, "keyid:always"));
    BLKFERRY_TRY(add_extension(*cert, ca, NID_subject_alt_name, fmt::format("URI:{}", identity.uri())));
    if (X509_sign(cert.get(), &ca_key, digest_for(ca_key)) == 0)
        return out_of_luck("cannot sign a certificate");
    return cert;
}

Result<CrlPtr> make_crl(X509& ca, EVP_PKEY& ca_key, X509_CRL* old, const X509* add, Validity validity) {
    ERR_clear_error();
    long number = 1;
    if (old != nullptr) {
        const IntegerPtr before(static_cast<ASN1_INTEGER*>(X509_CRL_get_ext_d2i(old, NID_crl_number, nullptr, nullptr)));
        number = before ? ASN1_INTEGER_get(before.get()) + 1 : 1;
    }
    CrlPtr crl(X509_CRL_new());
    const TimePtr from(ASN1_TIME_set(nullptr, validity.from));
    const TimePtr to(ASN1_TIME_set(nullptr, validity.to));
    const IntegerPtr asn1_number(ASN1_INTEGER_new());
    if (!crl || !from || !to || !asn1_number || X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2) != 1 ||
        X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(&ca)) != 1 ||
        X509_CRL_set1_lastUpdate(crl.get(), from.get()) != 1 || X509_CRL_set1_nextUpdate(crl.get(), to.get()) != 1 ||
        ASN1_INTEGER_set(asn1_number.get(), number) != 1 ||
        X509_CRL_add1_ext_i2d(crl.get(), NID_crl_number, asn1_number.get(), 0, 0) != 1)
        return out_of_luck("cannot make a revocation list");
    STACK_OF(X509_REVOKED)* entries = old != nullptr ? X509_CRL_get_REVOKED(old) : nullptr;
    for (int i = 0; entries != nullptr && i < sk_X509_REVOKED_num(entries); ++i) {
        RevokedPtr entry(X509_REVOKED_dup(sk_X509_REVOKED_value(entries, i)));
        if (!entry || X509_CRL_add0_revoked(crl.get(), entry.get()) != 1)
            return out_of_luck("cannot copy a revocation");
        (void)entry.release();
    }
    if (add != nullptr) {
        RevokedPtr entry(X509_REVOKED_new());
        if (!entry || X509_REVOKED_set_serialNumber(entry.get(), const_cast<ASN1_INTEGER*>(X509_get0_serialNumber(add))) != 1 ||
            X509_REVOKED_set_revocationDate(entry.get(), from.get()) != 1 ||
            X509_CRL_add0_revoked(crl.get(), entry.get()) != 1)
            return out_of_luck("cannot add a revocation");
        (void)entry.release();
    }
    X509_CRL_sort(crl.get());
    if (X509_CRL_sign(crl.get(), &ca_key, digest_for(ca_key)) == 0)
        return out_of_luck("cannot sign a revocation list");
    return crl;
}

Result<std::string> to_pem(const X509& cert) {
    return write_pem([&](BIO* bio) { return PEM_write_bio_X509(bio, &cert); });
}
Result<std::string> to_pem(const EVP_PKEY& key) {
    return write_pem([&](BIO* bio) {
        return PEM_write_bio_PKCS8PrivateKey(bio, &key, nullptr, nullptr, 0, nullptr, nullptr);
    });
}
Result<std::string> to_pem(const X509_CRL& crl) {
    return write_pem([&](BIO* bio) { return PEM_write_bio_X509_CRL(bio, &crl); });
}

Result<std::string> serial_of(const X509& cert) {
    const BnPtr number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(&cert), nullptr));
    char* hex = number ? BN_bn2hex(number.get()) : nullptr;
    if (hex == nullptr)
        return out_of_luck("cannot read a serial");
    std::string text(hex);
    OPENSSL_free(hex);
    return text;
}

}  // namespace blkferry::tls::pki
