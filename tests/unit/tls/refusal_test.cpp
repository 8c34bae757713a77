// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <cstdlib>

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pair.hpp"

using namespace blkferry;
using namespace blkferry::tls;
using namespace blkferry::tls::test;

namespace {

Handshake meet(const Result<TlsContext>& server, const Result<TlsContext>& client) {
    BOOST_REQUIRE_MESSAGE(server.has_value(), (server ? std::string() : server.error().text));
    BOOST_REQUIRE_MESSAGE(client.has_value(), (client ? std::string() : client.error().text));
    auto sockets = socket_pair();
    std::optional<TlsStream> s = server->wrap(std::move(sockets.first), "the-client").value();
    std::optional<TlsStream> c = client->wrap(std::move(sockets.second), "the-server").value();
    return shake(s, c);
}

void check_text(const std::optional<Error>& error, Errc code, std::string_view part) {
    BOOST_REQUIRE(error);
    BOOST_TEST_CONTEXT(error->text) {
        BOOST_TEST((error->code == code));
        BOOST_TEST(error->text.find(part) != std::string::npos);
    }
}

Files with_cert_of(const Files& files, const Files& other_ca) {
    Files f = files;
    f.ca = other_ca.ca;
    return f;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(refusal)

BOOST_AUTO_TEST_CASE(a_source_of_another_ca) {
    const World ours;
    const World theirs("other");
    const auto h = meet(TlsContext::make_server(ours.server()),
                        TlsContext::make_client(with_cert_of(theirs.source(), ours.server())));
    BOOST_TEST(!h.ok);
    check_text(h.server_error, Errc::denied, "is not signed by the CA");
    check_text(h.server_error, Errc::denied, "the-client");
    check_text(h.client_error, Errc::denied, "refused our certificate: it is not signed by the peer's CA");
}

BOOST_AUTO_TEST_CASE(a_server_of_another_ca) {
    const World ours;
    const World theirs("other");
    const auto h = meet(TlsContext::make_server(theirs.server()), TlsContext::make_client(ours.source()));
    BOOST_TEST(!h.ok);
    check_text(h.client_error, Errc::denied, "is not signed by the CA");
    check_text(h.server_error, Errc::denied, "refused our certificate");
}

BOOST_AUTO_TEST_CASE(the_same_ca_name_with_another_key) {
    const World ours("same");
    const World theirs("same");
    const auto h = meet(TlsContext::make_server(ours.server()),
                        TlsContext::make_client(with_cert_of(theirs.source(), ours.server())));
    BOOST_TEST(!h.ok);
    check_text(h.server_error, Errc::denied, "CA");
}

BOOST_AUTO_TEST_CASE(expired_and_not_yet_valid) {
    const World world;
    world.issue_dated(Role::source, "old", -86400, -60);
    world.issue_dated(Role::source, "early", 86400, 2 * 86400);
    auto h = meet(TlsContext::make_server(world.server()), TlsContext::make_client(world.files(Role::source, "old")));
    check_text(h.server_error, Errc::denied, "certificate of source 'old' expired on ");
    check_text(h.client_error, Errc::denied, "it has expired");
    h = meet(TlsContext::make_server(world.server()), TlsContext::make_client(world.files(Role::source, "early")));
    check_text(h.server_error, Errc::denied, "certificate of source 'early' is valid from ");
}

BOOST_AUTO_TEST_CASE(an_expired_server) {
    const World world;
    world.issue_dated(Role::server, "old", -86400, -60);
    const auto h =
        meet(TlsContext::make_server(world.files(Role::server, "old")), TlsContext::make_client(world.source()));
    check_text(h.client_error, Errc::denied, "certificate of server 'old' expired on ");
}

BOOST_AUTO_TEST_CASE(another_server_than_expected) {
    const World world;
    const auto h = meet(TlsContext::make_server(world.server()), TlsContext::make_client(world.source(), "backup7"));
    check_text(h.client_error, Errc::denied, "certificate of server 'replica': 'backup7' is expected");
    BOOST_TEST(!h.ok);
}

BOOST_AUTO_TEST_CASE(own_certificate_of_the_wrong_role_is_refused_at_load) {
    const World world;
    const auto s = TlsContext::make_server(world.source());
    BOOST_REQUIRE(!s);
    check_text(s.error(), Errc::denied, "one of role server is needed");
    const auto c = TlsContext::make_client(world.server());
    BOOST_REQUIRE(!c);
    check_text(c.error(), Errc::denied, "one of role source is needed");
}

// The contexts refuse to show a certificate of the wrong role, so a peer that does is made of bare OpenSSL.
BOOST_AUTO_TEST_CASE(a_source_that_plays_server_and_a_server_that_plays_source) {
    const World world;
    for (const Role wrong : {Role::source, Role::server}) {
        const bool bare_is_server = wrong == Role::source;
        const Files files = bare_is_server ? world.source() : world.server();
        const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_method()), SSL_CTX_free);
        BOOST_REQUIRE_EQUAL(SSL_CTX_use_certificate_file(context.get(), files.cert.c_str(), SSL_FILETYPE_PEM), 1);
        BOOST_REQUIRE_EQUAL(SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM), 1);
        auto sockets = socket_pair();
        const std::unique_ptr<SSL, void (*)(SSL*)> bare(SSL_new(context.get()), SSL_free);
        SSL_set_fd(bare.get(), sockets.second.get());
        const auto ours = bare_is_server ? TlsContext::make_client(world.source()) : TlsContext::make_server(world.server());
        BOOST_REQUIRE(ours);
        TlsStream stream = ours->wrap(std::move(sockets.first), "bare").value();
        Result<Step> r = Step{};
        for (int i = 0; i < 20 && r; ++i) {
            (void)(bare_is_server ? SSL_accept(bare.get()) : SSL_connect(bare.get()));
            r = stream.handshake();
            BOOST_REQUIRE((!r || r->status != Status::done));
        }
        BOOST_REQUIRE(!r);
        BOOST_TEST((r.error().code == Errc::denied));
        BOOST_TEST_MESSAGE(r.error().text);
    }
}

