// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "control/line_buffer.hpp"
#include "control/server.hpp"
#include "loop/loop.hpp"

namespace blkferry::control {

/// One client of a ControlServer; private to this library. Requests are handled one at a time:
///
///   bytes -> lines -> on_line (busy) -> ... -> request_ended -> next line
///
/// It closes when the client went away, broke the rules or does not read, and after finish() as soon as nothing is owed.
/// A client that only ended its sending side (`nc -N`) still gets its answers.
class Connection : public std::enable_shared_from_this<Connection> {
public:
    struct Hooks {
        std::function<void(Connection&, const std::string& line)> on_line;
        std::function<void(Connection&)> on_close;
    };
    Connection(Fd socket, Hooks hooks, const ServerOptions& options);

    /// User of the client.
    std::uint32_t uid = ~0U;

    void start(loop::Loop& loop);
    void send(std::string line);
    void request_began() noexcept { busy_ = true; }
    void request_ended();
    /// Takes no further request; closes after the answers that are owed.
    void finish();
    /// Closes if the client was silent or deaf for too long, or does not come to the end of its request.
    void sweep(std::uint64_t now_ns);
    void close();
    [[nodiscard]] bool closed() const noexcept { return closed_; }

private:
    void on_events(std::uint32_t events);
    void receive();
    void flush();
    void take_lines();
    void settle();

    Hooks hooks_;
    ServerOptions options_;
    Fd socket_;  // closed after the watch is gone
    loop::Watch watch_;
    LineBuffer lines_;
    std::deque<std::string> out_;
    std::size_t sent_ = 0;     ///< of out_.front()
    std::size_t unread_ = 0;   ///< bytes in out_
    std::uint64_t last_ns_;    ///< when the client last sent or took something
    std::uint64_t line_ns_ = 0;  ///< when the unfinished line in lines_ began
    bool busy_ = false;        ///< a request is under way
    bool taking_ = false;      ///< take_lines() is on the stack
    bool no_more_ = false;     ///< no further request is taken
    bool eof_ = false;         ///< the client sends nothing any more
    bool closed_ = false;
};

}  // namespace blkferry::control
