// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <thread>

#include <poll.h>
#include <sys/socket.h>

#include "pair.hpp"

using namespace blkferry;
using namespace blkferry::tls;
using namespace blkferry::tls::test;

namespace {

struct Ends {
    World world;
    TlsContext server_context = TlsContext::make_server(world.server()).value();
    TlsContext client_context = TlsContext::make_client(world.source(), "replica").value();
    std::optional<TlsStream> server;
    std::optional<TlsStream> client;

    explicit Ends(std::pair<Fd, Fd> sockets = socket_pair()) {
        server = server_context.wrap(std::move(sockets.first), "client").value();
        client = client_context.wrap(std::move(sockets.second), "server").value();
        const auto h = shake(server, client);
        BOOST_REQUIRE_MESSAGE(h.ok, (h.server_error ? h.server_error->text : "") + "|" +
                                        (h.client_error ? h.client_error->text : ""));
    }
};

// Sends all of `data` from one end to the other with the given sizes of calls; returns what arrived.
std::vector<std::byte> carry(TlsStream& from, TlsStream& to, const std::vector<std::byte>& data, std::size_t write_size,
                             std::size_t read_size) {
    std::vector<std::byte> got;
    std::vector<std::byte> buffer(read_size);
    std::size_t sent = 0;
    while (got.size() < data.size()) {
        bool moved = false;
        if (sent < data.size()) {
            // The buffer moves at each call: a fresh copy of what is left.
            const std::vector<std::byte> copy(data.begin() + static_cast<long>(sent),
                                              data.begin() + static_cast<long>(std::min(data.size(), sent + write_size)));
            const auto w = from.write(copy);
            BOOST_REQUIRE_MESSAGE(w.has_value(), (w ? std::string() : w.error().text));
            BOOST_REQUIRE(w->status == Status::done || w->status == Status::want_write);
            sent += w->bytes;
            moved = w->bytes > 0;
        }
        const auto r = to.read(buffer);
        BOOST_REQUIRE_MESSAGE(r.has_value(), (r ? std::string() : r.error().text));
        if (r->status == Status::done) {
            got.insert(got.end(), buffer.begin(), buffer.begin() + static_cast<long>(r->bytes));
            moved = true;
        }
        if (!moved) {
            pollfd p{to.fd(), POLLIN, 0};
            BOOST_REQUIRE_GT(::poll(&p, 1, 10'000), 0);
        }
    }
    return got;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(stream)

BOOST_AUTO_TEST_CASE(both_ends_know_each_other) {
    Ends e;
    BOOST_TEST(e.server->peer_name() == "web1");
    BOOST_TEST((e.server->peer_role() == Role::source));
    BOOST_TEST(e.client->peer_name() == "replica");
    BOOST_TEST((e.client->peer_role() == Role::server));
    BOOST_TEST(e.server->peer_fingerprint().size() == 64u);
    BOOST_TEST(e.server->peer_fingerprint() != e.client->peer_fingerprint());
    BOOST_TEST(e.server_context.identity().name == "replica");
    BOOST_TEST(e.client_context.not_after() > 0);
}

BOOST_AUTO_TEST_CASE(data_arrives_whole_at_all_sizes) {
    Ends e;
    const auto data = pattern(3'000'001, 7);
    for (const auto& [w, r] : {std::pair<std::size_t, std::size_t>{262144, 262144}, {1000003, 4096}, {16384, 65536},
                               {777, 33333}, {16385, 1}}) {
        BOOST_TEST_CONTEXT(w << "/" << r) {
            const auto part = std::vector(data.begin(), data.begin() + (r == 1 ? 50'000 : 3'000'001));
            BOOST_TEST((carry(*e.client, *e.server, part, w, r) == part));
            BOOST_TEST((carry(*e.server, *e.client, part, w, r) == part));
        }
    }
    BOOST_TEST(e.client->bytes_written() == e.server->bytes_read());
    BOOST_TEST(e.client->wire_bytes_written() == e.server->wire_bytes_read());
    BOOST_TEST(e.client->wire_bytes_written() > e.client->bytes_written());
    // TLS costs little on the wire when calls are large.
    const auto wire = e.client->wire_bytes_written();
    const auto big = pattern(1 << 20, 9);
    BOOST_TEST((carry(*e.client, *e.server, big, 1 << 20, 1 << 20) == big));
    BOOST_TEST(e.client->wire_bytes_written() - wire < (1 << 20) * 101 / 100);
}

BOOST_AUTO_TEST_CASE(a_full_socket_says_want_write) {
    Ends e;
    const auto data = pattern(8 << 20, 3);
    std::size_t sent = 0;
    Status last = Status::done;
    while (sent < data.size()) {
        const auto w = e.client->write(std::span(data).subspan(sent));
        BOOST_REQUIRE(w);
        last = w->status;
        if (w->bytes == 0)
            break;
        sent += w->bytes;
    }
    BOOST_TEST((last == Status::want_write));
    BOOST_TEST(sent < data.size());
    // Goes on where it was once the other end reads.
    std::vector<std::byte> got;
    std::vector<std::byte> buffer(100'000);
    while (got.size() < data.size()) {
        const auto r = e.server->read(buffer);
        BOOST_REQUIRE(r);
        if (r->status == Status::done)
            got.insert(got.end(), buffer.begin(), buffer.begin() + static_cast<long>(r->bytes));
        if (sent < data.size()) {
            const auto w = e.client->write(std::span(data).subspan(sent));
            BOOST_REQUIRE(w);
            sent += w->bytes;
        }
    }
    BOOST_TEST((got == data));
}

BOOST_AUTO_TEST_CASE(nothing_there_says_want_read_and_pending_tells_the_rest) {
    Ends e;
    std::array<std::byte, 10> small{};
    BOOST_TEST((e.server->read(small)->status == Status::want_read));
    const auto data = pattern(100, 1);
    BOOST_TEST(e.client->write(data)->bytes == 100u);
    BOOST_TEST(e.server->read(small)->bytes == 10u);
    BOOST_TEST(e.server->pending());
    std::array<std::byte, 200> rest{};
    BOOST_TEST(e.server->read(rest)->bytes == 90u);
    BOOST_TEST(!e.server->pending());
}

BOOST_AUTO_TEST_CASE(end_of_stream_with_and_without_close_notify) {
    for (const bool polite : {true, false}) {
        Ends e;
        const auto data = pattern(50'000, 1);
        BOOST_TEST(e.client->write(data)->bytes == data.size());
        if (polite)
            BOOST_TEST((e.client->shutdown()->status == Status::done));
        e.client.reset();
        std::vector<std::byte> buffer(60'000);
        const auto first = e.server->read(buffer);
        BOOST_REQUIRE(first);
        BOOST_TEST(first->bytes == data.size());
        const auto second = e.server->read(buffer);
        BOOST_REQUIRE(second);
        BOOST_TEST((second->status == Status::closed));
        BOOST_TEST((e.server->read(buffer)->status == Status::closed));
    }
}

BOOST_AUTO_TEST_CASE(writing_to_a_closed_peer_is_an_error_and_no_signal) {
    std::signal(SIGPIPE, SIG_DFL);
    Ends e;
    e.server.reset();
    const auto data = pattern(1 << 20, 1);
    Result<Step> r = Step{};
    for (int i = 0; i < 100 && r; ++i)
        r = e.client->write(data);
    BOOST_REQUIRE(!r);
    BOOST_TEST((r.error().code == Errc::closed));
    BOOST_TEST(r.error().text.find("server") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(garbage_behind_the_handshake_is_an_error) {
    Ends e;
    const auto data = pattern(10'000, 1);
    BOOST_TEST(e.client->write(data)->bytes == data.size());
    const std::array<std::uint8_t, 40> junk = {0x17, 3, 3, 0, 35, 1, 2, 3};
    BOOST_REQUIRE_EQUAL(::send(e.client->fd(), junk.data(), junk.size(), 0), 40);
    std::vector<std::byte> buffer(20'000);
    // What came before it is delivered, then the error, and the error stays.
    BOOST_TEST(e.server->read(buffer)->bytes == data.size());
    for (int i = 0; i < 2; ++i) {
        const auto r = e.server->read(buffer);
        BOOST_REQUIRE(!r);
        BOOST_TEST((r.error().code == Errc::corrupt));
    }
}

BOOST_AUTO_TEST_CASE(two_threads_over_tcp) {
    Ends e(tcp_pair());
    const auto data = pattern(1 << 20, 5);
    constexpr std::size_t total = 64U << 20;
    std::thread sender([&] {
        std::size_t sent = 0;
        while (sent < total) {
            const auto w = e.client->write(std::span(data).subspan(sent % data.size()));
            if (!w || w->status == Status::closed)
                return;
            sent += w->bytes;
            if (w->bytes == 0) {
                pollfd p{e.client->fd(), POLLOUT, 0};
                (void)::poll(&p, 1, 10'000);
            }
        }
    });
    std::vector<std::byte> buffer(256 << 10);
    std::size_t got = 0;
    bool equal = true;
    while (got < total) {
        const auto r = e.server->read(buffer);
        BOOST_REQUIRE(r);
        if (r->status == Status::want_read) {
            pollfd p{e.server->fd(), POLLIN, 0};
            BOOST_REQUIRE_GT(::poll(&p, 1, 10'000), 0);
            continue;
        }
        BOOST_REQUIRE((r->status == Status::done));
        for (std::size_t i = 0; i < r->bytes; ) {
            const std::size_t at = (got + i) % data.size();
            const std::size_t n = std::min(r->bytes - i, data.size() - at);
            equal = equal && std::equal(buffer.begin() + static_cast<long>(i), buffer.begin() + static_cast<long>(i + n),
                                        data.begin() + static_cast<long>(at));
            i += n;
        }
        got += r->bytes;
    }
    sender.join();
    BOOST_TEST(equal);
}

BOOST_AUTO_TEST_SUITE_END()
