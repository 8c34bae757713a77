// SPDX-License-Identifier: Apache-2.0
#include "tools/enroll_client.hpp"

#include <array>
#include <cerrno>
#include <memory>

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/fd.hpp"
#include "control/message.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"
#include "tls/context.hpp"
#include "tls/request.hpp"
#include "tools/output.hpp"

namespace blkferry::tools {

namespace {

constexpr std::uint64_t whole_ms_max = 30'000;
constexpr std::uint64_t connect_ms_max = 5'000;

/// Waits for one event of a socket until a moment on monotonic_ms().
Result<void> wait_for(int fd, short events, std::uint64_t until_ms, std::string_view what) {
    for (;;) {
        const std::uint64_t now = monotonic_ms();
        pollfd p{fd, events, 0};
        const int n = now >= until_ms ? 0 : ::poll(&p, 1, static_cast<int>(until_ms - now));
        if (n > 0)
            return {};
        if (n == 0)
            return fail(Errc::timeout, fmt::format("{}: no answer", what));
        if (errno != EINTR)
            return fail_errno(errno, what);
    }
}

Result<Fd> connect_to(const addrinfo& a, const std::string& what) {
    Fd fd(::socket(a.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno(errno, "cannot make a socket");
    if (::connect(fd.get(), a.ai_addr, a.ai_addrlen) != 0 && errno != EINPROGRESS)
        return fail_errno(errno, fmt::format("cannot connect to {}", what));
    BLKFERRY_TRY(wait_for(fd.get(), POLLOUT, monotonic_ms() + connect_ms_max, fmt::format("cannot connect to {}", what)));
    int err = 0;
    socklen_t length = sizeof(err);
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &err, &length) != 0 || err != 0)
        return fail_errno(err != 0 ? err : errno, fmt::format("cannot connect to {}", what));
    return fd;
}

/// Every address of the name in turn.
Result<Fd> dial(const config::Endpoint& at) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    addrinfo* list = nullptr;
    if (const int rc = ::getaddrinfo(at.host.c_str(), std::to_string(at.port).c_str(), &hints, &list); rc != 0)
        return fail(Errc::not_found, fmt::format("cannot resolve {}: {}", at.host, ::gai_strerror(rc)));
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
    Result<Fd> last = fail(Errc::not_found, fmt::format("{} has no address", at.host));
    for (const addrinfo* a = list; a != nullptr; a = a->ai_next) {
        last = connect_to(*a, at.str());
        if (last)
            return last;
    }
    return last;
}

Result<void> open_tunnel(int fd, const net::Proxy& proxy, const config::Endpoint& server, std::uint64_t until_ms) {
    const std::string request = net::connect_request(proxy, server);
    if (::send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
        return fail_errno(errno, fmt::format("proxy {}", proxy.at.str()));
    net::ConnectReply reply;
    for (;;) {
        BLKFERRY_TRY(wait_for(fd, POLLIN, until_ms, fmt::format("proxy {}", proxy.at.str())));
        std::array<std::byte, 4096> buffer;
        const ssize_t n = ::recv(fd, buffer.data(), buffer.size(), 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return fail(Errc::closed, fmt::format("proxy {}: it closed the connection", proxy.at.str()));
        BLKFERRY_TRY_ASSIGN(const auto state, reply.feed(std::span(buffer).first(static_cast<std::size_t>(n))));
        if (state == net::ConnectReply::State::open)
            return {};
    }
}

/// Drives one step of a stream after the other until one is done.
template <class F>
Result<tls::Step> drive(tls::TlsStream& stream, std::uint64_t until_ms, const std::string& what, F step) {
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const tls::Step s, step());
        if (s.status == tls::Status::done)
            return s;
        if (s.status == tls::Status::closed)
            return fail(Errc::closed, fmt::format("{}: the server closed the connection; is a token open there ('blkferry server tokens')?", what));
        BLKFERRY_TRY(wait_for(stream.fd(), s.status == tls::Status::want_read ? POLLIN : POLLOUT, until_ms, what));
    }
}

Result<proto::CertReply> read_reply(tls::TlsStream& stream, std::uint64_t until_ms, const std::string& what) {
    proto::FrameReader reader;
    std::array<std::byte, 16384> buffer;
    Decompressor decompressor;
    std::vector<std::byte> scratch;
    for (;;) {
        proto::FrameReader::View view;
        BLKFERRY_TRY_ASSIGN(const auto status, reader.next(view));
        if (status == proto::FrameReader::Status::frame) {
            BLKFERRY_TRY_ASSIGN(const auto body, decode_body(view.header, view.wire, decompressor, scratch));
            if (view.header.type == proto::FrameType::error) {
                BLKFERRY_TRY_ASSIGN(const auto e, proto::decode_peer_error(body));
                return fail(control::errc_of(e.code), fmt::format("{}: {}", what, e.text));
            }
            if (view.header.type != proto::FrameType::cert_reply)
                return fail(Errc::invalid, fmt::format("{}: the server sent {}", what, to_string(view.header.type)));
            return proto::decode_cert_reply(body);
        }
        BLKFERRY_TRY_ASSIGN(const tls::Step s, drive(stream, until_ms, what, [&] { return stream.read(buffer); }));
        reader.feed(std::span(buffer).first(s.bytes));
    }
}

}  // namespace

Result<proto::CertReply> ask_for_certificate(const config::Endpoint& server, const std::optional<net::Proxy>& proxy,
                                             const proto::Token& token, const proto::CertRequest& request) {
    BLKFERRY_TRY_ASSIGN(auto context, tls::TlsContext::make_enrolling(token.ca_fingerprint));
    const std::uint64_t until_ms = monotonic_ms() + whole_ms_max;
    const std::string what = server.str();
    BLKFERRY_TRY_ASSIGN(Fd socket, dial(proxy ? proxy->at : server));
    if (proxy)
        BLKFERRY_TRY(open_tunnel(socket.get(), *proxy, server, until_ms));
    BLKFERRY_TRY_ASSIGN(auto stream, context.wrap(std::move(socket), what));
    BLKFERRY_TRY(drive(stream, until_ms, what, [&] { return stream.handshake(); }));
    std::vector<std::byte> body;
    encode(request, body);
    std::vector<std::byte> frame;
    proto::encode_frame(proto::FrameType::cert_request, 0, 0, body, nullptr, frame);
    for (std::size_t sent = 0; sent < frame.size();) {
        BLKFERRY_TRY_ASSIGN(const tls::Step s, drive(stream, until_ms, what, [&] { return stream.write(std::span(frame).subspan(sent)); }));
        sent += s.bytes;
    }
    BLKFERRY_TRY_ASSIGN(auto reply, read_reply(stream, until_ms, what));
    if (!reply.code.empty())
        return fail(control::errc_of(reply.code), fmt::format("{}: {}", what, reply.text));
    // The CA in the answer becomes this source's: it has to be the token's too.
    BLKFERRY_TRY_ASSIGN(const std::string fingerprint, tls::fingerprint_of_pem(reply.ca, "the CA in the answer"));
    if (fingerprint != token.ca_fingerprint)
        return fail(Errc::denied, fmt::format("{}: the CA in the answer is not the one that the token names", what));
    (void)stream.shutdown();
    return reply;
}

}  // namespace blkferry::tools
