// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <liburing.h>

#include "base/fd.hpp"
#include "loop/loop.hpp"

/// The inside of the loop; private to this library.
///
/// Life of a RingNode: idle -> Core::submit() puts it into in_flight_ (the kernel knows its address as user_data, so the
/// table keeps it alive) -> a completion without IORING_CQE_F_MORE takes it out again. Handles share the node; the
/// kernel's part ends only by a completion, whatever the handles do.
namespace blkferry::loop::detail {

class Core;

/// Outlives the core, so that handles can tell whether it is still there.
struct Anchor {
    Core* core = nullptr;
};

class RingNode {
public:
    explicit RingNode(std::shared_ptr<Anchor> anchor) noexcept : anchor_(std::move(anchor)) {}
    RingNode(const RingNode&) = delete;
    RingNode& operator=(const RingNode&) = delete;
    virtual ~RingNode() = default;
    /// A completion arrived; `more` says that others will follow for the same submission.
    virtual void complete(std::int32_t result, bool more) = 0;

    [[nodiscard]] bool in_ring() const noexcept { return in_ring_; }

protected:
    [[nodiscard]] Core* core() const noexcept { return anchor_->core; }

private:
    friend class Core;
    std::shared_ptr<Anchor> anchor_;
    std::size_t slot_ = 0;
    bool in_ring_ = false;
};

class WatchNode final : public RingNode, public std::enable_shared_from_this<WatchNode> {
public:
    WatchNode(std::shared_ptr<Anchor> anchor, int fd, std::uint32_t events, WatchCallback callback, Trigger trigger);
    void complete(std::int32_t result, bool more) override;
    void set_events(std::uint32_t events);
    [[nodiscard]] std::uint32_t events() const noexcept { return want_; }
    void arm();
    void close() noexcept;

private:
    void cancel();

    WatchCallback callback_;
    int fd_;
    std::uint32_t want_;
    std::uint32_t armed_ = 0;
    Trigger trigger_;
    bool armed_multishot_ = false;
    bool cancel_sent_ = false;
    bool running_ = false;
    bool closed_ = false;
};

class IoNode final : public RingNode {
public:
    IoNode(std::shared_ptr<Anchor> anchor, IoCallback callback) noexcept
        : RingNode(std::move(anchor)), callback_(std::move(callback)) {}
    void complete(std::int32_t result, bool more) override;
    void close() noexcept;

    std::vector<iovec> pieces;

private:
    IoCallback callback_;
    bool closed_ = false;
};

class TimerNode final : public std::enable_shared_from_this<TimerNode> {
public:
    TimerNode(std::shared_ptr<Anchor> anchor, std::uint64_t interval_ns, Task callback) noexcept
        : anchor_(std::move(anchor)), callback_(std::move(callback)), interval_ns_(interval_ns) {}
    void start(std::uint64_t deadline_ns);
    void stop() noexcept;
    void close() noexcept;
    [[nodiscard]] bool active() const noexcept { return active_; }
    /// Called by the core when the deadline passed; the node is out of the table already.
    void fire(std::uint64_t now_ns);
    void forget() noexcept { active_ = false; }

private:
    std::shared_ptr<Anchor> anchor_;
    Task callback_;
    std::uint64_t interval_ns_;
    std::uint64_t deadline_ns_ = 0;
    std::uint64_t id_ = 0;
    bool active_ = false;
    bool running_ = false;
    bool closed_ = false;
};

class Core {
public:
    [[nodiscard]] static Result<std::unique_ptr<Core>> create(const LoopOptions& options);
    ~Core();
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;

    [[nodiscard]] Result<void> run();
    [[nodiscard]] Result<void> run_once(std::uint64_t timeout_ns);
    void stop() noexcept;
    void post(Task task);

    /// A free submission entry; never null: a full queue is submitted first.
    [[nodiscard]] io_uring_sqe* sqe();
    /// Binds the entry to the node and puts the node in flight.
    void submit(io_uring_sqe* entry, std::shared_ptr<RingNode> node);
    /// Asks the kernel to end the node's operation; its completion still comes.
    void cancel(RingNode& node);

    using TimerKey = std::pair<std::uint64_t, std::uint64_t>;
    [[nodiscard]] std::uint64_t add_timer(std::uint64_t deadline_ns, std::shared_ptr<TimerNode> node);
    void remove_timer(TimerKey key) noexcept { timers_.erase(key); }

    [[nodiscard]] const std::shared_ptr<Anchor>& anchor() const noexcept { return anchor_; }
    [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_.size(); }
    [[nodiscard]] bool multishot() const noexcept { return multishot_; }
    void no_multishot() noexcept { multishot_ = false; }

private:
    struct Completion {
        std::uint64_t user_data;
        std::int32_t result;
        std::uint32_t flags;
    };

    Core() = default;
    [[nodiscard]] Result<void> init(const LoopOptions& options);
    void wake() noexcept;
    [[nodiscard]] Result<void> enter(std::uint64_t timeout_ns);
    void flush();
    void reap();
    void dispatch(const Completion& c);
    void run_timers();
    void run_tasks();
    [[nodiscard]] bool has_tasks();
    void drain_all();

    io_uring ring_{};
    bool ring_ready_ = false;
    bool multishot_ = true;
    std::shared_ptr<Anchor> anchor_ = std::make_shared<Anchor>();
    std::vector<std::shared_ptr<RingNode>> in_flight_;
    std::deque<Completion> reaped_;
    std::map<TimerKey, std::shared_ptr<TimerNode>> timers_;
    std::uint64_t timer_id_ = 0;

    std::atomic<bool> stop_{false};
    std::mutex mutex_;  // tasks_ and woken_
    std::vector<Task> tasks_;
    bool woken_ = false;
    std::atomic<std::thread::id> thread_{};  ///< the last that entered run_once()
    Fd wake_fd_;
    std::shared_ptr<WatchNode> wake_watch_;
};

}  // namespace blkferry::loop::detail
