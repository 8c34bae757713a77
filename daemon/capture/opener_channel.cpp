// SPDX-License-Identifier: Apache-2.0
// Through the opener: this process has no capability.
#include <array>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/un.h>

#include <fmt/format.h>

#include "capture/module_channel.hpp"
#include "capture/module_family.hpp"
#include "opener/protocol.hpp"

namespace blkferry::capture {

namespace {

/// Longer than the opener waits for the module.
constexpr int receive_seconds_max = 70;

class OpenerChannel final : public ModuleChannel {
public:
    OpenerChannel(std::string path, std::uint16_t family) : path_(std::move(path)), family_(family) {}

    [[nodiscard]] std::uint16_t family() const noexcept override { return family_; }

    [[nodiscard]] Result<void> send(std::span<std::byte> message, int fd) override { return request(opener::Op::module, 0, message, fd); }

    [[nodiscard]] Result<std::span<std::byte>> receive() override {
        BLKFERRY_TRY_ASSIGN(const Answer answer, reply());
        if (answer.reply.kind != opener::Kind::datagram)
            return odd();
        return answer.reply.body;
    }

    [[nodiscard]] Result<Fd> open_ring(std::uint32_t disk) override {
        BLKFERRY_TRY(request(opener::Op::open_ring, disk, {}, -1));
        BLKFERRY_TRY_ASSIGN(Answer answer, reply());
        if (answer.reply.kind != opener::Kind::ring)
            return odd();
        return std::move(answer.fd);
    }

    [[nodiscard]] Result<void> connect() {
        sockaddr_un to{};
        to.sun_family = AF_UNIX;
        if (path_.size() >= sizeof(to.sun_path))
            return fail(Errc::invalid, fmt::format("the opener's socket {}: the path is too long", path_));
        std::memcpy(to.sun_path, path_.data(), path_.size());
        Fd s(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        const timeval limit{receive_seconds_max, 0};
        if (!s || ::setsockopt(s.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ||
            ::connect(s.get(), static_cast<const sockaddr*>(static_cast<const void*>(&to)), sizeof(to)) != 0)
            return fail_errno(errno, fmt::format("cannot reach the opener at {} (blkferry-opener.socket)", path_));
        socket_ = std::move(s);
        return {};
    }

private:
    struct Answer {
        opener::Reply reply;
        Fd fd;
    };

    std::unexpected<Error> odd() {
        socket_.reset();
        return fail(Errc::corrupt, "the opener's answer is not one to the request");
    }

    [[nodiscard]] Result<void> request(opener::Op op, std::uint32_t disk, std::span<const std::byte> message, int fd) {
        if (socket_) {
            const auto sent = opener::send_request(socket_.get(), op, disk, message, fd);
            if (sent || (sent.error().sys_errno != EPIPE && sent.error().sys_errno != ECONNRESET))
                return sent;
            socket_.reset();  // the opener was restarted meanwhile; it saw nothing of this
        }
        BLKFERRY_TRY(connect());
        return opener::send_request(socket_.get(), op, disk, message, fd);
    }

    [[nodiscard]] Result<Answer> reply() {
        auto got = socket_ ? opener::receive(socket_.get(), buffer_) : Result<opener::Received>(fail(Errc::closed, "no connection"));
        if (!got || got->bytes.empty()) {
            socket_.reset();  // what comes late must not answer the next request
            if (!got)
                return std::unexpected(std::move(got).error().with("the opener"));
            return fail(Errc::closed, "the opener ended while it was asked: its log says why (journalctl -u blkferry-opener)");
        }
        auto parsed = opener::parse_reply(got->bytes, static_cast<bool>(got->fd));
        if (!parsed) {
            socket_.reset();
            return std::unexpected(std::move(parsed).error().with("the opener's answer"));
        }
        if (parsed->kind == opener::Kind::refused) {
            const std::string text(static_cast<const char*>(static_cast<const void*>(parsed->body.data())), parsed->body.size());
            if (parsed->err == 0)
                return fail(Errc::denied, fmt::format("the opener refuses: {}", text));
            return fail_errno(parsed->err, text);
        }
        return Answer{*parsed, std::move(got->fd)};
    }

    const std::string path_;
    const std::uint16_t family_;
    Fd socket_;
    alignas(8) std::array<std::byte, sizeof(opener::ReplyHead) + opener::datagram_bytes_max> buffer_{};
};

}  // namespace

Result<std::unique_ptr<ModuleChannel>> ModuleChannel::through_opener(const std::string& socket) {
    BLKFERRY_TRY_ASSIGN(const std::uint16_t family, module_family());
    auto channel = std::make_unique<OpenerChannel>(socket, family);
    BLKFERRY_TRY(channel->connect());
    return channel;
}

}  // namespace blkferry::capture
