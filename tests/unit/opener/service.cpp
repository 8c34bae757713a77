// SPDX-License-Identifier: Apache-2.0
// The opener's service and the agent's way through it, over real sockets; only the module is not here, so its answers are made up.
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <array>
#include <cstring>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "message.hpp"
#include "opener/service.hpp"

using namespace blkferry;
using namespace blkferry::opener;
using namespace blkferry::opener::test;

namespace {

struct Lines final : service::Log {
    std::mutex mutex;
    std::string all;
    Lines() { set_level(service::Level::debug); }
    void write(service::Level level, std::string_view line) override {
        const std::lock_guard lock(mutex);
        all += std::string(service::to_string(level)) + " " + std::string(line) + "\n";
    }
    bool has(std::string_view text) {
        const std::lock_guard lock(mutex);
        return all.find(text) != std::string::npos;
    }
};

/// A module that acknowledges everything, in two datagrams, and whose ring is /dev/null.
class Acknowledging final : public capture::ModuleChannel {
public:
    explicit Acknowledging(int err) : err_(err) {}
    [[nodiscard]] std::uint16_t family() const noexcept override { return 31; }
    [[nodiscard]] Result<void> send(std::span<std::byte> message, int) override {
        if (err_ != 0)
            return fail_errno(err_, "no module");
        std::memcpy(&asked_, message.data(), sizeof(asked_));
        BOOST_TEST(asked_.nlmsg_type == 31);
        left_ = 2;
        return {};
    }
    [[nodiscard]] Result<std::span<std::byte>> receive() override {
        const bool last = --left_ == 0;
        const std::uint32_t bytes = last ? sizeof(nlmsghdr) + sizeof(nlmsgerr) : attrs_at;
        const nlmsghdr head{.nlmsg_len = bytes, .nlmsg_type = static_cast<std::uint16_t>(last ? NLMSG_ERROR : 31), .nlmsg_flags = 0,
                            .nlmsg_seq = asked_.nlmsg_seq, .nlmsg_pid = 0};
        buffer_ = {};
        std::memcpy(buffer_.data(), &head, sizeof(head));
        return std::span(buffer_).first(bytes);
    }
    [[nodiscard]] Result<Fd> open_ring(std::uint32_t disk) override {
        if (disk > 5)
            return fail_errno(ENOENT, "/dev/blkferry/" + std::to_string(disk));
        return open_file("/dev/null", O_RDWR);
    }

private:
    int err_;
    int left_ = 0;
    nlmsghdr asked_{};
    alignas(8) std::array<std::byte, 64> buffer_{};
};

struct World {
    Lines log;
    Service service;
    Fd socket;
    std::thread thread;
    alignas(8) std::array<std::byte, sizeof(ReplyHead) + datagram_bytes_max> buffer{};

    explicit World(uid_t allowed = ::getuid(), int err = 0)
        : service(allowed, [err]() -> Result<std::unique_ptr<capture::ModuleChannel>> { return std::make_unique<Acknowledging>(err); }, log) {
        std::array<int, 2> fds{};
        BOOST_REQUIRE_EQUAL(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.data()), 0);
        socket = Fd(fds[0]);
        thread = std::thread([this, theirs = Fd(fds[1])]() mutable { service.converse(std::move(theirs)); });
    }
    ~World() { end(); }
    /// The agent goes; returns when the service is done with it.
    void end() {
        socket.reset();
        if (thread.joinable())
            thread.join();
    }
    struct Answer {
        Reply reply;
        Fd fd;
        bool closed = false;
    };
    Answer answer() {
        auto got = receive(socket.get(), buffer);
        if (!got || got->bytes.empty())
            return {.reply = {}, .fd = {}, .closed = true};
        const auto reply = parse_reply(got->bytes, static_cast<bool>(got->fd));
        BOOST_REQUIRE_MESSAGE(reply, (reply ? "" : reply.error().text));
        return {*reply, std::move(got->fd)};
    }
    [[nodiscard]] static std::string text(const Answer& a) {
        return {static_cast<const char*>(static_cast<const void*>(a.reply.body.data())), a.reply.body.size()};
    }
};

}  // namespace

BOOST_AUTO_TEST_SUITE(service)

