// SPDX-License-Identifier: Apache-2.0
#include "server/session.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <utility>

#include <fmt/format.h>

#include "proto/handshake.hpp"

namespace blkferry::server {

namespace {
/// Bytes on the socket that one connection may bring before the others get their turn.
constexpr std::size_t turn_bytes = 1U << 20;
/// And TLS records: small ones cost more than their bytes.
constexpr std::uint64_t turn_records = 1024;
/// What a connection may make the server hold before it has said HELLO.
constexpr std::size_t hello_bytes_max = proto::frame_header_bytes + proto::json_body_bytes_max;
}  // namespace

Session::Session(loop::Loop& loop, SessionHost& host, tls::TlsStream stream, std::string address, std::string peer,
                 std::uint64_t id, SessionTimes times)
    : loop_(loop),
      host_(host),
      stream_(std::move(stream)),
      address_(std::move(address)),
      peer_(std::move(peer)),
      id_(id),
      times_(times),
      heard_ns_(loop::Loop::now_ns()),
      framed_ns_(heard_ns_) {
    watch_ = loop_.watch(stream_.fd(), POLLIN, [this](std::uint32_t) { on_events(); });
    deadline_ = loop_.after(times_.handshake_ns, [this] {
        if (state_ == State::handshake)
            finish({Errc::timeout, 0, "no TLS handshake in time"});
        else if (state_ == State::open)
            refuse({Errc::timeout, 0, "no HELLO in time"});
        else
            finish(why_);
    });
}

Session::~Session() {
    *alive_ = false;
}

void Session::ready() {
    ready_ = true;
    deadline_.stop();
}

void Session::send(proto::FrameType type, std::span<const std::byte> body) {
    if (state_ != State::open || overflowed_)
        return;
    if (unsent() > output_bytes_max) {
        // Ended in the next round, so that no caller loses the session while it speaks to it.
        overflowed_ = true;
        loop_.post([this, alive = alive_] {
            if (*alive)
                finish({Errc::timeout, 0, fmt::format("the peer does not read: {} bytes of answers wait", unsent())});
        });
        return;
    }
    if (sent_ > 0) {
        // What TLS has begun to send is given again as it was; only sent bytes go.
        output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(sent_));
        sent_ = 0;
    }
    proto::encode_frame(type, 0, 0, body, nullptr, output_);
    again();
}

void Session::refuse(const Error& why) {
    if (state_ == State::handshake) {
        finish(why);
        return;
    }
    if (state_ != State::open)
        return;
    why_ = why;
    send_message(proto::FrameType::error, proto::PeerError{std::string(to_string(why.code)), why.text});
    state_ = State::closing;
    deadline_.restart(times_.linger_ns);
    again();
}

void Session::hold(bool on) {
    if (held_ == on)
        return;
    held_ = on;
    if (!on)
        heard_ns_ = framed_ns_ = loop::Loop::now_ns();
    again();
}

void Session::trim() {
    if (reader_.buffered() == 0)
        reader_ = {};
    if (unsent() == 0) {
        output_ = {};
        sent_ = 0;
    }
}

/// Runs a step in the next loop round: callers may be deep inside this object.
void Session::again() {
    if (again_posted_ || state_ == State::ended)
        return;
    again_posted_ = true;
    loop_.post([this, alive = alive_] {
        if (!*alive)
            return;
        again_posted_ = false;
        step();
    });
}

void Session::on_events() {
    step();
}

void Session::step() {
    if (state_ == State::ended || in_step_)
        return;
    in_step_ = true;
    Result<void> r{};
    if (state_ == State::handshake)
        r = step_handshake();
    if (r && state_ == State::open)
        r = step_write();
    if (r && state_ == State::open)
        r = step_read();
    if (r && state_ == State::open)
        r = step_write();
    in_step_ = false;
    if (!r)
        finish(r.error());
    if (state_ == State::closing)
        step_closing();
    if (state_ != State::ended)
        update_watch();
}

Result<void> Session::step_handshake() {
    BLKFERRY_TRY_ASSIGN(const tls::Step s, stream_.handshake());
    handshake_wants_write_ = s.status == tls::Status::want_write;
    if (s.status == tls::Status::closed)
        return fail(Errc::closed, "the peer closed the connection during the TLS handshake");
    if (s.status != tls::Status::done)
        return {};
    peer_name_ = stream_.peer_name();
    state_ = State::open;
    heard_ns_ = loop::Loop::now_ns();
    return {};
}

