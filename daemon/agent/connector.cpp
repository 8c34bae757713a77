// SPDX-License-Identifier: Apache-2.0
#include "agent/connector.hpp"

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
constexpr std::size_t addresses_max = 32;

std::string text_of(const addrinfo& a) {
    char host[NI_MAXHOST] = {};
    char port[NI_MAXSERV] = {};
    if (::getnameinfo(a.ai_addr, a.ai_addrlen, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return "?";
    return a.ai_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}
}  // namespace

Connector::Connector(loop::Loop& loop, WorkerPool& pool, std::vector<config::Endpoint> endpoints, Done done)
    : loop_(loop), done_(std::move(done)) {
    auto result = std::make_shared<Resolved>();
    pool.submit([result, endpoints = std::move(endpoints)](WorkerContext&) { *result = resolve(endpoints); },
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

void Connector::resolved(Resolved result) {
    addresses_.assign(std::make_move_iterator(result.addresses.begin()), std::make_move_iterator(result.addresses.end()));
    last_ = Error{Errc::not_found, 0, result.error.empty() ? "no server address is configured" : std::move(result.error)};
    try_next();
}

void Connector::try_next() {
    while (!addresses_.empty()) {
        const Address address = std::move(addresses_.front());
        addresses_.pop_front();
        text_ = address.text;
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
        auto e = fail_errno(err, fmt::format("cannot connect to {}", text_));
        last_ = std::move(e.error());
        watch_.reset();
        timeout_.reset();
        try_next();
        return;
    }
    watch_.reset();
    timeout_.reset();
    if (done_)
        std::exchange(done_, nullptr)(Connected{std::move(socket_), text_});
}

void Connector::failed(std::string why) {
    last_ = Error{Errc::timeout, 0, std::move(why)};
    watch_.reset();
    try_next();
}

}  // namespace blkferry::agent
