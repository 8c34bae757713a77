// SPDX-License-Identifier: Apache-2.0
#include "agent/link.hpp"

#include <algorithm>

#include <poll.h>

namespace blkferry::agent {

namespace {
constexpr std::size_t read_bytes = 64U << 10;
constexpr int reads_per_event = 16;
/// Largest piece offered to TLS at once; a kick sends several until the socket is full.
constexpr std::size_t write_bytes = 256U << 10;
constexpr int writes_per_event = 64;
}  // namespace

Link::Link(loop::Loop& loop, tls::TlsStream stream, loop::TokenBucket& bucket, Outbox& outbox, Handlers handlers)
    : loop_(loop),
      stream_(std::move(stream)),
      bucket_(bucket),
      outbox_(outbox),
      handlers_(std::move(handlers)),
      buffer_(read_bytes),
      heard_ns_(loop::Loop::now_ns()) {
    watch_ = loop_.watch(stream_.fd(), POLLIN | POLLOUT, [this](std::uint32_t events) { on_events(events); });
    pace_ = loop_.after(0, [this] { send(); });
    pace_.stop();
}

void Link::on_events(std::uint32_t events) {
    if (closed_)
        return;
    if (!established_) {
        handshake();
        return;
    }
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0 || read_wants_write_)
        receive();
    if (!closed_ && ((events & POLLOUT) != 0 || !blocked_))
        send();
}

void Link::handshake() {
    const std::uint64_t before = stream_.wire_bytes_written();
    const auto step = stream_.handshake();
    account(before);
    if (!step) {
        close(step.error());
        return;
    }
    switch (step->status) {
        case tls::Status::done:
            established_ = true;
            heard_ns_ = loop::Loop::now_ns();
            wait_for(POLLIN);
            handlers_.on_ready();
            if (!closed_)
                send();
            return;
        case tls::Status::want_read: wait_for(POLLIN); return;
        case tls::Status::want_write: wait_for(POLLOUT); return;
        case tls::Status::closed: close({Errc::closed, 0, "the server closed the connection during the TLS handshake"}); return;
    }
}

void Link::receive() {
    bool all = false;
    for (int i = 0; i < reads_per_event && !closed_ && !all; ++i) {
        const auto step = stream_.read(buffer_);
        if (!step) {
            close(step.error());
            return;
        }
        read_wants_write_ = step->status == tls::Status::want_write;
        if (step->status == tls::Status::closed) {
            close({Errc::closed, 0, "the server closed the connection"});
            return;
        }
        all = step->status != tls::Status::done;  // part of a record may be left: poll tells when more of it is there
        if (all)
            break;
        heard_ns_ = loop::Loop::now_ns();
        reader_.feed(std::span(buffer_).first(step->bytes));
        give_frames();
    }
    if (!closed_ && !all && stream_.pending())
        loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {
            if (!alive.expired() && !closed_)
                receive();
        });
    if (!closed_ && read_wants_write_)
        wait_for(POLLOUT);
}

void Link::give_frames() {
    proto::FrameReader::View view;
    while (!closed_) {
        const auto status = reader_.next(view);
        if (!status) {
            close(status.error());
            return;
        }
        if (*status == proto::FrameReader::Status::need_more)
            return;
        handlers_.on_frame(view);
    }
}

void Link::kick() {
    if (established_ && !closed_ && !blocked_ && !sending_)
        send();
}

void Link::send() {
    if (closed_ || !established_ || sending_)
        return;
    sending_ = true;
    throttled_ = false;
    blocked_ = false;
    for (int i = 0; i < writes_per_event && !closed_; ++i) {
        const std::span<const std::byte> data = outbox_.front();
        if (data.empty())
            break;
        const std::uint64_t now = loop::Loop::now_ns();
        const std::uint64_t allowed = std::min<std::uint64_t>(bucket_.available(now), write_bytes);
        if (allowed == 0 && committed_ == 0) {
            throttled_ = true;
            pace_.restart(std::max<std::uint64_t>(bucket_.wait_ns(now), 100'000));
            break;
        }
        const std::size_t offer = std::min(data.size(), std::max<std::size_t>(allowed, committed_));
        const std::uint64_t before = stream_.wire_bytes_written();
        const auto step = stream_.write(data.first(offer));
        account(before);
        if (!step) {
            close(step.error());
            break;
        }
        if (step->status == tls::Status::closed) {
            close({Errc::closed, 0, "the server closed the connection"});
            break;
        }
        const std::size_t moved = step->status == tls::Status::done ? step->bytes : 0;
        committed_ = offer - moved;
        if (moved > 0)
            outbox_.consume(moved);
        if (moved < offer) {
            blocked_ = true;
            break;
        }
    }
    sending_ = false;
    if (closed_)
        return;
    const bool more = !throttled_ && !blocked_ && !outbox_.front().empty();
    wait_for(read_wants_write_ ? POLLOUT : blocked_ || more ? POLLIN | POLLOUT : POLLIN);
}

void Link::account(std::uint64_t wire_before) {
    bucket_.take(loop::Loop::now_ns(), stream_.wire_bytes_written() - wire_before);
}

void Link::wait_for(std::uint32_t events) {
    watch_.set_events(events);
}

void Link::close(Error why) {
    if (closed_)
        return;
    closed_ = true;
    watch_.reset();
    pace_.stop();
    handlers_.on_closed(std::move(why));
}

}  // namespace blkferry::agent
