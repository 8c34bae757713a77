// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "capture/module_channel.hpp"
#include "opener/module_request.hpp"
#include "opener/protocol.hpp"
#include "service/log.hpp"

namespace blkferry::opener {

/// Does for one user what needs CAP_SYS_ADMIN: opens rings of the module, and sends it the requests that are allowed. Keeps nothing: neither
/// rings (the descriptor goes to the peer) nor disks. A thread a connection, of which there are connections_max at most.
class Service {
public:
    static constexpr int connections_max = 8;
    using OpenModule = std::function<Result<std::unique_ptr<capture::ModuleChannel>>()>;

    /// `allowed` is the one user that may connect, root too only if it is that. `log` outlives the service and its threads.
    Service(uid_t allowed, OpenModule open_module, service::Log& log);

    /// Accepts connections at a listening socket until that fails.
    [[nodiscard]] Error serve(const Fd& listener);
    /// One connection, to its end: the peer closed, or sent what is no request of this protocol.
    void converse(Fd peer);

private:
    struct Connection;
    void answer(Connection& c, Received& received);
    void open_ring(Connection& c, std::uint32_t disk);
    void ask_module(Connection& c, std::span<std::byte> message, Fd fd);
    [[nodiscard]] Result<void> relay(Connection& c, const ModuleRequest& request);
    void refuse(Connection& c, std::string_view what, const Error& why);
    void warn(const std::string& line);

    const uid_t allowed_;
    const OpenModule open_module_;
    service::Log& log_;
    std::atomic<int> connections_{0};
    std::mutex warning_;  ///< of what follows
    std::chrono::steady_clock::time_point warned_since_;
    unsigned warned_ = 0;
};

}  // namespace blkferry::opener
