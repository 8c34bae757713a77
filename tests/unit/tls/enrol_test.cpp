// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include "base/fd.hpp"
#include "pair.hpp"
#include "tls/request.hpp"

using namespace blkferry;
using namespace blkferry::tls;
using namespace blkferry::tls::test;

namespace {

struct Ends {
    std::optional<TlsStream> server;
    std::optional<TlsStream> client;
    Handshake shaken;
};

Ends meet(const TlsContext& server, const TlsContext& client, bool may_enrol) {
    auto [a, b] = tcp_pair();
    Ends e;
    e.server.emplace(server.wrap(std::move(a), "client", may_enrol).value());
    e.client.emplace(client.wrap(std::move(b), "server").value());
    e.shaken = shake(e.server, e.client);
    return e;
}

const Identity web2{Role::source, "web2"};

}  // namespace

BOOST_AUTO_TEST_SUITE(enrol)

BOOST_AUTO_TEST_CASE(a_stranger_comes_in_where_it_may_and_trusts_the_pinned_ca_only) {
    World w;
    const auto server = TlsContext::make_server(w.server()).value();
    const std::string pin = pki::ca_fingerprint(w.ca_dir()).value();
    const auto stranger = TlsContext::make_enrolling(pin).value();
    const Ends good = meet(server, stranger, true);
    BOOST_TEST(good.shaken.ok);
    BOOST_TEST(good.server->enrolling());
    BOOST_TEST(good.server->peer_name() == "");
    BOOST_TEST(good.client->peer_name() == "replica");
    BOOST_TEST(!server.is_revoked(*good.server));
    const Ends closed = meet(server, stranger, false);
    BOOST_TEST(!closed.shaken.ok);
    BOOST_REQUIRE(closed.shaken.client_error);
    BOOST_TEST(closed.shaken.client_error->text.find("no token is open") != std::string::npos, closed.shaken.client_error->text);
    const auto other = TlsContext::make_enrolling(std::string(64, '0')).value();
    const Ends between = meet(server, other, true);
    BOOST_TEST(!between.shaken.ok);
    BOOST_REQUIRE(between.shaken.client_error);
    BOOST_TEST(between.shaken.client_error->text.find("not the one that the token names") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(who_plays_the_server_needs_its_role) {
    World w;
    // A certificate of the right CA, but of a source.
    auto files = w.source();
    const auto refused = TlsContext::make_server(files);
    BOOST_TEST(!refused);
    // A server of another CA whose chain also carries the pinned one.
    World other("other");
    auto forged = other.server();
    const std::string chain = read_text_file(forged.cert, 1 << 20).value() + read_text_file(w.ca_dir() / "ca.pem", 1 << 20).value();
    BOOST_REQUIRE(write_file_durable(forged.cert, chain, 0644));
    const auto server = TlsContext::make_server(forged).value();
    const auto stranger = TlsContext::make_enrolling(pki::ca_fingerprint(w.ca_dir()).value()).value();
    const Ends e = meet(server, stranger, true);
    BOOST_TEST(!e.shaken.ok);
    BOOST_REQUIRE(e.shaken.client_error);
    BOOST_TEST((e.shaken.client_error->code == Errc::denied));
}

BOOST_AUTO_TEST_CASE(who_has_a_certificate_is_no_stranger) {
    World w;
    const auto server = TlsContext::make_server(w.server()).value();
    const auto client = TlsContext::make_client(w.source()).value();
    const Ends e = meet(server, client, true);
    BOOST_TEST(e.shaken.ok);
    BOOST_TEST(!e.server->enrolling());
    BOOST_TEST(e.server->peer_name() == "web1");
    BOOST_TEST(!e.server->peer_serial().empty());
}

BOOST_AUTO_TEST_CASE(a_revoked_peer_is_found_in_its_session) {
    World w;
    BOOST_REQUIRE(pki::refresh_crl(w.ca_dir()));
    auto files = w.server();
    files.crl = w.ca_dir() / "ca.crl";
    auto server = TlsContext::make_server(files).value();
    const auto client = TlsContext::make_client(w.source()).value();
    const Ends e = meet(server, client, false);
    BOOST_TEST(e.shaken.ok);
    BOOST_TEST(!server.is_revoked(*e.server));
    BOOST_REQUIRE(pki::revoke(w.ca_dir(), e.server->peer_serial()));
    BOOST_TEST(!server.is_revoked(*e.server));  // not read yet
    BOOST_REQUIRE(server.reload());
    BOOST_TEST(server.is_revoked(*e.server));
}

BOOST_AUTO_TEST_CASE(a_request_becomes_a_certificate_that_fits) {
    World w;
    const Request request = make_request(web2).value();
    const std::string ca = pki::ca_certificate(w.ca_dir()).value();
    const auto made = pki::sign(w.ca_dir(), request.csr_pem, web2, 3600).value();
    BOOST_TEST(check_certificate(made.cert_pem, request.key_pem, ca, web2).has_value());
    BOOST_TEST(pki::issued(w.ca_dir(), made.serial).value() == made.cert_pem);
    BOOST_TEST(!pki::issued(w.ca_dir(), "../ca"));
    // The same key again, from a file with the certificate in it.
    const Request again = make_request(web2, request.key_pem + made.cert_pem, "file").value();
    BOOST_TEST(pki::key_of_request(again.csr_pem).value() == pki::key_of_request(request.csr_pem).value());
    const Request other = make_request(web2).value();
    BOOST_TEST(!check_certificate(made.cert_pem, other.key_pem, ca, web2));
    BOOST_TEST(!check_certificate(made.cert_pem, request.key_pem, ca, {Role::source, "web3"}));
    World foreign("foreign");
    BOOST_TEST(!check_certificate(made.cert_pem, request.key_pem, pki::ca_certificate(foreign.ca_dir()).value(), web2));
    BOOST_TEST((pki::sign(w.ca_dir(), request.csr_pem, {Role::source, "web3"}, 3600).error().code == Errc::denied));
    BOOST_TEST((pki::sign(w.ca_dir(), request.csr_pem, {Role::server, "web2"}, 3600).error().code == Errc::denied));
    BOOST_TEST((pki::sign(w.ca_dir(), std::string(pki::request_bytes_max + 1, 'x'), web2, 3600).error().code == Errc::invalid));
    BOOST_TEST((pki::sign(w.ca_dir(), "nonsense", web2, 3600).error().code == Errc::invalid));
}

BOOST_AUTO_TEST_SUITE_END()
