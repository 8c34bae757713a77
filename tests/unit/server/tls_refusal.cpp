// SPDX-License-Identifier: Apache-2.0
// Who has no valid certificate of a source gets nothing: no byte of data, no folder, one line in the log.
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <ctime>
#include <poll.h>
#include <sys/socket.h>

#include <openssl/ssl.h>

#include "harness.hpp"
#include "tls/pki.hpp"
#include "tls/pki_cert.hpp"
#include "tls/pki_files.hpp"

using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;

namespace {

struct Stranger {
    std::filesystem::path cert;
    std::filesystem::path key;
};

struct Doors : Harness {
    Doors() { start(); }

    /// A certificate with any role and time, signed by the CA in `ca`.
    Stranger make(const std::string& stem, const tls::Identity& identity, long from_s, long to_s, const std::filesystem::path& ca) {
        auto certs = tls::parse_certs(read_text_file(ca / "ca.pem", 1 << 20).value(), "ca").value();
        const auto ca_key = tls::parse_key(read_text_file(ca / "ca.key", 1 << 20).value(), "ca").value();
        const auto key = tls::pki::make_key().value();
        const std::time_t now = std::time(nullptr);
        const auto cert = tls::pki::make_cert(*certs[0], *ca_key, *key, identity, {now + from_s, now + to_s}).value();
        Stranger s{dir / (stem + ".pem"), dir / (stem + ".key")};
        BOOST_REQUIRE(tls::pki::create_file_durable(s.cert, tls::pki::to_pem(*cert).value(), 0600));
        BOOST_REQUIRE(tls::pki::create_file_durable(s.key, tls::pki::to_pem(*key).value(), 0600));
        return s;
    }

    /// A client of bare OpenSSL, that our own library would not let out, does a handshake and says HELLO for `source`.
    /// Returns how many bytes of the application it was answered.
    std::size_t knock(const Stranger* who, const std::string& source) {
        const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
        if (who != nullptr) {
            BOOST_REQUIRE_EQUAL(SSL_CTX_use_certificate_file(context.get(), who->cert.c_str(), SSL_FILETYPE_PEM), 1);
            BOOST_REQUIRE_EQUAL(SSL_CTX_use_PrivateKey_file(context.get(), who->key.c_str(), SSL_FILETYPE_PEM), 1);
        }
        const unsigned char alpn[] = "\x0a"
                                     "blkferry/1";
        BOOST_REQUIRE_EQUAL(SSL_CTX_set_alpn_protos(context.get(), alpn, sizeof(alpn) - 1), 0);
        const Client tcp = Client::plain(port);
        const std::unique_ptr<SSL, void (*)(SSL*)> ssl(SSL_new(context.get()), SSL_free);
        BOOST_REQUIRE_EQUAL(SSL_set_fd(ssl.get(), tcp.fd()), 1);
        Bytes body;
        encode(hello_of(source), body);
        Bytes hello;
        proto::encode_frame(proto::FrameType::hello, 0, 0, body, nullptr, hello);
        if (!drive(*ssl, [&] { return SSL_connect(ssl.get()); }))
            return 0;
        // Its half of the handshake is over: what the server thinks of the certificate shows in the answer.
        std::size_t got = 0;
        if (!drive(*ssl, [&] { return SSL_write(ssl.get(), hello.data(), static_cast<int>(hello.size())); }))
            return 0;
        for (Bytes buffer(4096);;) {
            int n = 0;
            if (!drive(*ssl, [&] { return n = SSL_read(ssl.get(), buffer.data(), static_cast<int>(buffer.size())); }))
                return got;
            got += static_cast<std::size_t>(n);
        }
    }

