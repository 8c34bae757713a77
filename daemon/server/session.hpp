// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loop/loop.hpp"
#include "proto/frame.hpp"
#include "tls/stream.hpp"

namespace blkferry::server {

class Session;

/// What a connection needs of its surroundings. Called in the loop's thread.
class SessionHost {
public:
    virtual ~SessionHost() = default;
    /// A whole frame; its views end with the call. An error is told to the peer and ends the connection.
    [[nodiscard]] virtual Result<void> on_frame(Session& session, const proto::FrameReader::View& view) = 0;
    /// What has been received for now was given to on_frame().
    virtual void on_drained(Session& session) = 0;
    /// The connection is over (told once, the object may be destroyed from the next loop round on).
    virtual void on_ended(Session& session, const Error& why) = 0;
    /// Room for received bytes, shared by all sessions.
    [[nodiscard]] virtual std::span<std::byte> read_buffer() = 0;
};

struct SessionTimes {
    std::uint64_t handshake_ns = 10'000'000'000;  ///< from accept to ready()
    std::uint64_t linger_ns = 2'000'000'000;      ///< for the last frame to reach the peer
};

/// One connection: TLS handshake → frames in, frames out → last frame → closed. Knows nothing of sources.
///
///     handshake ──ok──> open ──refuse()/end()──> closing ──sent, or linger over──> ended
///         └── failed, too late, limits ───────────────────────────────────────────────^
///
/// Memory: one frame and its rest in the reader, output_bytes_max of answers; a peer that reads no answers is cut off.
class Session {
public:
    static constexpr std::size_t output_bytes_max = 4U << 20;

    Session(loop::Loop& loop, SessionHost& host, tls::TlsStream stream, std::string address, std::string peer,
            std::uint64_t id, SessionTimes times);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    /// The HELLO was accepted: the handshake deadline is over.
    void ready();
    /// Queues a frame. Nothing after refuse() or end.
    void send(proto::FrameType type, std::span<const std::byte> body);
    template <class M>
    void send_message(proto::FrameType type, const M& message) {
        std::vector<std::byte> body;
        encode(message, body);
        send(type, body);
    }
    /// Sends ERROR with the reason and closes.
    void refuse(const Error& why);
    /// Ends it at once, without a word to the peer. Not from inside of a callback of this session.
    void drop(const Error& why) { finish(why); }
    /// Stops (or resumes) taking frames, for as long as the server cannot take more.
    void hold(bool on);
    /// Gives back memory that an idle connection does not need.
    void trim();

    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }
    /// Of the certificate; empty before the TLS handshake is over.
    [[nodiscard]] const std::string& peer_name() const noexcept { return peer_name_; }
    /// Address, and address with port.
    [[nodiscard]] const std::string& address() const noexcept { return address_; }
    [[nodiscard]] const std::string& peer() const noexcept { return peer_; }
    /// It showed no certificate and may only ask for one.
    [[nodiscard]] bool enrolling() const noexcept { return stream_.enrolling(); }
    [[nodiscard]] const tls::TlsStream& stream() const noexcept { return stream_; }
    [[nodiscard]] bool is_ready() const noexcept { return ready_; }
    [[nodiscard]] bool open() const noexcept { return state_ == State::open; }
    [[nodiscard]] bool held() const noexcept { return held_; }
    /// The last turn ended before everything was read.
    [[nodiscard]] bool more_waits() const noexcept { return more_waits_; }
    [[nodiscard]] std::size_t unsent() const noexcept { return output_.size() - sent_; }
    /// Loop::now_ns() when bytes last came.
    [[nodiscard]] std::uint64_t heard_ns() const noexcept { return heard_ns_; }
    /// When a whole frame last came, or a hold ended.
    [[nodiscard]] std::uint64_t framed_ns() const noexcept { return framed_ns_; }
    [[nodiscard]] std::uint64_t bytes_in() const noexcept { return stream_.wire_bytes_read(); }
    [[nodiscard]] std::uint64_t bytes_out() const noexcept { return stream_.wire_bytes_written(); }

private:
    enum class State : std::uint8_t { handshake, open, closing, ended };

    void on_events();
    void step();
    [[nodiscard]] Result<void> step_handshake();
    [[nodiscard]] Result<void> step_read();
    [[nodiscard]] Result<void> step_frames();
    [[nodiscard]] Result<void> step_write();
    void step_closing();
    void update_watch();
    void again();
    void finish(const Error& why);

    loop::Loop& loop_;
    SessionHost& host_;
    tls::TlsStream stream_;
    const std::string address_;
    const std::string peer_;
    const std::uint64_t id_;
    const SessionTimes times_;
    std::string peer_name_;
    State state_ = State::handshake;
    bool ready_ = false;
    bool held_ = false;
    bool more_waits_ = false;
    bool in_step_ = false;
    bool write_blocked_ = false;
    bool read_wants_write_ = false;  ///< an answer of TLS itself does not leave
    bool handshake_wants_write_ = false;
    bool sent_fin_ = false;
    bool overflowed_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    bool again_posted_ = false;
    proto::FrameReader reader_;
    std::vector<std::byte> output_;
    std::size_t sent_ = 0;
    Error why_;
    std::uint64_t heard_ns_;
    std::uint64_t framed_ns_;
    loop::Watch watch_;
    loop::Timer deadline_;
};

}  // namespace blkferry::server
