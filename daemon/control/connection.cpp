// SPDX-License-Identifier: Apache-2.0
#include "control/connection.hpp"

#include <array>
#include <cerrno>

#include <nlohmann/json.hpp>
#include <poll.h>
#include <sys/socket.h>

namespace blkferry::control {

namespace {
constexpr std::size_t read_bytes = 16U << 10;
}

Connection::Connection(Fd socket, Hooks hooks, const ServerOptions& options)
    : hooks_(std::move(hooks)), options_(options), socket_(std::move(socket)), lines_(request_bytes_max),
      last_ns_(loop::Loop::now_ns()) {}

void Connection::start(loop::Loop& loop) {
    watch_ = loop.watch(socket_.get(), POLLIN, [this](std::uint32_t events) {
        const auto self = shared_from_this();
        on_events(events);
    });
}

void Connection::on_events(std::uint32_t events) {
    if ((events & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
        close();  // gone for good: nobody reads what is left
        return;
    }
    if ((events & POLLOUT) != 0)
        flush();
    if ((events & POLLIN) != 0 && !closed_)
        receive();
    settle();
}

void Connection::receive() {
    std::array<char, read_bytes> buffer;
    const ssize_t n = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            close();
        return;
    }
    last_ns_ = loop::Loop::now_ns();
    if (lines_.size() == 0)
        line_ns_ = last_ns_;
    eof_ = eof_ || n == 0;
    lines_.append({buffer.data(), static_cast<std::size_t>(n)});
    take_lines();
}

void Connection::take_lines() {
    if (taking_)
        return;  // a handler answered at once: the loop below goes on
    taking_ = true;
    while (!closed_ && !busy_ && !no_more_) {
        auto line = lines_.next();
        if (!line) {
            no_more_ = true;
            send(to_line(error_message(line.error())));
        } else if (*line) {
            line_ns_ = loop::Loop::now_ns();  // what is behind it begins another
            hooks_.on_line(*this, **line);
        } else {
            no_more_ = eof_;
            break;
        }
    }
    taking_ = false;
}

void Connection::request_ended() {
    busy_ = false;
    last_ns_ = line_ns_ = loop::Loop::now_ns();
    take_lines();
    settle();
}

void Connection::send(std::string line) {
    if (closed_)
        return;
    if (unread_ + line.size() > options_.pending_bytes_max) {
        close();
        return;
    }
    if (out_.empty())
        last_ns_ = loop::Loop::now_ns();
    unread_ += line.size();
    out_.push_back(std::move(line));
    flush();
    settle();
}

void Connection::flush() {
    while (!out_.empty()) {
        const std::string_view rest = std::string_view(out_.front()).substr(sent_);
        const ssize_t n = ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno != EAGAIN && errno != EINTR)
                close();
            return;
        }
        last_ns_ = loop::Loop::now_ns();
        sent_ += static_cast<std::size_t>(n);
        unread_ -= static_cast<std::size_t>(n);
        if (sent_ == out_.front().size()) {
            out_.pop_front();
            sent_ = 0;
        }
    }
}

// Closes if nothing is owed and nothing can come; else waits for what is needed. While a request runs and a whole line
// waits behind it, the client is not read: it is held back by the socket's buffer.
void Connection::settle() {
    if (closed_ || taking_)
        return;
    if (no_more_ && !busy_ && out_.empty()) {
        close();
        return;
    }
    int events = POLLHUP;
    if (!eof_ && !no_more_ && (!busy_ || lines_.size() < request_bytes_max))
        events |= POLLIN;
    if (!out_.empty())
        events |= POLLOUT;
    watch_.set_events(static_cast<std::uint32_t>(events));
}

void Connection::finish() {
    no_more_ = true;
    settle();
}

void Connection::sweep(std::uint64_t now_ns) {
    const std::uint64_t quiet = now_ns > last_ns_ ? now_ns - last_ns_ : 0;
    if (!out_.empty() ? quiet > options_.stall_ns_max : !busy_ && quiet > options_.idle_ns_max)
        close();
    if (closed_ || busy_ || no_more_ || lines_.size() == 0 || now_ns < line_ns_ + options_.line_ns_max)
        return;
    // A byte now and then would hold one of the few places for ever.
    no_more_ = true;
    send(to_line(error_message({Errc::timeout, 0, "the request did not come to its end in time"})));
}

void Connection::close() {
    if (closed_)
        return;
    closed_ = true;
    watch_.reset();
    ::shutdown(socket_.get(), SHUT_RDWR);  // seen at once; the loop's poll holds the socket a moment longer
    socket_.reset();
    hooks_.on_close(*this);
}

}  // namespace blkferry::control
