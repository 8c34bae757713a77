// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "machine.hpp"

namespace blkferry::producer {

/// Serves SocketTrackers (capture/socket_protocol.hpp) from a thread of its own. Stops and joins on destruction.
class Server {
public:
    /// The socket is made with mode 0600; a stale one is replaced.
    [[nodiscard]] static Result<std::unique_ptr<Server>> start(Machine& machine, const std::filesystem::path& socket);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

private:
    explicit Server(Machine& machine) : machine_(machine) {}
    void run();
    void serve(const Fd& connection, capture::wire::Message question, bool& subscriber);
    void broadcast(const capture::TrackerEvent& event);

    Machine& machine_;
    std::filesystem::path path_;
    Fd listener_;
    Fd stop_;
    struct Connection {
        Fd fd;
        bool subscriber = false;
    };
    std::mutex lock_;  ///< connections_: events come from writers' threads
    std::map<int, Connection> connections_;
    std::thread thread_;
};

}  // namespace blkferry::producer
