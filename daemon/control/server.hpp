// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "control/message.hpp"
#include "loop/loop.hpp"

namespace blkferry::control {

/// The answer to one request; move-only. Whoever holds it may answer now or later, from the loop's thread only. Destroying
/// it without an end answers with an error (code io), so no client waits for ever. It may outlive client and server.
class Reply {
public:
    Reply(Reply&&) noexcept;
    Reply& operator=(Reply&&) noexcept;
    Reply(const Reply&) = delete;
    Reply& operator=(const Reply&) = delete;
    ~Reply();

    /// A line before the last one (progress, rows).
    void line(const Json& message);
    /// The last line: the members of `message` (an object) with "ok": true and "end": true.
    void done(const Json& message);
    void done();
    /// The last line: an error.
    void fail(const Error& error);
    /// User number of the client.
    [[nodiscard]] std::uint32_t uid() const noexcept;
    /// done() or fail() was called.
    [[nodiscard]] bool ended() const noexcept;
    /// The client went away: nobody reads the answer. Long work may stop.
    [[nodiscard]] bool abandoned() const noexcept;

private:
    friend class ControlServer;
    struct Slot;
    explicit Reply(std::shared_ptr<Slot> slot) noexcept;
    std::shared_ptr<Slot> slot_;
};

/// A handler takes the request (a JSON object) and owes an answer through `reply`.
using Handler = std::move_only_function<void(const Json& request, Reply reply)>;

struct ServerOptions {
    std::size_t connections_max = 32;
    std::size_t pending_bytes_max = 8U << 20;          ///< unread answers of one client; more: it is dropped
    std::uint64_t line_ns_max = 20'000'000'000;        ///< from the first byte of a request to its end
    std::uint64_t idle_ns_max = 600'000'000'000;       ///< no request under way and none comes: closed
    std::uint64_t stall_ns_max = 30'000'000'000;       ///< answers wait and the client reads nothing: dropped
};

/// JSON lines on a local socket, on a Loop. Requests of one client are handled one after the other.
class ControlServer {
public:
    /// Binds `path` (mode 0600; its folder must exist). A stale socket is replaced; a live one is Errc::exists.
    [[nodiscard]] static Result<std::unique_ptr<ControlServer>> create(loop::Loop& loop, std::filesystem::path path,
                                                                       const ServerOptions& options = {});
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;
    /// Closes all connections and removes the socket.
    ~ControlServer();

    /// Registers the handler of a command; a second one of the same name is a bug.
    void on(std::string command, Handler handler);
    /// Ends the connections as soon as their answers are out; no new ones.
    void shut_down();
    [[nodiscard]] std::size_t connections() const noexcept;

private:
    struct State;
    explicit ControlServer(std::shared_ptr<State> state) noexcept;
    std::shared_ptr<State> state_;
};

}  // namespace blkferry::control