BOOST_AUTO_TEST_CASE(rings_and_requests) {
    World w;
    BOOST_REQUIRE(send_request(w.socket.get(), Op::open_ring, 2, {}, -1));
    auto ring = w.answer();
    BOOST_TEST((ring.reply.kind == Kind::ring));
    BOOST_TEST(::write(ring.fd.get(), "x", 1) == 1);
    BOOST_REQUIRE(send_request(w.socket.get(), Op::open_ring, 9, {}, -1));
    const auto missing = w.answer();
    BOOST_TEST((missing.reply.kind == Kind::refused));
    BOOST_TEST(missing.reply.err == ENOENT);
    BOOST_TEST(w.text(missing).find("/dev/blkferry/9") != std::string::npos);
    for (int i = 0; i < 3; ++i) {
        Message m(BLKFERRY_CMD_INFO);
        BOOST_REQUIRE(send_request(w.socket.get(), Op::module, 0, m.bytes, -1));
        BOOST_TEST((w.answer().reply.kind == Kind::datagram));
        const auto last = w.answer();
        nlmsghdr head{};
        std::memcpy(&head, last.reply.body.data(), sizeof(head));
        BOOST_TEST(head.nlmsg_type == NLMSG_ERROR);
        BOOST_TEST(head.nlmsg_seq == 5U);
    }
    BOOST_TEST(w.log.has("debug event=request"));
    BOOST_TEST(!w.log.has("warn"));
}

BOOST_AUTO_TEST_CASE(another_user_is_not_heard) {
    World w(::getuid() + 1);
    (void)send_request(w.socket.get(), Op::open_ring, 2, {}, -1);
    BOOST_TEST(w.answer().closed);
    BOOST_TEST(w.log.has("another user"));
}

/// Killed with an answer in its socket: nothing was refused.
BOOST_AUTO_TEST_CASE(an_agent_that_dies_before_it_reads_its_answer_is_not_warned_of) {
    World w;
    BOOST_REQUIRE(send_request(w.socket.get(), Op::open_ring, 1, {}, -1).has_value());
    pollfd readable{w.socket.get(), POLLIN, 0};
    BOOST_REQUIRE_EQUAL(::poll(&readable, 1, 10'000), 1);
    w.end();
    BOOST_TEST(w.log.has("event=disconnected"));
    BOOST_TEST(!w.log.has("event=refused"));
}

BOOST_AUTO_TEST_CASE(garbage_ends_the_connection) {
    for (const std::size_t bytes : {std::size_t{1}, sizeof(RequestHead), std::size_t{5000}, sizeof(RequestHead) + message_bytes_max + 1}) {
        World w;
        const std::vector<std::byte> noise(bytes, std::byte{0x5a});
        BOOST_REQUIRE(::send(w.socket.get(), noise.data(), noise.size(), 0) > 0);
        for (;;) {
            const auto a = w.answer();
            if (a.closed)
                break;
            BOOST_TEST((a.reply.kind == Kind::refused));
        }
        BOOST_TEST(w.log.has("event=refused"));
    }
}

BOOST_AUTO_TEST_CASE(requests_that_are_not_allowed_are_refused_and_the_next_is_served) {
    World w;
    for (const std::uint8_t cmd : {std::uint8_t{0}, static_cast<std::uint8_t>(BLKFERRY_CMD_EVENT), std::uint8_t{200}}) {
        Message m(cmd);
        BOOST_REQUIRE(send_request(w.socket.get(), Op::module, 0, m.bytes, -1));
        const auto a = w.answer();
        BOOST_TEST((a.reply.kind == Kind::refused));
        BOOST_TEST(a.reply.err == 0);
        BOOST_TEST(w.text(a).find("is not allowed") != std::string::npos);
    }
    // ATTACH with something that is no block device.
    Message m = Message(BLKFERRY_CMD_ATTACH).add(BLKFERRY_A_DEV, 8, 8ULL << 32).add(BLKFERRY_A_FD, 4);
    const Fd file = open_file("/dev/null", O_RDONLY).value();
    BOOST_REQUIRE(send_request(w.socket.get(), Op::module, 0, m.bytes, file.get()));
    BOOST_TEST(w.text(w.answer()).find("not one of the block device") != std::string::npos);
    Message info(BLKFERRY_CMD_INFO);
    BOOST_REQUIRE(send_request(w.socket.get(), Op::module, 0, info.bytes, -1));
    BOOST_TEST((w.answer().reply.kind == Kind::datagram));
    BOOST_TEST(w.log.has("event=refused"));
}

BOOST_AUTO_TEST_CASE(what_the_kernel_says_comes_through) {
    World w(::getuid(), EPERM);
    Message info(BLKFERRY_CMD_INFO);
    BOOST_REQUIRE(send_request(w.socket.get(), Op::module, 0, info.bytes, -1));
    const auto a = w.answer();
    BOOST_TEST((a.reply.kind == Kind::refused));
    BOOST_TEST(a.reply.err == EPERM);
}

BOOST_AUTO_TEST_SUITE_END()
