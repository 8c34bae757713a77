// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "loop/loop.hpp"

namespace blkferry::server {

/// A connection that was accepted: a non-blocking socket and where it comes from.
struct Accepted {
    Fd socket;
    std::string address;  ///< for limits: "192.0.2.1" or "2001:db8::/64"
    std::string peer;     ///< with port
};

/// Listening TCP sockets.
class Listener {
public:
    using Callback = std::move_only_function<void(Accepted)>;
    /// A pause in accepting because the system is short of something (EMFILE, ENOBUFS ...).
    using Trouble = std::move_only_function<void(const Error&)>;

    /// Binds and listens on every address. "[::]" serves IPv4 too and falls back to 0.0.0.0 where IPv6 is off. Waits (blocking) up
    /// to `bind_wait_ns` for an address that is in use.
    [[nodiscard]] static Result<std::unique_ptr<Listener>> create(loop::Loop& loop, const std::vector<std::string>& listen,
                                                                  std::uint64_t bind_wait_ns, Callback accepted, Trouble trouble);
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener() = default;

    /// The ports bound, in the order of the addresses.
    [[nodiscard]] const std::vector<std::uint16_t>& ports() const noexcept { return ports_; }

private:
    struct Socket {
        Fd fd;
        loop::Watch watch;
    };
    explicit Listener(loop::Loop& loop) : loop_(loop) {}
    [[nodiscard]] Result<void> add(const std::string& address, std::uint64_t bind_wait_ns);
    void accept(Socket& socket);
    void pause(int err);

    loop::Loop& loop_;
    Callback accepted_;
    Trouble trouble_;
    std::vector<std::unique_ptr<Socket>> sockets_;
    std::vector<std::uint16_t> ports_;
    loop::Timer resume_;
};

}  // namespace blkferry::server