// A certificate that may be used for both ends: the name in it decides.
BOOST_AUTO_TEST_CASE(a_source_whose_certificate_allows_both_usages) {
    const World world;
    const std::string dir = world.out().string();
    const std::string ca = world.ca_dir().string();
    const auto make = [&](const std::string& stem, const std::string& names) {
        const std::string command = fmt::format(
            "cd {0} && printf 'subjectAltName={3}\nextendedKeyUsage=serverAuth,clientAuth\n' > {2}.ext && "
            "openssl req -new -newkey ed25519 -nodes -subj /CN=x -keyout {2}.key -out {2}.csr >/dev/null 2>&1 && "
            "openssl x509 -req -in {2}.csr -CA {1}/ca.pem -CAkey {1}/ca.key -CAcreateserial -days 1 -extfile {2}.ext "
            "-out {2}.pem >/dev/null 2>&1 && chmod 600 {2}.key",
            dir, ca, stem, names);
        BOOST_REQUIRE_EQUAL(std::system(command.c_str()), 0);
    };
    const auto meet_bare_server = [&](const std::string& stem) {
        const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_method()), SSL_CTX_free);
        BOOST_REQUIRE_EQUAL(SSL_CTX_use_certificate_file(context.get(), (dir + "/" + stem + ".pem").c_str(), SSL_FILETYPE_PEM), 1);
        BOOST_REQUIRE_EQUAL(SSL_CTX_use_PrivateKey_file(context.get(), (dir + "/" + stem + ".key").c_str(), SSL_FILETYPE_PEM), 1);
        auto sockets = socket_pair();
        const std::unique_ptr<SSL, void (*)(SSL*)> bare(SSL_new(context.get()), SSL_free);
        SSL_set_fd(bare.get(), sockets.second.get());
        const auto client = TlsContext::make_client(world.source());
        TlsStream stream = client->wrap(std::move(sockets.first), "bare").value();
        Result<Step> r = Step{};
        for (int i = 0; i < 20 && r; ++i) {
            r = stream.handshake();
            if (r && r->status == Status::done)
                break;
            (void)SSL_accept(bare.get());
        }
        return r;
    };
    make("both", "URI:blkferry:source:web1");
    auto r = meet_bare_server("both");
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::denied, "certificate of source 'web1': a certificate of role server is needed");
    make("two", "URI:blkferry:server:a,URI:blkferry:source:b");
    r = meet_bare_server("two");
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::denied, "more than one");
    make("none", "DNS:localhost");
    r = meet_bare_server("none");
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::denied, "carries no blkferry: name");
    make("fine", "DNS:localhost,URI:blkferry:server:x,URI:https://example.org");
    r = meet_bare_server("fine");
    BOOST_REQUIRE(r);
    BOOST_TEST((r->status == Status::done));
}

BOOST_AUTO_TEST_CASE(no_client_certificate) {
    const World world;
    const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    auto sockets = socket_pair();
    const std::unique_ptr<SSL, void (*)(SSL*)> bare(SSL_new(context.get()), SSL_free);
    SSL_set_fd(bare.get(), sockets.second.get());
    const auto server = TlsContext::make_server(world.server());
    TlsStream stream = server->wrap(std::move(sockets.first), "bare").value();
    Result<Step> r = Step{};
    for (int i = 0; i < 20 && r; ++i) {
        (void)SSL_connect(bare.get());
        r = stream.handshake();
        BOOST_REQUIRE((!r || r->status != Status::done));
    }
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::denied, "the peer shows no certificate");
}

