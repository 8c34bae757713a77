// SPDX-License-Identifier: Apache-2.0
#include "tls/pki.hpp"

#include <algorithm>
#include <array>
#include <cctype>

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "base/hash.hpp"
#include "tls/pki_cert.hpp"
#include "tls/pki_files.hpp"

namespace blkferry::tls::pki {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t pem_bytes_max = 1U << 20;
constexpr mode_t secret_mode = 0600;
/// The daemons read certificates under users of their own; what stays in the CA's folder is behind its mode.
constexpr mode_t public_mode = 0644;
/// Peers' clocks may be behind ours.
constexpr std::time_t clock_slack_s = 3600;
constexpr std::time_t day_s = 86400;

struct Ca {
    CertPtr cert;
    KeyPtr key;
};

Validity validity_of(unsigned days) {
    const std::time_t now = std::time(nullptr);
    return {now - clock_slack_s, now + static_cast<std::time_t>(days) * day_s};
}

Result<void> check_days(unsigned days) {
    if (days < 1 || days > days_max)
        return fail(Errc::invalid, fmt::format("validity of {} days: 1 .. {} possible", days, days_max));
    return {};
}

Result<Ca> open_ca(const fs::path& dir) {
    ERR_clear_error();
    auto cert_pem = read_text_file(dir / "ca.pem", pem_bytes_max);
    if (!cert_pem)
        return std::unexpected(std::move(cert_pem).error().with("no CA here (blkferry pki init makes one)"));
    BLKFERRY_TRY_ASSIGN(auto certs, parse_certs(*cert_pem, (dir / "ca.pem").string()));
    BLKFERRY_TRY_ASSIGN(std::string key_pem, read_text_file(dir / "ca.key", pem_bytes_max));
    auto key = parse_key(key_pem, (dir / "ca.key").string());
    OPENSSL_cleanse(key_pem.data(), key_pem.size());
    if (!key)
        return std::unexpected(std::move(key).error());
    if (X509_check_private_key(certs.front().get(), key->get()) != 1)
        return ssl_fail(Errc::corrupt, fmt::format("{}: ca.key is not the key of ca.pem", dir.string()));
    return Ca{std::move(certs.front()), std::move(*key)};
}

Result<CrlPtr> read_crl(const fs::path& dir) {
    const fs::path path = dir / "ca.crl";
    std::error_code err;
    if (!fs::exists(path, err) && !err)
        return CrlPtr{};
    BLKFERRY_TRY_ASSIGN(const std::string pem, read_text_file(path, pem_bytes_max));
    return parse_crl(pem, path.string());
}

bool in_crl(X509_CRL* crl, X509& cert) {
    X509_REVOKED* found = nullptr;
    return crl != nullptr && X509_CRL_get0_by_cert(crl, &found, &cert) == 1;
}

Result<Listed> describe(const X509& cert, bool revoked) {
    BLKFERRY_TRY_ASSIGN(Identity identity, identity_of(cert));
    BLKFERRY_TRY_ASSIGN(std::string serial, serial_of(cert));
    return Listed{std::move(identity), std::move(serial), seconds_of(X509_get0_notBefore(&cert)),
                  seconds_of(X509_get0_notAfter(&cert)), revoked};
}

struct Paths {
    fs::path cert;
    fs::path key;
};

Result<Paths> new_paths(const fs::path& out, const Identity& identity, bool with_key) {
    const std::string stem = fmt::format("{}-{}", to_string(identity.role), identity.name);
    Paths paths{out / (stem + ".pem"), out / (stem + ".key")};
    for (const fs::path& path : {paths.cert, paths.key}) {
        std::error_code err;
        if (!with_key && path == paths.key)
            continue;
        if (fs::exists(fs::symlink_status(path, err)))
            return fail(Errc::exists, fmt::format("{}: exists already and is not overwritten: move it away first", path.string()));
    }
    return paths;
}

// The CA's own record comes first: whatever left this folder can be revoked.
Result<Issued> record_and_write(const fs::path& dir, X509& cert, Identity identity, const Paths& paths,
                                const std::string* key_pem) {
    BLKFERRY_TRY_ASSIGN(const std::string pem, to_pem(cert));
    BLKFERRY_TRY_ASSIGN(std::string serial, serial_of(cert));
    BLKFERRY_TRY(make_dir(dir / "issued"));
    BLKFERRY_TRY(create_file_durable(dir / "issued" / (serial + ".pem"), pem, public_mode));
    if (key_pem != nullptr)
        BLKFERRY_TRY(create_file_durable(paths.key, *key_pem, secret_mode));
    BLKFERRY_TRY(create_file_durable(paths.cert, pem, public_mode));
    return Issued{std::move(identity), std::move(serial), seconds_of(X509_get0_notAfter(&cert)), paths.cert,
                  key_pem != nullptr ? paths.key : fs::path{}};
}

/// A serial as a file's name: hexadecimal digits, in upper case.
Result<std::string> checked_serial(std::string_view serial) {
    std::string hex(serial);
    std::transform(hex.begin(), hex.end(), hex.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    if (hex.empty() || hex.size() > 40 ||
        !std::all_of(hex.begin(), hex.end(), [](unsigned char c) { return std::isxdigit(c) != 0; }))
        return fail(Errc::invalid, "serial: hexadecimal digits expected (blkferry pki list shows them)");
    return hex;
}

/// Parsed, signed by its own key, which is strong enough.
Result<RequestPtr> parse_request(std::string_view pem, std::string_view what) {
    ERR_clear_error();
    const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
    RequestPtr parsed(bio ? PEM_read_bio_X509_REQ(bio.get(), nullptr, nullptr, nullptr) : nullptr);
    if (!parsed)
        return ssl_fail(Errc::invalid, fmt::format("{}: no certificate request in PEM form", what));
    EVP_PKEY* key = X509_REQ_get0_pubkey(parsed.get());
    if (key == nullptr || X509_REQ_verify(parsed.get(), key) != 1)
        return ssl_fail(Errc::denied, fmt::format("{}: the request is not signed by its own key", what));
    if (EVP_PKEY_get_security_bits(key) < 112)
        return fail(Errc::denied, fmt::format("{}: the key is too weak", what));
    return parsed;
}

Result<RequestPtr> parse_foreign_request(std::string_view pem) {
    if (pem.size() > request_bytes_max)
        return fail(Errc::invalid, fmt::format("certificate request of {} bytes, {} allowed", pem.size(), request_bytes_max));
    return parse_request(pem, "certificate request");
}

Result<Listed> revoke_cert(const fs::path& dir, const Ca& ca, X509& cert) {
    BLKFERRY_TRY_ASSIGN(const CrlPtr old, read_crl(dir));
    if (in_crl(old.get(), cert))
        return describe(cert, true);
    BLKFERRY_TRY_ASSIGN(const CrlPtr crl, make_crl(*ca.cert, *ca.key, old.get(), &cert, validity_of(days_max)));
    BLKFERRY_TRY_ASSIGN(const std::string pem, to_pem(*crl));
    BLKFERRY_TRY(write_file_durable(dir / "ca.crl", pem, public_mode));
    return describe(cert, true);
}

Result<CertPtr> read_issued(const fs::path& path) {
    BLKFERRY_TRY_ASSIGN(const std::string pem, read_text_file(path, pem_bytes_max));
    BLKFERRY_TRY_ASSIGN(auto certs, parse_certs(pem, path.string()));
    return std::move(certs.front());
}

Result<std::vector<CertPtr>> all_issued(const fs::path& dir) {
    std::vector<CertPtr> certs;
    std::error_code err;
    fs::directory_iterator it(dir / "issued", err);
    if (err == std::errc::no_such_file_or_directory)
        return certs;
    for (; !err && it != fs::directory_iterator(); it.increment(err)) {
        if (it->path().extension() != ".pem")
            continue;
        BLKFERRY_TRY_ASSIGN(CertPtr cert, read_issued(it->path()));
        certs.push_back(std::move(cert));
    }
    if (err)
        return fail_errno(err.value(), (dir / "issued").string());
    return certs;
}

}  // namespace

Result<void> init(const fs::path& dir, std::string_view name, unsigned days) {
    BLKFERRY_TRY(check_name(name));
    BLKFERRY_TRY(check_days(days));
    BLKFERRY_TRY(make_dir(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    for (const char* file : {"ca.pem", "ca.key"}) {
        std::error_code err;
        if (fs::exists(fs::symlink_status(dir / file, err)))
            return fail(Errc::exists, fmt::format("{}: there is a CA already; it is not overwritten", (dir / file).string()));
    }
    BLKFERRY_TRY_ASSIGN(const KeyPtr key, make_key());
    BLKFERRY_TRY_ASSIGN(const CertPtr cert, make_ca(*key, name, validity_of(days)));
    BLKFERRY_TRY_ASSIGN(std::string key_pem, to_pem(*key));
    BLKFERRY_TRY_ASSIGN(const std::string cert_pem, to_pem(*cert));
    auto written = create_file_durable(dir / "ca.key", key_pem, secret_mode);
    OPENSSL_cleanse(key_pem.data(), key_pem.size());
    BLKFERRY_TRY(std::move(written));
    return create_file_durable(dir / "ca.pem", cert_pem, public_mode);
}

Result<Issued> issue(const fs::path& dir, Role role, std::string_view name, unsigned days, const fs::path& out) {
    BLKFERRY_TRY(check_name(name));
    BLKFERRY_TRY(check_days(days));
    BLKFERRY_TRY_ASSIGN(const Ca ca, open_ca(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    Identity identity{role, std::string(name)};
    BLKFERRY_TRY(make_dir(out));
    BLKFERRY_TRY_ASSIGN(const Paths paths, new_paths(out, identity, true));
    BLKFERRY_TRY_ASSIGN(const KeyPtr key, make_key());
    BLKFERRY_TRY_ASSIGN(const CertPtr cert, make_cert(*ca.cert, *ca.key, *key, identity, validity_of(days)));
    BLKFERRY_TRY_ASSIGN(std::string key_pem, to_pem(*key));
    auto issued = record_and_write(dir, *cert, std::move(identity), paths, &key_pem);
    OPENSSL_cleanse(key_pem.data(), key_pem.size());
    return issued;
}

Result<Issued> sign_request(const fs::path& dir, const fs::path& request, Role role, std::string_view name,
                            unsigned days, const fs::path& out) {
    BLKFERRY_TRY(check_name(name));
    BLKFERRY_TRY(check_days(days));
    BLKFERRY_TRY_ASSIGN(const Ca ca, open_ca(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    Identity identity{role, std::string(name)};
    BLKFERRY_TRY(make_dir(out));
    BLKFERRY_TRY_ASSIGN(const Paths paths, new_paths(out, identity, false));
    BLKFERRY_TRY_ASSIGN(const std::string pem, read_text_file(request, pem_bytes_max));
    BLKFERRY_TRY_ASSIGN(const RequestPtr parsed, parse_request(pem, request.string()));
    EVP_PKEY* key = X509_REQ_get0_pubkey(parsed.get());
    BLKFERRY_TRY_ASSIGN(const CertPtr cert, make_cert(*ca.cert, *ca.key, *key, identity, validity_of(days)));
    return record_and_write(dir, *cert, std::move(identity), paths, nullptr);
}

Result<Signed> sign(const fs::path& dir, std::string_view request_pem, const Identity& identity, std::uint64_t life_s) {
    BLKFERRY_TRY(check_name(identity.name));
    BLKFERRY_TRY_ASSIGN(const RequestPtr request, parse_foreign_request(request_pem));
    BLKFERRY_TRY_ASSIGN(const auto named, identity_of(*request));
    if (named && *named != identity)
        return fail(Errc::denied, fmt::format("certificate request for {} '{}', but {} '{}' asks", to_string(named->role), named->name,
                                              to_string(identity.role), identity.name));
    BLKFERRY_TRY_ASSIGN(const Ca ca, open_ca(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    const std::time_t now = std::time(nullptr);
    const auto life = static_cast<std::time_t>(std::min<std::uint64_t>(life_s, days_max * std::uint64_t{day_s}));
    const Validity validity{now - std::min(clock_slack_s, life / 10), now + life};
    BLKFERRY_TRY_ASSIGN(const CertPtr cert,
                        make_cert(*ca.cert, *ca.key, *X509_REQ_get0_pubkey(request.get()), identity, validity));
    BLKFERRY_TRY_ASSIGN(std::string pem, to_pem(*cert));
    BLKFERRY_TRY_ASSIGN(std::string serial, serial_of(*cert));
    BLKFERRY_TRY(make_dir(dir / "issued"));
    BLKFERRY_TRY(create_file_durable(dir / "issued" / (serial + ".pem"), pem, public_mode));
    return Signed{std::move(pem), std::move(serial), seconds_of(X509_get0_notAfter(cert.get()))};
}

Result<std::string> key_of_request(std::string_view request_pem) {
    BLKFERRY_TRY_ASSIGN(const RequestPtr request, parse_foreign_request(request_pem));
    unsigned char* der = nullptr;
    const int bytes = i2d_PUBKEY(X509_REQ_get0_pubkey(request.get()), &der);
    if (bytes <= 0)
        return ssl_fail(Errc::invalid, "certificate request");
    const auto hash = sha256(std::as_bytes(std::span(der, static_cast<std::size_t>(bytes))));
    OPENSSL_free(der);
    std::string hex;
    for (const std::byte b : hash)
        hex += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return hex;
}

Result<std::string> issued(const fs::path& dir, std::string_view serial) {
    BLKFERRY_TRY_ASSIGN(const std::string hex, checked_serial(serial));
    return read_text_file(dir / "issued" / (hex + ".pem"), pem_bytes_max);
}

Result<std::string> ca_certificate(const fs::path& dir) { return read_text_file(dir / "ca.pem", pem_bytes_max); }

Result<std::string> ca_fingerprint(const fs::path& dir) {
    BLKFERRY_TRY_ASSIGN(const std::string pem, ca_certificate(dir));
    BLKFERRY_TRY_ASSIGN(const auto certs, parse_certs(pem, (dir / "ca.pem").string()));
    return fingerprint_of(*certs.front());
}

Result<Listed> revoke(const fs::path& dir, std::string_view serial) {
    BLKFERRY_TRY_ASSIGN(const std::string hex, checked_serial(serial));

    BLKFERRY_TRY_ASSIGN(const Ca ca, open_ca(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    BLKFERRY_TRY_ASSIGN(const CertPtr cert, read_issued(dir / "issued" / (hex + ".pem")));
    return revoke_cert(dir, ca, *cert);
}

Result<std::vector<Listed>> revoke(const fs::path& dir, const Identity& identity) {
    BLKFERRY_TRY_ASSIGN(const Ca ca, open_ca(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    BLKFERRY_TRY_ASSIGN(const auto certs, all_issued(dir));
    BLKFERRY_TRY_ASSIGN(const CrlPtr crl, read_crl(dir));
    std::vector<Listed> revoked;
    for (const CertPtr& cert : certs) {
        BLKFERRY_TRY_ASSIGN(const Identity found, identity_of(*cert));
        if (found != identity || in_crl(crl.get(), *cert))
            continue;
        BLKFERRY_TRY_ASSIGN(Listed listed, revoke_cert(dir, ca, *cert));
        revoked.push_back(std::move(listed));
    }
    if (revoked.empty())
        return fail(Errc::not_found, fmt::format("{}: no valid certificate of {} '{}' was issued here", dir.string(),
                                                 to_string(identity.role), identity.name));
    return revoked;
}

Result<void> refresh_crl(const fs::path& dir) {
    BLKFERRY_TRY_ASSIGN(const Ca ca, open_ca(dir));
    BLKFERRY_TRY_ASSIGN(const Fd lock, lock_dir(dir));
    BLKFERRY_TRY_ASSIGN(const CrlPtr old, read_crl(dir));
    BLKFERRY_TRY_ASSIGN(const CrlPtr crl, make_crl(*ca.cert, *ca.key, old.get(), nullptr, validity_of(days_max)));
    BLKFERRY_TRY_ASSIGN(const std::string pem, to_pem(*crl));
    return write_file_durable(dir / "ca.crl", pem, public_mode);
}

Result<std::vector<Listed>> list(const fs::path& dir) {
    BLKFERRY_TRY_ASSIGN(const auto certs, all_issued(dir));
    BLKFERRY_TRY_ASSIGN(const CrlPtr crl, read_crl(dir));
    std::vector<Listed> out;
    for (const CertPtr& cert : certs) {
        BLKFERRY_TRY_ASSIGN(Listed listed, describe(*cert, in_crl(crl.get(), *cert)));
        out.push_back(std::move(listed));
    }
    std::sort(out.begin(), out.end(), [](const Listed& a, const Listed& b) {
        return std::tie(a.not_before, a.serial) < std::tie(b.not_before, b.serial);
    });
    return out;
}

}  // namespace blkferry::tls::pki
