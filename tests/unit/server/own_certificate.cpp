// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fmt/format.h>

#include "base/fd.hpp"
#include "harness.hpp"
#include "server/enrolment.hpp"
#include "server/own_certificate.hpp"
#include "../temp_dir.hpp"
#include "tls/renewal.hpp"
#include "tls/request.hpp"

using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;

namespace {

constexpr std::int64_t day_s = 86'400;
constexpr std::uint64_t year_ms = 365ULL * 86'400'000;
const tls::Identity self{tls::Role::server, "replica"};

/// A server that is its own CA, with certificate and key in a folder of their own.
struct World {
    blkferry::test::TempDir dir{"own-certificate"};
    SystemClock clock;
    MemoryLog log;
    std::unique_ptr<Enrolment> enrolment;
    std::filesystem::path own = dir.path / "own";

    World() {
        BOOST_REQUIRE(tls::pki::init(pki(), "test"));
        std::filesystem::create_directory(own);
        BOOST_REQUIRE(tls::pki::issue(pki(), tls::Role::server, "replica", 1, own));
        auto made = Enrolment::open({.pki = pki(), .audit = dir.path / "audit.log", .life_ms = year_ms, .server = "replica"}, clock, log);
        BOOST_REQUIRE(made);
        enrolment = std::move(*made);
    }
    [[nodiscard]] std::filesystem::path pki() const { return dir.path / "pki"; }
    [[nodiscard]] tls::Files files() const { return {own / "server-replica.pem", own / "server-replica.key", pki() / "ca.pem", {}}; }
    [[nodiscard]] static std::string text(const std::filesystem::path& file) { return read_text_file(file, 1 << 20).value(); }
    [[nodiscard]] std::size_t certificates() const { return tls::pki::list(pki()).value().size(); }
    [[nodiscard]] std::size_t files_there() const {
        return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(own), {}));
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(own_certificate)

BOOST_AUTO_TEST_CASE(a_new_one_takes_the_place_of_the_old_one) {
    World w;
    const auto before = w.text(w.files().cert);
    const auto key = w.text(w.files().key);
    auto context = tls::TlsContext::make_server(w.files()).value();
    const auto ended = context.not_after();
    BOOST_REQUIRE(w.enrolment->renew_own(w.files(), self, year_ms));
    BOOST_TEST(w.text(w.files().cert) != before);
    BOOST_TEST(w.text(w.files().key) == key);
    BOOST_REQUIRE(context.reload());
    BOOST_TEST(context.not_after() - ended > 360 * day_s);
    BOOST_TEST((context.identity() == self));
    BOOST_TEST(w.certificates() == 2U);
    BOOST_TEST(w.files_there() == 2U);
    BOOST_TEST(w.text(w.dir.path / "audit.log").find("server-certificate-renewed") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(in_one_file_the_key_is_new_too) {
    World w;
    const std::filesystem::path both = w.own / "both.pem";
    BOOST_REQUIRE(write_file_durable(both, w.text(w.files().key) + w.text(w.files().cert), 0600));
    const tls::Files files{both, both, w.pki() / "ca.pem", {}};
    const auto before = w.text(both);
    BOOST_REQUIRE(w.enrolment->renew_own(files, self, year_ms));
    struct stat st {};
    BOOST_REQUIRE(::stat(both.c_str(), &st) == 0);
    BOOST_TEST((st.st_mode & 0777) == 0600U);
    BOOST_TEST(w.text(both).substr(0, 200) != before.substr(0, 200));
    BOOST_TEST(tls::TlsContext::make_server(files).has_value());
}

BOOST_AUTO_TEST_CASE(on_a_failure_the_old_one_stays) {
    World w;
    const auto before = w.text(w.files().cert);
    // A key that others may read; one that is not there; a CA without its key.
    BOOST_REQUIRE(::chmod(w.files().key.c_str(), 0644) == 0);
    auto r = w.enrolment->renew_own(w.files(), self, year_ms);
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text.find(w.files().key.string()) != std::string::npos);
    BOOST_REQUIRE(::chmod(w.files().key.c_str(), 0600) == 0);
    std::filesystem::rename(w.files().key, w.own / "away");
    r = w.enrolment->renew_own(w.files(), self, year_ms);
    BOOST_REQUIRE(!r);
    BOOST_TEST((r.error().code == Errc::not_found));
    std::filesystem::rename(w.own / "away", w.files().key);
    std::filesystem::rename(w.pki() / "ca.key", w.own / "away");
    r = w.enrolment->renew_own(w.files(), self, year_ms);
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text.find("ca.key") != std::string::npos);
    std::filesystem::rename(w.own / "away", w.pki() / "ca.key");
    // What cannot be recorded is not done.
    std::filesystem::create_directory(w.own / "audit");
    auto mute = Enrolment::open({.pki = w.pki(), .audit = w.own / "audit", .life_ms = year_ms, .server = "replica"}, w.clock, w.log).value();
    BOOST_TEST(!mute->renew_own(w.files(), self, year_ms).has_value());
    BOOST_TEST(w.text(w.files().cert) == before);
    BOOST_TEST(w.enrolment->renew_own(w.files(), self, year_ms).has_value());
}

BOOST_AUTO_TEST_CASE(on_a_full_disk_the_old_one_stays) {
    World w;
    const std::filesystem::path full = w.dir.path / "full";
    std::filesystem::create_directory(full);
    if (::mount("tmpfs", full.c_str(), "tmpfs", 0, "size=16k,mode=700") != 0) {
        BOOST_TEST_MESSAGE("no right to mount a small file system: not tried");
        return;
    }
    const struct Unmount {
        const std::filesystem::path& path;
        ~Unmount() { ::umount2(path.c_str(), MNT_DETACH); }
    } unmount{full};
    const tls::Files files{full / "server.pem", full / "server.key", w.pki() / "ca.pem", {}};
    BOOST_REQUIRE(write_file_durable(files.cert, w.text(w.files().cert), 0644));
    BOOST_REQUIRE(write_file_durable(files.key, w.text(w.files().key), 0600));
    {
        const auto fill = open_file(full / "fill", O_WRONLY | O_CREAT, 0600).value();
        const std::string block(1024, 'x');
        while (::write(fill.get(), block.data(), block.size()) > 0) {
        }
    }
    const auto before = w.text(files.cert);
    const auto r = w.enrolment->renew_own(files, self, year_ms);
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text.find("cannot be put in place") != std::string::npos);
    BOOST_TEST((r.error().code == Errc::no_space));
    BOOST_TEST(w.text(files.cert) == before);
    BOOST_TEST(tls::TlsContext::make_server(files).has_value());
    std::filesystem::remove(full / "fill");
    BOOST_TEST(w.enrolment->renew_own(files, self, year_ms).has_value());
    BOOST_TEST(w.text(files.cert) != before);
}

