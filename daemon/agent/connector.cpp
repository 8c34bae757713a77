// SPDX-License-Identifier: Apache-2.0
#include "agent/connector.hpp"

#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

namespace blkferry::agent {

namespace {
constexpr std::uint64_t attempt_ns_max = 5'000'000'000;
constexpr std::uint64_t proxy_ns_max = 10'000'000'000;
constexpr std::size_t addresses_max = 32;

std::string text_of(const addrinfo& a) {
    char host[NI_MAXHOST] = {};
    char port[NI_MAXSERV] = {};
    if (::getnameinfo(a.ai_addr, a.ai_addrlen, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return "?";
    return a.ai_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}
}  // namespace

Connector::Connector(loop::Loop& loop, WorkerPool& pool, std::vector<config::Endpoint> endpoints, std::optional<net::Proxy> proxy,
                     Done done)
    : loop_(loop), done_(std::move(done)) {
    auto result = std::make_shared<Resolved>();
    pool.submit([result, endpoints = std::move(endpoints), proxy = std::move(proxy)](WorkerContext&) {
            *result = proxy ? resolve_proxy(endpoints, *proxy) : resolve(endpoints);
        },
                [this, result, alive = std::weak_ptr<bool>(alive_)] {
                    if (!alive.expired())
                        resolved(std::move(*result));
                });
}

Connector::~Connector() = default;

Connector::Resolved Connector::resolve(const std::vector<config::Endpoint>& endpoints) {
    Resolved out;
    for (const config::Endpoint& e : endpoints) {
        addrinfo hints{};
        hints.ai_socktype = SOCK_STREAM;
        hints.ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV;
        addrinfo* list = nullptr;
        const std::string port = std::to_string(e.port);
        int rc = ::getaddrinfo(e.host.c_str(), port.c_str(), &hints, &list);
        if (rc != 0) {  // AI_ADDRCONFIG hides addresses of a machine that has nothing but loopback
            hints.ai_flags = AI_NUMERICSERV;
            rc = ::getaddrinfo(e.host.c_str(), port.c_str(), &hints, &list);
        }
        if (rc != 0) {
            out.error = fmt::format("cannot resolve {}: {}", e.host, ::gai_strerror(rc));
            continue;
        }
        for (const addrinfo* a = list; a != nullptr && out.addresses.size() < addresses_max; a = a->ai_next) {
            Address address;
            std::memcpy(&address.raw, a->ai_addr, a->ai_addrlen);
            address.length = a->ai_addrlen;
            address.text = text_of(*a);
            out.addresses.push_back(std::move(address));
        }
        ::freeaddrinfo(list);
    }
    return out;
}

Connector::Resolved Connector::resolve_proxy(const std::vector<config::Endpoint>& endpoints, const net::Proxy& proxy) {
    const Resolved way = resolve({proxy.at});
    Resolved out;
    out.error = way.error;
    for (const config::Endpoint& e : endpoints)
        for (const Address& a : way.addresses) {
            if (out.addresses.size() >= addresses_max)
                break;
            Address address = a;
            address.target = e.str();
            address.request = net::connect_request(proxy, e);
            out.addresses.push_back(std::move(address));
        }
    return out;
}

void Connector::resolved(Resolved result) {
    addresses_.assign(std::make_move_iterator(result.addresses.begin()), std::make_move_iterator(result.addresses.end()));
    last_ = Error{Errc::not_found, 0, result.error.empty() ? "no server address is configured" : std::move(result.error)};
    try_next();
}

void Connector::try_next() {
    while (!addresses_.empty()) {
        const Address address = std::move(addresses_.front());
        addresses_.pop_front();
        text_ = address.target.empty() ? address.text : fmt::format("{} by the proxy {}", address.target, address.text);
        target_ = address.target;
        request_ = address.request;
        reply_ = {};
        if (auto r = begin_connect(address); !r) {
            last_ = std::move(r).error();
            continue;
        }
        watch_ = loop_.watch(socket_.get(), POLLOUT, [this](std::uint32_t) { finish_connect(); });
        timeout_ = loop_.after(attempt_ns_max, [this] { failed(fmt::format("cannot connect to {}: no answer", text_)); });
        return;
    }
    if (done_)
        std::exchange(done_, nullptr)(std::unexpected(std::move(last_)));
}

Result<void> Connector::begin_connect(const Address& address) {
    socket_ = Fd(::socket(address.raw.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!socket_)
        return fail_errno(errno, "cannot make a socket");
    const int on = 1;
    (void)::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    // No TCP_USER_TIMEOUT: it would also end a connection whose server lives but takes nothing for a while, because its disk is
    // full. A dead server is known by its silence (Session::tick), a path that swallows our data by ours (the server ends it).
    if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address.raw), address.length) != 0 &&
        errno != EINPROGRESS)
        return fail_errno(errno, fmt::format("cannot connect to {}", text_));
    return {};
}

void Connector::finish_connect() {
    int err = 0;
    socklen_t length = sizeof(err);
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_ERROR, &err, &length) != 0)
        err = errno;
    if (err != 0) {
        next_after(fail_errno(err, fmt::format("cannot connect to {}", text_)).error());
        return;
    }
    if (target_.empty())
        succeed();
    else
        ask_proxy();
}

void Connector::ask_proxy() {
    // A few hundred bytes into an empty socket: they fit, or the connection is gone.
    const ssize_t n = ::send(socket_.get(), request_.data(), request_.size(), MSG_NOSIGNAL);
    const int err = errno;
    request_.assign(request_.size(), '\0');
    if (n != static_cast<ssize_t>(request_.size())) {
        next_after(fail_errno(n < 0 ? err : EPIPE, fmt::format("cannot ask for {}", text_)).error());
        return;
    }
    watch_ = loop_.watch(socket_.get(), POLLIN, [this](std::uint32_t) { hear_proxy(); });
    timeout_ = loop_.after(proxy_ns_max, [this] { failed(fmt::format("cannot connect to {}: the proxy does not answer", text_)); });
}

void Connector::hear_proxy() {
    std::array<std::byte, 4096> buffer;
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        next_after(n < 0 ? fail_errno(errno, text_).error() : Error{Errc::closed, 0, fmt::format("{}: the proxy closed the connection", text_)});
        return;
    }
    const auto state = reply_.feed(std::span(buffer).first(static_cast<std::size_t>(n)));
    if (!state)
        next_after(Error(state.error()).with(text_));
    else if (*state == net::ConnectReply::State::open)
        succeed();
}

void Connector::succeed() {
    watch_.reset();
    timeout_.reset();
    if (done_)
        std::exchange(done_, nullptr)(Connected{std::move(socket_), text_});
}

void Connector::next_after(Error why) {
    last_ = std::move(why);
    watch_.reset();
    timeout_.reset();
    try_next();
}

void Connector::failed(std::string why) {
    next_after({Errc::timeout, 0, std::move(why)});
}

}  // namespace blkferry::agent