    /// After an attempt: one line that says why, nothing made, nobody left; and a source that may is served.
    void refused_once(std::string_view reason, std::size_t sources = 0) {
        BOOST_TEST(until([](Server& s) { return s.sessions() == 0 && s.admission().connections() == 0; }));
        const std::string all = log.all();
        BOOST_TEST_CONTEXT(all) {
            BOOST_TEST(log.count("event=refused") == 1U);
            BOOST_TEST(log.count(" warn ") + log.count("warn server=") + log.count("warn source=") == 1U);
            BOOST_TEST(log.count("error ") == 0U);
            BOOST_TEST(all.find(reason) != std::string::npos);
            BOOST_TEST(all.find("address=127.0.0.1:") != std::string::npos);
        }
        BOOST_TEST(in_loop([](Server& s) { return s.replicas().size(); }) == sources);
        BOOST_TEST(in_loop([](Server& s) { return s.counters().refused_tls; }) == 1U);
        Client good = connect("bystander");
        BOOST_TEST(good.hello(hello_of("bystander")).session == 1U);
    }

private:
    /// Repeats a call of OpenSSL as the non-blocking socket allows. False: it failed or the connection ended.
    static bool drive(SSL& ssl, const std::function<int()>& call) {
        for (int i = 0; i < 1000; ++i) {
            const int r = call();
            if (r > 0)
                return true;
            const int why = SSL_get_error(&ssl, r);
            if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE)
                return false;
            pollfd p{.fd = SSL_get_fd(&ssl), .events = static_cast<short>(why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT), .revents = 0};
            BOOST_REQUIRE_MESSAGE(::poll(&p, 1, 30'000) > 0, "the server neither answers nor closes");
        }
        BOOST_FAIL("the server never ends the connection");
        return false;
    }
};

constexpr long day = 86'400;

}  // namespace

BOOST_FIXTURE_TEST_SUITE(tls_refusal, Doors)

// Without this the others could pass for a reason of the test's own.
BOOST_AUTO_TEST_CASE(the_bare_client_is_answered_with_a_valid_certificate) {
    const auto files = files_of("web-1");
    const Stranger valid{files.cert, files.key};
    // It never closes by itself after WELCOME: end the session from the server's side.
    std::size_t got = 0;
    std::thread client([&] { got = knock(&valid, "web-1"); });
    BOOST_TEST(until([](Server& s) { return s.replicas().contains("web-1") && s.replicas().at("web-1")->report().connected; }));
    Client successor = connect("web-1");
    BOOST_TEST(successor.hello(hello_of("web-1")).session == 2U);
    client.join();
    BOOST_TEST(got > 0U);
    BOOST_TEST(log.count("event=refused") == 0U);
}

BOOST_AUTO_TEST_CASE(an_expired_certificate) {
    const auto s = make("old", {tls::Role::source, "web-1"}, -2 * day, -day, dir / "ca");
    BOOST_TEST(knock(&s, "web-1") == 0U);
    refused_once("certificate of source 'web-1' expired on ");
}

BOOST_AUTO_TEST_CASE(a_certificate_of_tomorrow) {
    const auto s = make("early", {tls::Role::source, "web-1"}, day, 2 * day, dir / "ca");
    BOOST_TEST(knock(&s, "web-1") == 0U);
    refused_once("certificate of source 'web-1' is valid from ");
}

BOOST_AUTO_TEST_CASE(a_server_that_plays_source) {
    const auto s = make("server", {tls::Role::server, "web-1"}, -day, day, dir / "ca");
    BOOST_TEST(knock(&s, "web-1") == 0U);
    refused_once("code=denied");
}

BOOST_AUTO_TEST_CASE(another_ca) {
    BOOST_REQUIRE(tls::pki::init(dir / "ca2", "test", 30));  // of the same name
    const auto s = make("alien", {tls::Role::source, "web-1"}, -day, day, dir / "ca2");
    BOOST_TEST(knock(&s, "web-1") == 0U);
    refused_once("code=denied");
}

BOOST_AUTO_TEST_CASE(no_certificate) {
    BOOST_TEST(knock(nullptr, "web-1") == 0U);
    refused_once("shows no certificate");
}

BOOST_AUTO_TEST_CASE(the_identity_of_another_source) {
    Client web = connect("web-1");
    BOOST_TEST(web.hello(hello_of("web-1")).session == 1U);
    web.close();
    BOOST_TEST(until([](Server& s) { return s.sessions() == 0; }));
    const auto before = in_loop([](Server& s) { return s.counters().refused_tls; });
    BOOST_TEST(before == 0U);
    Client mallory = connect("mallory");
    mallory.send(proto::FrameType::hello, hello_of("web-1"));
    const auto e = mallory.refusal();  // ERROR and the end: no WELCOME, so nothing of what the replica holds
    BOOST_TEST(e.code == "denied");
    BOOST_TEST(e.text.find("session") == std::string::npos);
    refused_once("source 'web-1', but the certificate is of 'mallory'", 1);
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().contains("mallory"); }) == false);
}

BOOST_AUTO_TEST_CASE(plain_tcp) {
    Client c = Client::plain(port);
    Bytes body;
    encode(hello_of("web-1"), body);
    Bytes hello;
    proto::encode_frame(proto::FrameType::hello, 0, 0, body, nullptr, hello);
    c.raw(hello);
    // At most an alert of TLS comes back, then the end.
    Bytes answer(4096);
    std::size_t got = 0;
    for (;;) {
        pollfd p{.fd = c.fd(), .events = POLLIN, .revents = 0};
        BOOST_REQUIRE(::poll(&p, 1, 30'000) > 0);
        const auto n = ::recv(c.fd(), answer.data(), answer.size(), 0);
        if (n <= 0)
            break;
        got += static_cast<std::size_t>(n);
    }
    BOOST_TEST(got <= 7U);
    refused_once("does not speak TLS");
}

BOOST_AUTO_TEST_SUITE_END()
