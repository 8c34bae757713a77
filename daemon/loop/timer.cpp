// SPDX-License-Identifier: Apache-2.0
#include "loop/core.hpp"

namespace blkferry::loop {

namespace detail {

void TimerNode::start(std::uint64_t deadline_ns) {
    stop();
    if (anchor_->core == nullptr)
        return;
    deadline_ns_ = deadline_ns;
    id_ = anchor_->core->add_timer(deadline_ns, shared_from_this());
    active_ = true;
}

void TimerNode::stop() noexcept {
    if (!active_)
        return;
    active_ = false;
    if (anchor_->core != nullptr)
        anchor_->core->remove_timer({deadline_ns_, id_});
}

void TimerNode::close() noexcept {
    closed_ = true;
    stop();
    if (!running_)
        callback_ = nullptr;
}

void TimerNode::fire(std::uint64_t now_ns) {
    active_ = false;
    if (interval_ns_ != 0) {
        const std::uint64_t missed = (now_ns - deadline_ns_) / interval_ns_;
        start(deadline_ns_ + (missed + 1) * interval_ns_);
    }
    running_ = true;
    callback_();
    running_ = false;
    if (closed_)
        callback_ = nullptr;
}

}  // namespace detail

Timer::Timer() noexcept = default;
Timer::Timer(std::shared_ptr<detail::TimerNode> node) noexcept : node_(std::move(node)) {}
Timer::Timer(Timer&&) noexcept = default;
Timer& Timer::operator=(Timer&& other) noexcept {
    if (this != &other) {
        reset();
        node_ = std::move(other.node_);
    }
    return *this;
}
Timer::~Timer() { reset(); }

void Timer::restart(std::uint64_t delay_ns) {
    if (node_)
        node_->start(Loop::now_ns() + delay_ns);
}
void Timer::stop() noexcept {
    if (node_)
        node_->stop();
}
bool Timer::active() const noexcept { return node_ && node_->active(); }
void Timer::reset() noexcept {
    if (const auto node = std::move(node_))
        node->close();
    node_.reset();
}

}  // namespace blkferry::loop
