// SPDX-License-Identifier: Apache-2.0
#include "opener/protocol.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <sys/socket.h>

#include <fmt/format.h>

namespace blkferry::opener {

namespace {

constexpr std::size_t fds_max = 4;  // room for what is too many, so that it can be closed

template <class Head>
Result<Head> head_of(std::span<std::byte> bytes, std::size_t body_max) {
    Head head{};
    if (bytes.size() < sizeof(head))
        return fail(Errc::invalid, fmt::format("a message of {} bytes", bytes.size()));
    std::memcpy(&head, bytes.data(), sizeof(head));
    if (head.magic != magic || head.version != version)
        return fail(Errc::invalid, fmt::format("magic {:#x}, version {}: agent and opener are of different releases", head.magic, head.version));
    if (head.bytes != bytes.size() - sizeof(head) || head.bytes > body_max)
        return fail(Errc::invalid, fmt::format("{} bytes announced, {} there, {} allowed", head.bytes, bytes.size() - sizeof(head), body_max));
    return head;
}

/// One message of a head and a body.
template <class Head>
Result<void> send(int socket, const Head& head, std::span<const std::byte> body, int fd) {
    std::array<iovec, 2> parts{{{const_cast<Head*>(&head), sizeof(head)}, {const_cast<std::byte*>(body.data()), body.size()}}};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr m{};
    m.msg_iov = parts.data();
    m.msg_iovlen = parts.size();
    if (fd >= 0) {
        m.msg_control = control.data();
        m.msg_controllen = control.size();
        cmsghdr* c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(fd));
        std::memcpy(CMSG_DATA(c), &fd, sizeof(fd));
    }
    ssize_t n = 0;
    do
        n = ::sendmsg(socket, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail_errno(errno, "cannot send to the peer of the opener's socket");
    return {};
}

}  // namespace

Result<Request> parse_request(std::span<std::byte> bytes, bool has_fd) {
    BLKFERRY_TRY_ASSIGN(const RequestHead head, head_of<RequestHead>(bytes, message_bytes_max));
    Request r{.op = static_cast<Op>(head.op), .disk = head.disk, .message = bytes.subspan(sizeof(head))};
    switch (r.op) {
        case Op::open_ring:
            if (!r.message.empty() || has_fd)
                return fail(Errc::invalid, "open_ring takes a disk and nothing else");
            return r;
        case Op::module:
            if (head.disk != 0)
                return fail(Errc::invalid, "module takes a netlink message and no disk");
            return r;
    }
    return fail(Errc::invalid, fmt::format("operation {} is not known", head.op));
}

Result<Reply> parse_reply(std::span<std::byte> bytes, bool has_fd) {
    BLKFERRY_TRY_ASSIGN(const ReplyHead head, head_of<ReplyHead>(bytes, datagram_bytes_max));
    Reply r{.kind = static_cast<Kind>(head.kind), .err = head.err, .body = bytes.subspan(sizeof(head))};
    switch (r.kind) {
        case Kind::ring:
            if (!r.body.empty() || !has_fd || r.err != 0)
                return fail(Errc::invalid, "a ring without its descriptor");
            return r;
        case Kind::datagram:
            if (has_fd || r.err != 0)
                return fail(Errc::invalid, "a datagram with an error or a descriptor");
            return r;
        case Kind::refused:
            if (has_fd || r.err < 0 || r.body.size() > text_bytes_max)
                return fail(Errc::invalid, "a malformed refusal");
            return r;
    }
    return fail(Errc::invalid, fmt::format("answer {} is not known", head.kind));
}

Result<void> send_request(int socket, Op op, std::uint32_t disk, std::span<const std::byte> message, int fd) {
    const RequestHead head{magic, version, static_cast<std::uint16_t>(op), disk, static_cast<std::uint32_t>(message.size())};
    return send(socket, head, message, fd);
}

Result<void> send_reply(int socket, Kind kind, int err, std::span<const std::byte> body, int fd) {
    const ReplyHead head{magic, version, static_cast<std::uint16_t>(kind), err, static_cast<std::uint32_t>(body.size())};
    return send(socket, head, body, fd);
}

Result<Received> receive(int socket, std::span<std::byte> buffer) {
    iovec part{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(fds_max * sizeof(int))> control{};
    msghdr m{};
    m.msg_iov = &part;
    m.msg_iovlen = 1;
    m.msg_control = control.data();
    m.msg_controllen = control.size();
    ssize_t n = 0;
    do
        n = ::recvmsg(socket, &m, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail_errno(errno, "cannot receive from the peer of the opener's socket");
    Received out{.bytes = buffer.first(static_cast<std::size_t>(n)), .fd = {}};
    std::size_t fds = 0;
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (std::size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
            out.fd = Fd(fd);  // owns each of them for a moment at least
            ++fds;
        }
    }
    if (fds > 1 || (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return fail(Errc::invalid, "a message that is too large or brings too many descriptors");
    return out;
}

}  // namespace blkferry::opener
