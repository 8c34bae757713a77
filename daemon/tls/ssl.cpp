// SPDX-License-Identifier: Apache-2.0
#include "tls/ssl.hpp"

#include <array>
#include <limits>

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>

namespace blkferry::tls {

Error ssl_error(Errc code, std::string_view what) {
    std::string text(what);
    unsigned n = 0;
    while (const unsigned long err = ERR_get_error()) {
        if (n++ >= 4)
            continue;
        const char* reason = ERR_reason_error_string(err);
        text += n == 1 ? ": " : "; ";
        if (reason != nullptr)
            text += reason;
        else
            text += fmt::format("OpenSSL error {:x}", err);
    }
    return Error{code, 0, std::move(text)};
}

std::unexpected<Error> ssl_fail(Errc code, std::string_view what) { return std::unexpected(ssl_error(code, what)); }

namespace {

Result<BioPtr> text_bio(std::string_view text, std::string_view what) {
    if (text.size() > static_cast<std::size_t>(std::numeric_limits<int>::max()))
        return fail(Errc::invalid, fmt::format("{}: too large", what));
    BioPtr bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
    if (!bio)
        return ssl_fail(Errc::io, what);
    return bio;
}

// Without this OpenSSL would ask for a passphrase on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

}  // namespace

Result<std::vector<CertPtr>> parse_certs(std::string_view pem, std::string_view what) {
    BLKFERRY_TRY_ASSIGN(const BioPtr bio, text_bio(pem, what));
    std::vector<CertPtr> certs;
    while (X509* cert = PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr))
        certs.emplace_back(cert);
    const unsigned long err = ERR_peek_last_error();
    if (certs.empty() || ERR_GET_REASON(err) != PEM_R_NO_START_LINE)
        return ssl_fail(Errc::invalid, fmt::format("{}: no certificate in PEM form", what));
    ERR_clear_error();
    return certs;
}

Result<KeyPtr> parse_key(std::string_view pem, std::string_view what) {
    if (pem.find("ENCRYPTED") != std::string_view::npos)
        return fail(Errc::invalid, fmt::format("{}: the key is encrypted; a key without passphrase is needed (protect the "
                                               "file by its mode)",
                                               what));
    BLKFERRY_TRY_ASSIGN(const BioPtr bio, text_bio(pem, what));
    KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
    if (!key)
        return ssl_fail(Errc::invalid, fmt::format("{}: no private key in PEM form", what));
    return key;
}

Result<CrlPtr> parse_crl(std::string_view pem, std::string_view what) {
    BLKFERRY_TRY_ASSIGN(const BioPtr bio, text_bio(pem, what));
    CrlPtr crl(PEM_read_bio_X509_CRL(bio.get(), nullptr, no_passphrase, nullptr));
    if (!crl)
        return ssl_fail(Errc::invalid, fmt::format("{}: no revocation list in PEM form", what));
    return crl;
}

namespace {

/// The one blkferry: URI among the names; empty if there is none.
Result<std::optional<Identity>> identity_in(const GENERAL_NAMES* names, std::string_view what) {
    std::string found;
    const int count = names != nullptr ? sk_GENERAL_NAME_num(names) : 0;
    for (int i = 0; i < count; ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
        const std::string_view text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                                    static_cast<std::size_t>(ASN1_STRING_length(uri)));
        if (!text.starts_with("blkferry:"))
            continue;
        if (!found.empty())
            return fail(Errc::denied, fmt::format("{} carries more than one blkferry: name", what));
        found = text;
    }
    if (found.empty())
        return std::optional<Identity>();
    auto identity = parse_identity(found);
    if (!identity)
        return fail(Errc::denied, fmt::format("{} with a malformed name: {}", what, identity.error().text));
    return std::optional<Identity>(std::move(*identity));
}

}  // namespace

Result<Identity> identity_of(const X509& cert) {
    const NamesPtr names(
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&cert, NID_subject_alt_name, nullptr, nullptr)));
    BLKFERRY_TRY_ASSIGN(auto identity, identity_in(names.get(), "certificate"));
    if (!identity)
        return fail(Errc::denied, "certificate carries no blkferry: name (a URI subject alternative name "
                                  "blkferry:source:<name> or blkferry:server:<name>)");
    return std::move(*identity);
}

Result<std::optional<Identity>> identity_of(const X509_REQ& request) {
    using Extensions = std::unique_ptr<STACK_OF(X509_EXTENSION),
                                       decltype([](STACK_OF(X509_EXTENSION) * s) { sk_X509_EXTENSION_pop_free(s, X509_EXTENSION_free); })>;
    const Extensions extensions(X509_REQ_get_extensions(const_cast<X509_REQ*>(&request)));
    const NamesPtr names(extensions ? static_cast<GENERAL_NAMES*>(X509V3_get_d2i(extensions.get(), NID_subject_alt_name, nullptr, nullptr))
                                    : nullptr);
    return identity_in(names.get(), "certificate request");
}

std::string fingerprint_of(const X509& cert) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    if (X509_digest(&cert, EVP_sha256(), digest.data(), &size) != 1)
        return {};
    std::string hex;
    for (unsigned i = 0; i < size; ++i)
        hex += fmt::format("{:02x}", digest[i]);
    return hex;
}

std::int64_t seconds_of(const ASN1_TIME* time) noexcept {
    std::tm tm{};
    if (time == nullptr || ASN1_TIME_to_tm(time, &tm) != 1)
        return 0;
    return static_cast<std::int64_t>(timegm(&tm));
}

std::string date_text(const ASN1_TIME* time) {
    std::tm tm{};
    if (time == nullptr || ASN1_TIME_to_tm(time, &tm) != 1)
        return "an unknown date";
    return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
                       tm.tm_min);
}

}  // namespace blkferry::tls
