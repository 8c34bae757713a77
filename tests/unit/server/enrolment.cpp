// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <fstream>
#include <sys/stat.h>

#include "base/fd.hpp"
#include "harness.hpp"
#include "server/enrolment.hpp"
#include "../temp_dir.hpp"
#include "tls/request.hpp"

using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;

namespace {

constexpr std::uint64_t hour_ms = 3'600'000;

/// Time that a test moves.
struct HandClock final : Clock {
    std::uint64_t now_ms = SystemClock().realtime_ns() / 1'000'000;
    [[nodiscard]] std::uint64_t monotonic_ns() const noexcept override { return now_ms * 1'000'000; }
    [[nodiscard]] std::uint64_t realtime_ns() const noexcept override { return now_ms * 1'000'000; }
};

struct World {
    blkferry::test::TempDir dir{"enrolment"};
    HandClock clock;
    MemoryLog log;
    std::unique_ptr<Enrolment> enrolment;

    World() {
        BOOST_REQUIRE(tls::pki::init(pki(), "test"));
        open();
    }
    [[nodiscard]] std::filesystem::path pki() const { return dir.path / "pki"; }
    [[nodiscard]] std::filesystem::path audit() const { return dir.path / "audit.log"; }
    void open() {
        auto made = Enrolment::open({.pki = pki(), .audit = audit(), .life_ms = 24 * hour_ms, .server = "replica"}, clock, log);
        BOOST_REQUIRE_MESSAGE(made, (made ? "" : made.error().text));
        enrolment = std::move(*made);
    }
    [[nodiscard]] proto::Token token(const std::string& source = {}, std::uint64_t life_ms = hour_ms) {
        const auto made = enrolment->make_token(source, life_ms, "uid 0");
        BOOST_REQUIRE(made);
        return proto::Token::parse(made->token).value();
    }
    [[nodiscard]] static proto::CertRequest request(const proto::Token& token, const std::string& source) {
        return {.source = source, .csr = tls::make_request({tls::Role::source, source}).value().csr_pem, .token_id = token.id,
                .token_secret = token.secret, .agent_version = "test"};
    }
    [[nodiscard]] std::string audit_text() const { return read_text_file(audit(), 1 << 20).value_or(""); }
    [[nodiscard]] std::size_t certificates() const { return tls::pki::list(pki()).value().size(); }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(enrolment)

BOOST_AUTO_TEST_CASE(a_token_makes_one_certificate_and_is_over_then) {
    World w;
    const auto token = w.token();
    BOOST_TEST(w.enrolment->open_now());
    const auto request = World::request(token, "web1");
    const auto reply = w.enrolment->enrol(request, {"192.0.2.1:5", false});
    BOOST_TEST(reply.code == "");
    BOOST_TEST(reply.server == "replica");
    BOOST_TEST(tls::fingerprint_of_pem(reply.ca, "ca").value() == token.ca_fingerprint);
    // The answer was lost: the same key, also after a restart.
    w.open();
    BOOST_TEST(w.enrolment->enrol(request, {"192.0.2.1:6", true}).cert == reply.cert);
    BOOST_TEST(w.certificates() == 1U);
    // Another key, or another name.
    BOOST_TEST(w.enrolment->enrol(World::request(token, "web1"), {"192.0.2.9:1", true}).code == "denied");
    BOOST_TEST(w.certificates() == 1U);
    const std::string stored = read_text_file(w.pki() / "tokens.json", 1 << 20).value();
    BOOST_TEST(stored.find(token.secret) == std::string::npos);
    BOOST_TEST(w.audit_text().find(token.secret) == std::string::npos);
    BOOST_TEST(w.log.all().find(token.secret) == std::string::npos);
}

BOOST_AUTO_TEST_CASE(time_and_revocation_end_a_token) {
    World w;
    const auto expires = w.token();
    w.clock.now_ms += hour_ms;
    BOOST_TEST(!w.enrolment->open_now());
    BOOST_TEST(w.enrolment->enrol(World::request(expires, "web1"), {"a", false}).text.find("expired") != std::string::npos);
    w.enrolment->sweep();
    w.enrolment->sweep();
    const std::string audit = w.audit_text();
    BOOST_TEST(audit.find("token-expired") != std::string::npos);
    BOOST_TEST(audit.find("token-expired") == audit.rfind("token-expired"));
    const auto revoked = w.token();
    BOOST_REQUIRE(w.enrolment->revoke_token(revoked.id, "uid 0"));
    BOOST_TEST(!w.enrolment->open_now());
    BOOST_TEST(w.enrolment->enrol(World::request(revoked, "web1"), {"a", false}).text.find("revoked") != std::string::npos);
    BOOST_TEST((w.enrolment->revoke_token(revoked.id, "uid 0").error().code == Errc::conflict));
    BOOST_TEST((w.enrolment->revoke_token("0123456789abcdef", "uid 0").error().code == Errc::not_found));
    BOOST_TEST(w.certificates() == 0U);
}

BOOST_AUTO_TEST_CASE(names_are_taken_once_and_bound_tokens_are_for_theirs) {
    World w;
    BOOST_TEST(w.enrolment->enrol(World::request(w.token(), "web1"), {"a", false}).code == "");
    const auto open = w.token();
    BOOST_TEST(w.enrolment->enrol(World::request(open, "web1"), {"a", false}).code == "exists");
    BOOST_TEST(w.enrolment->enrol(World::request(open, "old"), {"a", true}).code == "exists");  // a replica without a certificate
    BOOST_TEST(w.enrolment->enrol(World::request(w.token("web1"), "web2"), {"a", false}).code == "denied");
    BOOST_TEST(w.enrolment->enrol(World::request(w.token("web1"), "web1"), {"a", true}).code == "");
    BOOST_TEST(w.enrolment->enrol(World::request(open, "web2"), {"a", false}).code == "");
    // A request in another's name.
    auto request = World::request(w.token(), "web3");
    request.source = "web4";
    BOOST_TEST(w.enrolment->enrol(request, {"a", false}).text.find("'web3'") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(what_is_not_recorded_is_not_done) {
    World w;
    const auto token = w.token();
    std::filesystem::remove(w.audit());
    std::filesystem::create_directory(w.audit());
    const auto reply = w.enrolment->enrol(World::request(token, "web1"), {"a", false});
    BOOST_TEST(reply.code != "");
    BOOST_TEST(reply.text.find("log says why") != std::string::npos);
    BOOST_TEST(w.certificates() == 0U);
    BOOST_TEST(!w.enrolment->make_token("", hour_ms, "uid 0"));
    std::filesystem::remove(w.audit());
    BOOST_TEST(w.enrolment->enrol(World::request(token, "web1"), {"a", false}).code == "");
}

BOOST_AUTO_TEST_CASE(counts_are_bounded) {
    World w;
    for (std::size_t i = 0; i < TokenStore::open_max; ++i)
        (void)w.token();
    BOOST_TEST((w.enrolment->make_token("", hour_ms, "uid 0").error().code == Errc::no_space));
    for (std::size_t i = 0; i < 2 * TokenStore::kept_max; i += TokenStore::open_max) {
        w.clock.now_ms += 2 * hour_ms;
        for (std::size_t k = 0; k < TokenStore::open_max; ++k)
            (void)w.token();
        BOOST_TEST(w.enrolment->tokens().size() <= TokenStore::kept_max);
    }
    for (int i = 0; i < 100; ++i)
        (void)w.enrolment->enrol(World::request({"0123456789abcdef", std::string(32, '0'), ""}, "web1"), {"a", false});
    const std::string audit = w.audit_text();
    std::size_t refusals = 0;
    for (std::size_t at = audit.find("refused"); at != std::string::npos; at = audit.find("\"refused\"", at + 1))
        ++refusals;
    BOOST_TEST(refusals <= Audit::refusals_max + 1);
    w.clock.now_ms += 61'000;
    (void)w.enrolment->enrol(World::request({"0123456789abcdef", std::string(32, '0'), ""}, "web1"), {"a", false});
    BOOST_TEST(w.audit_text().find("left_out_before") != std::string::npos);
    BOOST_TEST((w.enrolment->make_token("", 10, "").error().code == Errc::invalid));
    BOOST_TEST((w.enrolment->make_token("", 31ULL * 24 * hour_ms, "").error().code == Errc::invalid));
    BOOST_TEST((w.enrolment->make_token("../x", hour_ms, "").error().code == Errc::invalid));
}

BOOST_AUTO_TEST_CASE(renewal_is_for_who_holds_a_valid_certificate) {
    World w;
    BOOST_TEST(w.enrolment->enrol(World::request(w.token(), "web1"), {"a", false}).code == "");
    const std::string serial = tls::pki::list(w.pki()).value().front().serial;
    auto request = World::request({}, "web1");
    BOOST_TEST(w.enrolment->renew(request, "web1", "00", "a").code == "denied");
    BOOST_TEST(w.enrolment->renew(request, "web2", serial, "a").code == "denied");
    const auto reply = w.enrolment->renew(request, "web1", serial, "a");
    BOOST_TEST(reply.code == "");
    BOOST_TEST(w.enrolment->renew(request, "web1", serial, "a").code == "again");
    w.clock.now_ms += 5 * hour_ms;
    BOOST_TEST(w.enrolment->renew(request, "web1", serial, "a").code == "");
    BOOST_TEST(w.enrolment->revoke("web1", "uid 0").value().size() == 3U);
    w.clock.now_ms += 5 * hour_ms;
    BOOST_TEST(w.enrolment->renew(request, "web1", serial, "a").text.find("revoked") != std::string::npos);
    BOOST_TEST((w.enrolment->revoke("web1", "uid 0").error().code == Errc::not_found));
    BOOST_TEST((w.enrolment->revoke("../x", "uid 0").error().code == Errc::invalid));
}

BOOST_AUTO_TEST_CASE(a_damaged_token_file_is_named) {
    World w;
    (void)w.token();
    std::ofstream(w.pki() / "tokens.json") << "{\"tokens\": [{\"id\": 7}]}";
    const auto opened = Enrolment::open({.pki = w.pki(), .audit = w.audit(), .life_ms = hour_ms, .server = "x"}, w.clock, w.log);
    BOOST_REQUIRE(!opened);
    BOOST_TEST((opened.error().code == Errc::corrupt));
    BOOST_TEST(opened.error().text.find("tokens.json") != std::string::npos);
}

BOOST_AUTO_TEST_SUITE_END()
