// SPDX-License-Identifier: Apache-2.0
#include "loop/loop.hpp"

#include <chrono>

#include "loop/core.hpp"

namespace blkferry::loop {

namespace {
constexpr std::size_t io_bytes_max = 1UL << 30;
constexpr std::size_t pieces_max = 1024;
}  // namespace

Loop::Loop(std::unique_ptr<detail::Core> core) noexcept : core_(std::move(core)) {}
Loop::~Loop() = default;

Result<std::unique_ptr<Loop>> Loop::create(const LoopOptions& options) {
    BLKFERRY_TRY_ASSIGN(auto core, detail::Core::create(options));
    return std::unique_ptr<Loop>(new Loop(std::move(core)));
}

Result<void> Loop::run() { return core_->run(); }
Result<void> Loop::run_once(std::uint64_t timeout_ns) { return core_->run_once(timeout_ns); }
void Loop::stop() noexcept { core_->stop(); }
void Loop::post(Task task) { core_->post(std::move(task)); }
std::size_t Loop::in_flight() const noexcept { return core_->in_flight(); }
bool Loop::has_multishot() const noexcept { return core_->multishot(); }

std::uint64_t Loop::now_ns() noexcept {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

Timer Loop::after(std::uint64_t delay_ns, Task callback) {
    auto node = std::make_shared<detail::TimerNode>(core_->anchor(), 0, std::move(callback));
    node->start(now_ns() + delay_ns);
    return Timer(std::move(node));
}

Timer Loop::every(std::uint64_t interval_ns, Task callback) {
    BLKFERRY_ASSERT(interval_ns > 0);
    auto node = std::make_shared<detail::TimerNode>(core_->anchor(), interval_ns, std::move(callback));
    node->start(now_ns() + interval_ns);
    return Timer(std::move(node));
}

Watch Loop::watch(int fd, std::uint32_t events, WatchCallback callback, Trigger trigger) {
    auto node = std::make_shared<detail::WatchNode>(core_->anchor(), fd, events, std::move(callback), trigger);
    node->arm();
    return Watch(std::move(node));
}

Io Loop::read(int fd, std::span<std::byte> buffer, std::uint64_t offset, IoCallback callback) {
    BLKFERRY_ASSERT(buffer.size() <= io_bytes_max);
    auto node = std::make_shared<detail::IoNode>(core_->anchor(), std::move(callback));
    io_uring_sqe* entry = core_->sqe();
    io_uring_prep_read(entry, fd, buffer.data(), static_cast<unsigned>(buffer.size()), offset);
    core_->submit(entry, node);
    return Io(std::move(node));
}

Io Loop::write(int fd, std::span<const std::byte> buffer, std::uint64_t offset, IoCallback callback) {
    BLKFERRY_ASSERT(buffer.size() <= io_bytes_max);
    auto node = std::make_shared<detail::IoNode>(core_->anchor(), std::move(callback));
    io_uring_sqe* entry = core_->sqe();
    io_uring_prep_write(entry, fd, buffer.data(), static_cast<unsigned>(buffer.size()), offset);
    core_->submit(entry, node);
    return Io(std::move(node));
}

Io Loop::writev(int fd, std::span<const iovec> pieces, std::uint64_t offset, IoCallback callback) {
    BLKFERRY_ASSERT(pieces.size() <= pieces_max);
    auto node = std::make_shared<detail::IoNode>(core_->anchor(), std::move(callback));
    node->pieces.assign(pieces.begin(), pieces.end());
    io_uring_sqe* entry = core_->sqe();
    io_uring_prep_writev(entry, fd, node->pieces.data(), static_cast<unsigned>(node->pieces.size()), offset);
    core_->submit(entry, node);
    return Io(std::move(node));
}

Io Loop::fsync(int fd, IoCallback callback) {
    auto node = std::make_shared<detail::IoNode>(core_->anchor(), std::move(callback));
    io_uring_sqe* entry = core_->sqe();
    io_uring_prep_fsync(entry, fd, 0);
    core_->submit(entry, node);
    return Io(std::move(node));
}

Io Loop::fdatasync(int fd, IoCallback callback) {
    auto node = std::make_shared<detail::IoNode>(core_->anchor(), std::move(callback));
    io_uring_sqe* entry = core_->sqe();
    io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
    core_->submit(entry, node);
    return Io(std::move(node));
}

}  // namespace blkferry::loop
