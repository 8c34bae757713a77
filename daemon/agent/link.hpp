// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "loop/loop.hpp"
#include "loop/token_bucket.hpp"
#include "proto/frame.hpp"
#include "tls/stream.hpp"

namespace blkferry::agent {

/// Where the link takes the bytes from that it sends. front() may be empty; what it gave stays in place until consume()
/// took it.
class Outbox {
public:
    virtual ~Outbox() = default;
    [[nodiscard]] virtual std::span<const std::byte> front() = 0;
    virtual void consume(std::size_t bytes) = 0;
};

/// One TLS connection to the server that carries frames. Pulls from the outbox as fast as socket and token bucket allow.
///
///     start -> handshake -> on_ready -> frames both ways -> on_closed (once; only destruction is allowed after it)
///
/// Callbacks may destroy the link only by deferring (Loop::post).
class Link {
public:
    struct Handlers {
        std::function<void()> on_ready;
        std::function<void(const proto::FrameReader::View&)> on_frame;
        std::function<void(Error)> on_closed;
    };

    Link(loop::Loop& loop, tls::TlsStream stream, loop::TokenBucket& bucket, Outbox& outbox, Handlers handlers);
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() = default;

    /// The outbox has something (again).
    void kick();
    /// Ends it as if the peer had failed with this error.
    void close(Error why);

    [[nodiscard]] const tls::TlsStream& stream() const noexcept { return stream_; }
    /// Monotonic time of the last byte received.
    [[nodiscard]] std::uint64_t heard_ns() const noexcept { return heard_ns_; }
    /// The token bucket, not the socket, is what holds the link back now.
    [[nodiscard]] bool throttled() const noexcept { return throttled_; }
    /// The socket takes no more now.
    [[nodiscard]] bool blocked() const noexcept { return blocked_; }

private:
    void on_events(std::uint32_t events);
    void handshake();
    void receive();
    void give_frames();
    void send();
    void wait_for(std::uint32_t events);
    void account(std::uint64_t wire_before);

    loop::Loop& loop_;
    tls::TlsStream stream_;
    loop::TokenBucket& bucket_;
    Outbox& outbox_;
    Handlers handlers_;
    proto::FrameReader reader_;
    std::vector<std::byte> buffer_;
    bool established_ = false;
    bool closed_ = false;
    bool sending_ = false;
    bool throttled_ = false;
    bool blocked_ = false;
    bool read_wants_write_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::size_t committed_ = 0;  ///< bytes of an interrupted write that must be offered again
    std::uint64_t heard_ns_ = 0;
    loop::Watch watch_;
    loop::Timer pace_;
};

}  // namespace blkferry::agent