Result<void> Session::step_read() {
    std::size_t got = 0;
    const std::uint64_t before = stream_.wire_bytes_read();
    const std::uint64_t records = stream_.records_read();
    const auto turn_over = [&] { return stream_.wire_bytes_read() - before >= turn_bytes || stream_.records_read() - records >= turn_records; };
    read_wants_write_ = false;
    for (;;) {
        // What was received before a hold began comes first.
        BLKFERRY_TRY(step_frames());
        if (state_ != State::open || held_ || turn_over())
            break;
        const auto buffer = host_.read_buffer();
        BLKFERRY_TRY_ASSIGN(const tls::Step s, stream_.read(buffer));
        if (s.status == tls::Status::closed)
            return fail(Errc::closed, "the peer closed the connection");
        read_wants_write_ = s.status == tls::Status::want_write;
        if (s.status != tls::Status::done)
            break;
        heard_ns_ = loop::Loop::now_ns();
        got += s.bytes;
        reader_.feed(buffer.first(s.bytes));
    }
    more_waits_ = turn_over() && !held_;
    if (got > 0 || !held_)
        host_.on_drained(*this);
    if (state_ == State::open && more_waits_)
        again();  // TLS may hold bytes of which poll does not know
    return {};
}

Result<void> Session::step_frames() {
    while (state_ == State::open && !held_) {
        proto::FrameReader::View view;
        const auto status = reader_.next(view);
        Result<void> r{};
        if (!status)
            r = std::unexpected(status.error());
        else if (*status == proto::FrameReader::Status::need_more && (ready_ || reader_.buffered() <= hello_bytes_max))
            return {};
        else if (*status == proto::FrameReader::Status::need_more)
            r = fail(Errc::invalid, "the first frame is larger than any HELLO");
        else {
            framed_ns_ = heard_ns_;
            r = host_.on_frame(*this, view);
        }
        if (!r) {
            refuse(r.error());
            return {};
        }
    }
    return {};
}

Result<void> Session::step_write() {
    write_blocked_ = false;
    while (sent_ < output_.size()) {
        BLKFERRY_TRY_ASSIGN(const tls::Step s, stream_.write(std::span<const std::byte>(output_).subspan(sent_)));
        if (s.status == tls::Status::closed)
            return fail(Errc::closed, "the peer closed the connection");
        if (s.status != tls::Status::done) {
            write_blocked_ = s.status == tls::Status::want_write;
            return {};
        }
        sent_ += s.bytes;
    }
    output_.clear();
    sent_ = 0;
    return {};
}

/// Sends what is left, then the end of the stream, and reads on until the peer has closed: closing a socket with unread
/// bytes would reset it, and the peer would lose the reason.
void Session::step_closing() {
    if (const auto r = step_write(); !r) {
        finish(why_);
        return;
    }
    if (sent_ < output_.size())
        return;
    if (!sent_fin_) {
        (void)stream_.shutdown();
        ::shutdown(stream_.fd(), SHUT_WR);
        sent_fin_ = true;
    }
    for (std::size_t got = 0; got < turn_bytes;) {
        const auto n = ::recv(stream_.fd(), host_.read_buffer().data(), host_.read_buffer().size(), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            finish(why_);
            return;
        }
        got += static_cast<std::size_t>(n);
    }
}

void Session::update_watch() {
    std::uint32_t events = 0;
    if (state_ == State::handshake)
        events = handshake_wants_write_ ? POLLOUT : POLLIN;
    else if (state_ == State::closing)
        events = sent_fin_ ? POLLIN : POLLOUT;
    else if (read_wants_write_)
        events = POLLOUT;  // readable it may be all the time, and nothing is read before the answer left
    else
        events = (held_ ? 0U : static_cast<std::uint32_t>(POLLIN)) | (write_blocked_ ? static_cast<std::uint32_t>(POLLOUT) : 0U);
    watch_.set_events(events);
}

void Session::finish(const Error& why) {
    if (state_ == State::ended)
        return;
    state_ = State::ended;
    watch_.reset();
    deadline_.reset();
    host_.on_ended(*this, why);
}

}  // namespace blkferry::server
