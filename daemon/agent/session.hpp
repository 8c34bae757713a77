// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "agent/backoff.hpp"
#include "agent/connector.hpp"
#include "agent/link.hpp"
#include "agent/shipper.hpp"
#include "config/units.hpp"
#include "loop/token_bucket.hpp"
#include "proto/enrolment.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"
#include "tls/context.hpp"

namespace blkferry::agent {

/// What a session needs of its surroundings. Called in the loop's thread.
class SessionHost {
public:
    virtual ~SessionHost() = default;
    [[nodiscard]] virtual Result<proto::Hello> make_hello() = 0;
    /// An error ends the session.
    [[nodiscard]] virtual Result<void> on_welcome(const proto::Welcome& welcome) = 0;
    /// ACK, EPOCH_RESULT, POINT_RESULT, HASH_REPLY, CERT_REPLY or RETIRE; an error ends the session.
    [[nodiscard]] virtual Result<void> on_frame(proto::FrameType type, std::span<const std::byte> body) = 0;
    virtual void on_heartbeat(const proto::Heartbeat& heartbeat) = 0;
    [[nodiscard]] virtual proto::Heartbeat make_heartbeat() = 0;
    /// The session (or the attempt) is over; the next one begins by itself.
    virtual void on_lost(const Error& why) = 0;
};

/// The connection to the server, for ever: connect, TLS, HELLO, WELCOME, heartbeats; after any failure again.
///
///     waiting --timer--> connecting --socket--> tls --on_ready, HELLO--> greeting --WELCOME--> established
///        ^                    |                  |                          |                       |
///        +--------------------+------------------+--------- error, silence, ERROR, close() ---------+
class Session {
public:
    enum class Phase : std::uint8_t { idle, waiting, connecting, tls, greeting, established };

    Session(loop::Loop& loop, WorkerPool& pool, Shipper& shipper, loop::TokenBucket& bucket, SessionHost& host);
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
    ~Session();

    void configure(std::vector<config::Endpoint> servers, tls::TlsContext* context);
    /// An HTTP proxy; its password is read at each connection. Empty: none.
    void configure_proxy(std::string url, std::filesystem::path password_file);
    /// Asks for another certificate; the answer comes as a CERT_REPLY. Nothing if there is no session.
    void ask_certificate(const proto::CertRequest& request);
    /// Says that this source goes for good; the answer comes as a RETIRE.
    void retire();
    /// Connects now (if it does not yet) and keeps connected.
    void start();
    /// Ends the connection and connects again at once, with a new HELLO.
    void restart(std::string_view why);
    /// Ends it for good.
    void stop();

    /// The bandwidth changed, or something waits to be sent.
    void kick();

    [[nodiscard]] Phase phase() const noexcept { return phase_; }
    [[nodiscard]] bool established() const noexcept { return phase_ == Phase::established; }
    /// A session was established or an attempt failed since the agent started.
    [[nodiscard]] bool tried() const noexcept { return tried_; }
    /// Why there is no session; empty while there is one.
    [[nodiscard]] const std::string& cause() const noexcept { return cause_; }
    [[nodiscard]] const std::string& server_name() const noexcept { return server_name_; }
    [[nodiscard]] const Link* link() const noexcept { return link_.get(); }
    [[nodiscard]] std::uint64_t sessions() const noexcept { return sessions_; }
    [[nodiscard]] std::uint64_t wire_bytes() const noexcept;

private:
    void connect();
    void connected(Result<Connector::Connected> result);
    void ready();
    void frame(const proto::FrameReader::View& view);
    [[nodiscard]] Result<void> handle(const proto::FrameReader::View& view);
    void tick();
    void lost(const Error& why);
    void wait(std::uint64_t ms);
    template <class M>
    void send(proto::FrameType type, const M& message);

    loop::Loop& loop_;
    WorkerPool& pool_;
    Shipper& shipper_;
    loop::TokenBucket& bucket_;
    SessionHost& host_;
    std::vector<config::Endpoint> servers_;
    tls::TlsContext* context_ = nullptr;
    std::string proxy_;
    std::filesystem::path proxy_password_file_;

    Phase phase_ = Phase::idle;
    bool tried_ = false;
    std::string cause_;
    std::string server_name_;
    std::string peer_;
    Backoff backoff_;
    std::unique_ptr<Connector> connector_;
    std::unique_ptr<Link> link_;
    std::uint64_t phase_since_ns_ = 0;
    std::uint64_t beat_ns_ = 0;
    std::uint64_t sessions_ = 0;
    std::uint64_t wire_bytes_before_ = 0;  ///< of links that are gone
    Decompressor decompressor_;
    std::vector<std::byte> scratch_;
    loop::Timer retry_;
    loop::Timer ticker_;
};

}  // namespace blkferry::agent
