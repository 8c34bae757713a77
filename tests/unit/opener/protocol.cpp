// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <array>
#include <cstring>
#include <random>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "opener/protocol.hpp"

using namespace blkferry;
using namespace blkferry::opener;

namespace {

struct Pair {
    Fd a;
    Fd b;
    alignas(8) std::array<std::byte, sizeof(RequestHead) + message_bytes_max> buffer{};
    Pair() {
        std::array<int, 2> fds{};
        BOOST_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()), 0);
        a = Fd(fds[0]);
        b = Fd(fds[1]);
    }
};

template <class Head>
std::vector<std::byte> bytes_of(const Head& head, std::size_t body = 0) {
    std::vector<std::byte> out(sizeof(head) + body);
    std::memcpy(out.data(), &head, sizeof(head));
    return out;
}

/// Of bytes that are there for the time of the call only.
Result<Request> asked(std::vector<std::byte> bytes, bool fd) { return parse_request(bytes, fd); }
Result<Reply> answered(std::vector<std::byte> bytes, bool fd) { return parse_reply(bytes, fd); }

std::size_t open_descriptors() {
    std::size_t n = 0;
    for (int fd = 0; fd < 256; ++fd)
        n += ::fcntl(fd, F_GETFD) >= 0 ? 1U : 0U;
    return n;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(protocol)

BOOST_AUTO_TEST_CASE(requests_and_replies_go_over_a_socket) {
    Pair p;
    std::array<std::byte, 40> message{};
    message[7] = std::byte{9};
    BOOST_REQUIRE(send_request(p.a.get(), Op::module, 0, message, p.a.get()));
    auto got = receive(p.b.get(), p.buffer);
    BOOST_REQUIRE(got);
    BOOST_TEST(static_cast<bool>(got->fd));
    BOOST_TEST((::fcntl(got->fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    const auto request = parse_request(got->bytes, true);
    BOOST_REQUIRE(request);
    BOOST_TEST((request->op == Op::module));
    BOOST_TEST(request->message.size() == 40U);
    BOOST_TEST((request->message[7] == std::byte{9}));
    BOOST_REQUIRE(send_request(p.a.get(), Op::open_ring, 7, {}, -1));
    got = receive(p.b.get(), p.buffer);
    BOOST_TEST(parse_request(got->bytes, false)->disk == 7U);
    BOOST_REQUIRE(send_reply(p.b.get(), Kind::ring, 0, {}, p.b.get()));
    got = receive(p.a.get(), p.buffer);
    BOOST_TEST((parse_reply(got->bytes, static_cast<bool>(got->fd))->kind == Kind::ring));
    const std::string text = "no such disk";
    BOOST_REQUIRE(send_reply(p.b.get(), Kind::refused, ENODEV, std::as_bytes(std::span(text)), -1));
    got = receive(p.a.get(), p.buffer);
    const auto refused = parse_reply(got->bytes, static_cast<bool>(got->fd));
    BOOST_REQUIRE(refused);
    BOOST_TEST(refused->err == ENODEV);
    BOOST_TEST(refused->body.size() == text.size());
    p.b.reset();
    BOOST_TEST(receive(p.a.get(), p.buffer)->bytes.empty());
    BOOST_TEST(send_request(p.a.get(), Op::open_ring, 0, {}, -1).error().sys_errno == EPIPE);
}

BOOST_AUTO_TEST_CASE(every_odd_request_is_refused) {
    const RequestHead good{magic, version, 1, 3, 0};
    BOOST_TEST(asked(bytes_of(good), false).has_value());
    BOOST_TEST(!asked(bytes_of(good), true).has_value());
    for (std::size_t n = 0; n < sizeof(good); ++n) {
        auto cut = bytes_of(good);
        BOOST_TEST(!parse_request(std::span(cut).first(n), false).has_value());
    }
    const auto refused = [](RequestHead head, std::size_t body = 0, bool fd = false) {
        return !asked(bytes_of(head, body), fd).has_value();
    };
    BOOST_TEST(refused({magic + 1, version, 1, 3, 0}));
    BOOST_TEST(refused({magic, version + 1, 1, 3, 0}));
    BOOST_TEST(refused({magic, version, 0, 3, 0}));
    BOOST_TEST(refused({magic, version, 3, 0, 0}));
    BOOST_TEST(refused({magic, version, 0xffff, 0, 0}));
    BOOST_TEST(refused({magic, version, 1, 3, 1}));
    BOOST_TEST(refused({magic, version, 1, 3, 8}, 8));
    BOOST_TEST(refused({magic, version, 2, 1, 8}, 8));
    BOOST_TEST(refused({magic, version, 2, 0, 0xffffffff}, 8));
    BOOST_TEST(refused({magic, version, 2, 0, message_bytes_max + 1}, message_bytes_max + 1));
    BOOST_TEST(!refused({magic, version, 2, 0, message_bytes_max}, message_bytes_max));
    std::mt19937 random(1);
    for (int i = 0; i < 20'000; ++i) {
        std::vector<std::byte> noise(random() % 64);
        for (auto& b : noise)
            b = static_cast<std::byte>(random());
        if (noise.size() >= 6 && i % 2 == 0)  // past the first look
            std::memcpy(noise.data(), &good, 6);
        (void)parse_request(noise, i % 3 == 0);
        (void)parse_reply(noise, i % 3 == 0);
    }
}

BOOST_AUTO_TEST_CASE(every_odd_reply_is_refused) {
    const auto refused = [](ReplyHead head, std::size_t body = 0, bool fd = false) { return !answered(bytes_of(head, body), fd).has_value(); };
    BOOST_TEST(!refused({magic, version, 1, 0, 0}, 0, true));
    BOOST_TEST(refused({magic, version, 1, 0, 0}));           // a ring without its descriptor
    BOOST_TEST(refused({magic, version, 1, 5, 0}, 0, true));
    BOOST_TEST(refused({magic, version, 2, 0, 8}, 8, true));
    BOOST_TEST(refused({magic, version, 2, 1, 8}, 8));
    BOOST_TEST(refused({magic, version, 3, -1, 0}));
    BOOST_TEST(refused({magic, version, 3, 1, text_bytes_max + 1}, text_bytes_max + 1));
    BOOST_TEST(refused({magic, version, 4, 0, 0}));
    BOOST_TEST(refused({magic, version, 2, 0, datagram_bytes_max + 1}, datagram_bytes_max + 1));
}

BOOST_AUTO_TEST_CASE(too_large_and_too_many_descriptors_leave_nothing_open) {
    Pair p;
    const std::vector<std::byte> large(p.buffer.size() + 1);
    BOOST_REQUIRE(::send(p.a.get(), large.data(), large.size(), 0) == static_cast<ssize_t>(large.size()));
    BOOST_TEST(!receive(p.b.get(), p.buffer).has_value());
    for (const std::size_t count : {2U, 4U, 9U}) {
        const std::size_t before = open_descriptors();
        std::vector<int> fds(count, p.a.get());
        std::vector<char> control(CMSG_SPACE(count * sizeof(int)));
        iovec part{p.buffer.data(), 16};
        msghdr m{};
        m.msg_iov = &part;
        m.msg_iovlen = 1;
        m.msg_control = control.data();
        m.msg_controllen = control.size();
        cmsghdr* c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        std::memcpy(CMSG_DATA(c), fds.data(), count * sizeof(int));
        BOOST_REQUIRE(::sendmsg(p.a.get(), &m, 0) == 16);
        BOOST_TEST(!receive(p.b.get(), p.buffer).has_value());
        BOOST_TEST(open_descriptors() == before);
    }
}

BOOST_AUTO_TEST_SUITE_END()
