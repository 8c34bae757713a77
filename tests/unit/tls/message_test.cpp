// SPDX-License-Identifier: Apache-2.0
// Messages that TLS sends for itself, from a peer that is OpenSSL itself and nothing of ours.
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <array>

#include <poll.h>
#include <sys/socket.h>

#include "pair.hpp"
#include "tls/ssl.hpp"

using namespace blkferry;
using namespace blkferry::tls;
using namespace blkferry::tls::test;

namespace {

constexpr unsigned messages_max = 64;

/// A server of ours and a client that has its SSL in the open.
struct Open {
    World world;
    TlsContext context = TlsContext::make_server(world.server()).value();
    ContextPtr raw_context{SSL_CTX_new(TLS_client_method())};
    Fd raw_socket;
    SslPtr raw;
    std::optional<TlsStream> server;

    Open() {
        auto sockets = socket_pair();
        server = context.wrap(std::move(sockets.first), "client").value();
        raw_socket = std::move(sockets.second);
        const int room = 4 << 20;
        BOOST_REQUIRE(::setsockopt(raw_socket.get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room) == 0 ||
                      ::setsockopt(raw_socket.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room) == 0);
        const auto files = world.source();
        BOOST_REQUIRE(SSL_CTX_use_certificate_file(raw_context.get(), files.cert.c_str(), SSL_FILETYPE_PEM) == 1);
        BOOST_REQUIRE(SSL_CTX_use_PrivateKey_file(raw_context.get(), files.key.c_str(), SSL_FILETYPE_PEM) == 1);
        raw.reset(SSL_new(raw_context.get()));
        SSL_set_fd(raw.get(), raw_socket.get());
        SSL_set_connect_state(raw.get());
        bool mine = false;
        for (int round = 0; round < 1000 && !mine; ++round) {
            const bool its = SSL_do_handshake(raw.get()) == 1;
            const auto r = server->handshake();
            BOOST_REQUIRE_MESSAGE(r.has_value(), (r ? std::string() : r.error().text));
            mine = its && r->status == Status::done;
        }
        BOOST_REQUIRE(mine);
    }

    void update(int kind) const {
        BOOST_REQUIRE(SSL_key_update(raw.get(), kind) == 1);
        BOOST_REQUIRE(SSL_do_handshake(raw.get()) == 1);
    }
    void say(std::string_view text) const { BOOST_REQUIRE(SSL_write(raw.get(), text.data(), static_cast<int>(text.size())) > 0); }
    Result<Step> hear() {
        std::array<std::byte, 4096> buffer{};
        return server->read(buffer);
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(messages)

BOOST_AUTO_TEST_CASE(keys_may_be_changed_now_and_then) {
    Open o;
    for (unsigned i = 0; i < messages_max; ++i) {
        o.update(i % 2 == 0 ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED);
        o.say("x");
        const auto r = o.hear();
        BOOST_REQUIRE(r);
        BOOST_TEST(r->bytes == 1u);
        // The other way the answer's new keys are in use.
        const std::array<std::byte, 3> back{};
        BOOST_TEST(o.server->write(back)->bytes == 3u);
        std::array<char, 8> got{};
        BOOST_TEST(SSL_read(o.raw.get(), got.data(), static_cast<int>(got.size())) == 3);
    }
    BOOST_TEST(!o.server->flooded());
}

BOOST_AUTO_TEST_CASE(but_not_without_end) {
    for (const int kind : {SSL_KEY_UPDATE_NOT_REQUESTED, SSL_KEY_UPDATE_REQUESTED}) {
        Open o;
        o.say("before");
        for (unsigned i = 0; i <= messages_max; ++i)
            o.update(kind);
        o.say("behind");
        const auto first = o.hear();
        BOOST_REQUIRE(first);
        BOOST_TEST(first->bytes == 6u);  // what came before it is delivered
        for (int i = 0; i < 2; ++i) {
            const auto r = o.hear();
            BOOST_REQUIRE(!r);
            BOOST_TEST((r.error().code == Errc::invalid));
            BOOST_TEST(r.error().text.find("client: the peer sends TLS messages (KeyUpdate, session tickets) and no data: 65 of them") == 0u);
        }
        BOOST_TEST(o.server->flooded());
    }
}

BOOST_AUTO_TEST_CASE(a_call_takes_a_bounded_amount) {
    Open o;
    const std::string piece(100, 'x');
    std::size_t sent = 0;
    while (SSL_write(o.raw.get(), piece.data(), static_cast<int>(piece.size())) > 0)
        sent += piece.size();
    BOOST_TEST(sent > 10'000u);
    // A large buffer is filled in several calls, each of which tells what it got.
    std::vector<std::byte> buffer(1 << 20);
    std::size_t got = 0;
    while (got < sent) {
        const auto before = o.server->wire_bytes_read();
        const auto r = o.server->read(std::span(buffer).first(1024));
        BOOST_REQUIRE(r);
        BOOST_TEST(o.server->wire_bytes_read() - before <= 1024u + (64u << 10));
        if (r->status == Status::want_read) {  // nothing decrypted by this call, but there is more on the socket
            pollfd p{o.server->fd(), POLLIN, 0};
            BOOST_REQUIRE_EQUAL(::poll(&p, 1, 10'000), 1);
            continue;
        }
        BOOST_REQUIRE((r->status == Status::done));
        got += r->bytes;
    }
    BOOST_TEST(got == sent);
}

BOOST_AUTO_TEST_CASE(a_call_takes_a_bounded_number_of_records) {
    Open o;
    for (int i = 0; i < 600; ++i)
        o.say("x");
    const auto before = o.server->records_read();
    std::size_t got = 0;
    for (int i = 0; i < 3; ++i) {
        const auto r = o.hear();
        BOOST_REQUIRE(r);
        BOOST_TEST(r->bytes <= 256U);
        got += r->bytes;
        BOOST_TEST(o.server->pending() == (i < 2));
    }
    BOOST_TEST(got == 600U);
    BOOST_TEST(o.server->records_read() - before == 600U);
    BOOST_TEST((o.hear()->status == Status::want_read));
}

BOOST_AUTO_TEST_SUITE_END()
