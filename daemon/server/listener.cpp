// SPDX-License-Identifier: Apache-2.0
#include "server/listener.hpp"

#include <arpa/inet.h>
#include <cerrno>
#include <cstring>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <fmt/format.h>

namespace blkferry::server {

namespace {

constexpr int backlog = 512;
constexpr int accepts_per_turn = 64;
constexpr std::uint64_t pause_ns = 200'000'000;
/// For heartbeats that nobody acknowledges: all that tells of a dead agent while its source is held and it is not read from.
constexpr unsigned user_timeout_ms = 20'000;
constexpr int bind_retry_ms = 50;

Result<std::pair<std::string, std::string>> split(const std::string& address) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon == 0)
        return fail(Errc::invalid, fmt::format("'{}' is not an address with a port", address));
    std::string host = address.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
        host = host.substr(1, host.size() - 2);
    return std::pair(host, address.substr(colon + 1));
}

constexpr int network_bytes = 8;  ///< of an IPv6 address: one customer has at least a /64

/// Whose limits count: an IPv4 address, or the network of an IPv6 address.
std::string group_of(const sockaddr_storage& ss, const std::string& address) {
    if (ss.ss_family != AF_INET6)
        return address;
    sockaddr_in6 in6{};
    std::memcpy(&in6, &ss, sizeof(in6));
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
        return address;
    std::memset(in6.sin6_addr.s6_addr + network_bytes, 0, sizeof(in6.sin6_addr.s6_addr) - network_bytes);
    char text[INET6_ADDRSTRLEN] = "?";
    ::inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
    return fmt::format("{}/64", text);
}

/// Numeric address (IPv4 without its IPv6 wrapping) and port.
std::pair<std::string, std::uint16_t> describe(const sockaddr_storage& ss) {
    char text[INET6_ADDRSTRLEN] = "?";
    if (ss.ss_family == AF_INET) {
        sockaddr_in in{};
        std::memcpy(&in, &ss, sizeof(in));
        ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
        return {text, ntohs(in.sin_port)};
    }
    sockaddr_in6 in6{};
    std::memcpy(&in6, &ss, sizeof(in6));
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
        ::inet_ntop(AF_INET, in6.sin6_addr.s6_addr + 12, text, sizeof(text));
    else
        ::inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
    return {text, ntohs(in6.sin6_port)};
}

void set(int fd, int level, int option, int value) noexcept {
    (void)::setsockopt(fd, level, option, &value, sizeof(value));
}

Result<Fd> bind_one(const addrinfo& a, const std::string& address) {
    Fd fd(::socket(a.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno(errno, fmt::format("cannot make a socket for {}", address));
    set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (a.ai_family == AF_INET6)
        set(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (::bind(fd.get(), a.ai_addr, a.ai_addrlen) != 0 || ::listen(fd.get(), backlog) != 0)
        return fail_errno(errno, fmt::format("cannot listen on {}", address));
    return fd;
}

/// What to do about an address that cannot be had.
std::string advice(int err, const std::string& port) {
    switch (err) {
        case EADDRINUSE:
            return fmt::format("another process has the port: \"ss -ltnp 'sport = :{}'\" names it; end it, or give another address in "
                               "'listen'", port);
        case EADDRNOTAVAIL: return "this machine has no such address: see 'ip address', and give another one in 'listen'";
        case EACCES: return "ports below 1024 need CAP_NET_BIND_SERVICE: give another one in 'listen'";
        default: return {};
    }
}

/// A killed server's sockets live on for a moment while the kernel tears down its io_uring, so a busy port is tried again.
Result<Fd> bind_patiently(const addrinfo& a, const std::string& address, const std::string& port, std::uint64_t wait_ns) {
    const std::uint64_t end = loop::Loop::now_ns() + wait_ns;
    for (;;) {
        Result<Fd> fd = bind_one(a, address);
        if (fd)
            return fd;
        if (fd.error().sys_errno == EADDRINUSE && loop::Loop::now_ns() < end) {
            (void)::poll(nullptr, 0, bind_retry_ms);
            continue;
        }
        if (const std::string what = advice(fd.error().sys_errno, port); !what.empty())
            fd.error().text += "; " + what;
        return fd;
    }
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::create(loop::Loop& loop, const std::vector<std::string>& listen,
                                                   std::uint64_t bind_wait_ns, Callback accepted, Trouble trouble) {
    std::unique_ptr<Listener> l(new Listener(loop));
    l->accepted_ = std::move(accepted);
    l->trouble_ = std::move(trouble);
    for (const std::string& address : listen)
        BLKFERRY_TRY(l->add(address, bind_wait_ns));
    if (l->sockets_.empty())
        return fail(Errc::invalid, "no address to listen on");
    return l;
}

Result<void> Listener::add(const std::string& address, std::uint64_t bind_wait_ns) {
    BLKFERRY_TRY_ASSIGN(const auto parts, split(address));
    addrinfo hints{};
    hints.ai_flags = AI_PASSIVE;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    if (const int r = ::getaddrinfo(parts.first.c_str(), parts.second.c_str(), &hints, &list); r != 0)
        return fail(Errc::invalid, fmt::format("cannot resolve {}: {}", address, ::gai_strerror(r)));
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, ::freeaddrinfo);
    Result<Fd> fd = bind_patiently(*list, address, parts.second, bind_wait_ns);
    if (!fd && fd.error().sys_errno == EAFNOSUPPORT && parts.first == "::")
        return add("0.0.0.0:" + parts.second, bind_wait_ns);
    if (!fd)
        return std::unexpected(std::move(fd).error());
    sockaddr_storage bound{};
    socklen_t length = sizeof(bound);
    if (::getsockname(fd->get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0)
        return fail_errno(errno, fmt::format("cannot read the address of {}", address));
    ports_.push_back(describe(bound).second);
    auto socket = std::make_unique<Socket>();
    socket->fd = std::move(*fd);
    socket->watch = loop_.watch(socket->fd.get(), POLLIN, [this, raw = socket.get()](std::uint32_t) { accept(*raw); });
    sockets_.push_back(std::move(socket));
    return {};
}

void Listener::accept(Socket& socket) {
    for (int i = 0; i < accepts_per_turn; ++i) {
        sockaddr_storage from{};
        socklen_t length = sizeof(from);
        Fd fd(::accept4(socket.fd.get(), reinterpret_cast<sockaddr*>(&from), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!fd) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause(errno);
            return;  // EAGAIN; anything else concerns one connection that is gone already
        }
        set(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
        set(fd.get(), SOL_SOCKET, SO_KEEPALIVE, 1);
        set(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout_ms));
        auto [address, port] = describe(from);
        std::string peer = address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port)
                                                                  : fmt::format("[{}]:{}", address, port);
        accepted_({std::move(fd), group_of(from, address), std::move(peer)});
    }
}

/// Out of descriptors or memory: a level-triggered poll would spin, so wait a little.
void Listener::pause(int err) {
    trouble_(fail_errno(err, "cannot accept connections for the moment").error());
    for (auto& s : sockets_)
        s->watch.set_events(0);
    resume_ = loop_.after(pause_ns, [this] {
        for (auto& s : sockets_)
            s->watch.set_events(POLLIN);
    });
}

}  // namespace blkferry::server