BOOST_AUTO_TEST_CASE(who_signed_it_is_seen_whatever_the_dates) {
    World w;
    BOOST_REQUIRE(tls::pki::init(w.dir.path / "other", "other"));
    const auto cert = w.text(w.files().cert);
    BOOST_TEST(tls::is_signed_by(cert, w.text(w.pki() / "ca.pem")));
    BOOST_TEST(!tls::is_signed_by(cert, w.text(w.dir.path / "other" / "ca.pem")));
    BOOST_TEST(tls::is_signed_by(cert, w.text(w.dir.path / "other" / "ca.pem") + w.text(w.pki() / "ca.pem")));
    BOOST_TEST(!tls::is_signed_by("", w.text(w.pki() / "ca.pem")));
    BOOST_TEST(!tls::is_signed_by(cert, "x"));
}

BOOST_AUTO_TEST_CASE(when_it_is_due_and_when_people_are_told) {
    const std::int64_t from = 1'000'000'000;
    const std::int64_t year = from + 365 * day_s;
    BOOST_TEST(tls::renewal_due_s(from, from + 300) == from + 200);
    BOOST_TEST(tls::renewal_retry_s(from, from + 300) == 5U);
    BOOST_TEST(tls::renewal_retry_s(from, year) == 3600U);
    BOOST_TEST(OwnCertificate::warn_s(from, year) == year - 30 * day_s);
    BOOST_TEST(OwnCertificate::warn_s(from, from + 30 * day_s) == from + 20 * day_s);
    BOOST_TEST(OwnCertificate::days_left(year, from) == 365);
    BOOST_TEST(OwnCertificate::days_left(year, year - 1) == 0);
    BOOST_TEST(OwnCertificate::days_left(year, year + 1) == -1);
    OwnCertificate own;
    BOOST_TEST(own.warning(from, year, year - 31 * day_s) == "");
    BOOST_TEST(own.warning(from, year, year - 29 * day_s).find("ends in 29 days") != std::string::npos);
    BOOST_TEST(own.warning(from, year, year).find("has expired") != std::string::npos);
    own.renewable = true;
    BOOST_TEST(own.warning(from, year, year - 1) == "");
    own.error = "no room";
    BOOST_TEST(own.warning(from, year, year - day_s).find("could not be renewed: no room") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()
