// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include <poll.h>

#include "loop/core.hpp"

namespace blkferry::loop {

namespace detail {

WatchNode::WatchNode(std::shared_ptr<Anchor> anchor, int fd, std::uint32_t events, WatchCallback callback,
                     Trigger trigger)
    : RingNode(std::move(anchor)), callback_(std::move(callback)), fd_(fd), want_(events), trigger_(trigger) {}

void WatchNode::arm() {
    Core* c = core();
    if (c == nullptr || in_ring() || want_ == 0)
        return;
    io_uring_sqe* entry = c->sqe();
    armed_multishot_ = trigger_ == Trigger::edge && c->multishot();
    if (armed_multishot_)
        io_uring_prep_poll_multishot(entry, fd_, want_);
    else
        io_uring_prep_poll_add(entry, fd_, want_);
    armed_ = want_;
    cancel_sent_ = false;
    c->submit(entry, shared_from_this());
}

void WatchNode::cancel() {
    if (!in_ring() || cancel_sent_ || core() == nullptr)
        return;
    cancel_sent_ = true;
    core()->cancel(*this);
}

void WatchNode::set_events(std::uint32_t events) {
    want_ = events;
    if (in_ring()) {
        if (armed_ != want_)
            cancel();  // its completion arms the new mask
    } else if (!running_) {
        arm();
    }
}

void WatchNode::complete(std::int32_t result, bool more) {
    if (closed_)
        return;
    if (result == -EINVAL && armed_multishot_ && core() != nullptr) {
        core()->no_multishot();  // kernel before 5.13
        arm();
        return;
    }
    std::uint32_t ready = 0;
    if (result >= 0) {
        ready = static_cast<std::uint32_t>(result) & (want_ | POLLHUP | POLLERR | POLLNVAL);
        if (want_ == 0)
            ready = 0;
    } else if (result != -ECANCELED) {
        ready = POLLERR | POLLNVAL;
        want_ = 0;  // cannot be polled: said once
    }
    if (ready != 0) {
        running_ = true;
        callback_(ready);
        running_ = false;
        if (closed_) {
            callback_ = nullptr;
            return;
        }
    }
    if (!more)
        arm();
}

void WatchNode::close() noexcept {
    closed_ = true;
    cancel();
    if (!running_)
        callback_ = nullptr;
}

}  // namespace detail

Watch::Watch() noexcept = default;
Watch::Watch(std::shared_ptr<detail::WatchNode> node) noexcept : node_(std::move(node)) {}
Watch::Watch(Watch&&) noexcept = default;
Watch& Watch::operator=(Watch&& other) noexcept {
    if (this != &other) {
        reset();
        node_ = std::move(other.node_);
    }
    return *this;
}
Watch::~Watch() { reset(); }

void Watch::set_events(std::uint32_t events) {
    if (node_)
        node_->set_events(events);
}
std::uint32_t Watch::events() const noexcept { return node_ ? node_->events() : 0; }
void Watch::reset() noexcept {
    if (const auto node = std::move(node_))
        node->close();
    node_.reset();
}

}  // namespace blkferry::loop
