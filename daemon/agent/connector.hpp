// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <sys/socket.h>

#include "agent/workers.hpp"
#include "base/fd.hpp"
#include "config/units.hpp"
#include "loop/loop.hpp"
#include "net/proxy.hpp"

namespace blkferry::agent {

/// Makes one TCP connection: names are resolved in the pool, addresses (IPv6 and IPv4) are tried one after the other. With a proxy its
/// name is resolved, and the server's is left to it.
///
///     start -> resolve each endpoint -> connect address 1 -(error, 5 s)-> address 2 ... -> done(socket or last error)
///                                            | with a proxy: CONNECT, answer within 10 s |
///
/// Destroying it cancels; `done` is called once at most, from the loop.
class Connector {
public:
    struct Connected {
        Fd socket;         ///< non-blocking, TCP_NODELAY
        std::string peer;  ///< "[address]:port", for people
    };
    using Done = std::move_only_function<void(Result<Connected>)>;

    Connector(loop::Loop& loop, WorkerPool& pool, std::vector<config::Endpoint> endpoints,
              std::optional<net::Proxy> proxy, Done done);
    Connector(const Connector&) = delete;
    Connector& operator=(const Connector&) = delete;
    ~Connector();

private:
    struct Address {
        sockaddr_storage raw{};
        socklen_t length = 0;
        std::string text;
        std::string target;  ///< what the proxy is asked for; empty: none
        std::string request;
    };
    struct Resolved {
        std::vector<Address> addresses;
        std::string error;
    };
    static Resolved resolve(const std::vector<config::Endpoint>& endpoints);
    static Resolved resolve_proxy(const std::vector<config::Endpoint>& endpoints, const net::Proxy& proxy);
    void resolved(Resolved result);
    void try_next();
    [[nodiscard]] Result<void> begin_connect(const Address& address);
    void finish_connect();
    void ask_proxy();
    void hear_proxy();
    void next_after(Error why);
    void succeed();
    void failed(std::string why);

    loop::Loop& loop_;
    Done done_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::deque<Address> addresses_;
    std::string text_;  ///< of the address being tried
    std::string target_;
    std::string request_;
    net::ConnectReply reply_;
    Error last_;
    Fd socket_;
    loop::Watch watch_;
    loop::Timer timeout_;
};

}  // namespace blkferry::agent