BOOST_AUTO_TEST_CASE(tls_1_2_is_not_offered) {
    const World world;
    const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
    auto sockets = socket_pair();
    const std::unique_ptr<SSL, void (*)(SSL*)> bare(SSL_new(context.get()), SSL_free);
    SSL_set_fd(bare.get(), sockets.second.get());
    const auto server = TlsContext::make_server(world.server());
    TlsStream stream = server->wrap(std::move(sockets.first), "bare").value();
    (void)SSL_connect(bare.get());
    const auto r = stream.handshake();
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::invalid, "TLS 1.3");
}

BOOST_AUTO_TEST_CASE(plaintext_peers) {
    const World world;
    for (const std::string_view text : {"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "hello, is this the server?\n"}) {
        BOOST_TEST_CONTEXT(text) {
            for (const bool as_server : {true, false}) {
                const auto context =
                    as_server ? TlsContext::make_server(world.server()) : TlsContext::make_client(world.source());
                auto sockets = socket_pair();
                TlsStream stream = context->wrap(std::move(sockets.first), "talker").value();
                BOOST_REQUIRE_EQUAL(::send(sockets.second.get(), text.data(), text.size(), 0),
                                    static_cast<ssize_t>(text.size()));
                const auto r = stream.handshake();
                BOOST_REQUIRE(!r);
                check_text(r.error(), Errc::invalid, "does not speak TLS");
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(a_peer_that_hangs_up_during_the_handshake) {
    const World world;
    const auto context = TlsContext::make_server(world.server());
    auto sockets = socket_pair();
    TlsStream stream = context->wrap(std::move(sockets.first), "ghost").value();
    BOOST_TEST((stream.handshake()->status == Status::want_read));
    sockets.second.reset();
    const auto r = stream.handshake();
    BOOST_REQUIRE_MESSAGE(r.has_value(), (r ? std::string() : r.error().text));
    BOOST_TEST((r->status == Status::closed));
}

BOOST_AUTO_TEST_CASE(key_files_that_others_can_read) {
    const World world;
    for (const mode_t mode : {0640U, 0604U, 0660U, 0602U}) {
        BOOST_REQUIRE_EQUAL(::chmod(world.source().key.c_str(), mode), 0);
        const auto r = TlsContext::make_client(world.source());
        BOOST_REQUIRE(!r);
        check_text(r.error(), Errc::denied, "chmod 600");
    }
    BOOST_REQUIRE_EQUAL(::chmod(world.source().key.c_str(), 0400), 0);
    BOOST_TEST(TlsContext::make_client(world.source()).has_value());
}

BOOST_AUTO_TEST_CASE(files_that_do_not_fit) {
    const World world;
    Files f = world.source();
    f.key = world.server().key;
    auto r = TlsContext::make_client(f);
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::invalid, "is not the key of");
    f = world.source();
    f.ca = f.cert;
    r = TlsContext::make_client(f);
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::invalid, "not of a CA");
    f = world.source();
    f.cert = f.key;
    r = TlsContext::make_client(f);
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::invalid, "no certificate");
    f = world.source();
    f.ca = "/nonexistent/ca.pem";
    r = TlsContext::make_client(f);
    BOOST_REQUIRE(!r);
    check_text(r.error(), Errc::not_found, "/nonexistent/ca.pem");
}

BOOST_AUTO_TEST_CASE(revoked_certificates_after_reload) {
    const World world;
    BOOST_REQUIRE(pki::refresh_crl(world.ca_dir()));
    Files files = world.server();
    files.crl = world.ca_dir() / "ca.crl";
    auto server = TlsContext::make_server(files);
    const auto client = TlsContext::make_client(world.source());
    BOOST_TEST(meet(server, client).ok);
    BOOST_REQUIRE(pki::revoke(world.ca_dir(), Identity{Role::source, "web1"}));
    BOOST_TEST(meet(server, client).ok);  // not read yet
    BOOST_REQUIRE(server->reload());
    const auto h = meet(server, client);
    BOOST_TEST(!h.ok);
    check_text(h.server_error, Errc::denied, "certificate of source 'web1' is revoked");
    check_text(h.client_error, Errc::denied, "it is revoked");
    // A reload that fails leaves everything as it was.
    BOOST_REQUIRE_EQUAL(::truncate(files.crl.c_str(), 10), 0);
    BOOST_TEST(!server->reload());
    BOOST_TEST(!meet(server, client).ok);
}

BOOST_AUTO_TEST_SUITE_END()
