// SPDX-License-Identifier: Apache-2.0
#include "loop/core.hpp"

namespace blkferry::loop {

namespace detail {

void IoNode::complete(std::int32_t result, bool) {
    // The callback (and the buffer it may own) ends here, not with the last handle.
    IoCallback callback = std::move(callback_);
    callback_ = nullptr;
    if (!closed_)
        callback(result);
}

void IoNode::close() noexcept {
    if (closed_ || !in_ring())
        return;
    closed_ = true;
    if (core() != nullptr)
        core()->cancel(*this);
}

}  // namespace detail

Io::Io() noexcept = default;
Io::Io(std::shared_ptr<detail::IoNode> node) noexcept : node_(std::move(node)) {}
Io::Io(Io&&) noexcept = default;
Io& Io::operator=(Io&& other) noexcept {
    if (this != &other) {
        reset();
        node_ = std::move(other.node_);
    }
    return *this;
}
Io::~Io() { reset(); }

void Io::detach() noexcept { node_.reset(); }
bool Io::pending() const noexcept { return node_ && node_->in_ring(); }
void Io::reset() noexcept {
    if (const auto node = std::move(node_))
        node->close();
    node_.reset();
}

}  // namespace blkferry::loop
