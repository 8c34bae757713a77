// SPDX-License-Identifier: Apache-2.0
#include "loop/core.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace blkferry::loop::detail {

namespace {

/// Kernel 5.10 has these; what came later (EXT_ARG, multishot, DEFER_TASKRUN) is probed and optional.
constexpr unsigned features_needed = IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL;
constexpr std::array ops_needed = {IORING_OP_READ, IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_FSYNC,
                                   IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};

int init_ring(io_uring& ring, const LoopOptions& options) {
    // Newer kernels accept more; an older one answers EINVAL to a flag it does not know.
    std::vector<unsigned> tries;
    if (options.single_thread)
        tries.push_back(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
    tries.push_back(IORING_SETUP_COOP_TASKRUN);
    tries.push_back(0);
    int err = -EINVAL;
    for (const unsigned flags : tries) {
        io_uring_params params{};
        params.flags = flags | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
        params.cq_entries = options.entries * 4;
        err = io_uring_queue_init_params(options.entries, &ring, &params);
        if (err != -EINVAL)
            break;
    }
    return err;
}

}  // namespace

Result<std::unique_ptr<Core>> Core::create(const LoopOptions& options) {
    std::unique_ptr<Core> core(new Core);
    BLKFERRY_TRY(core->init(options));
    return core;
}

Result<void> Core::init(const LoopOptions& options) {
    if (options.entries < 1 || options.entries > 32768)
        return fail(Errc::invalid, fmt::format("io_uring: {} entries asked for, 1 .. 32768 possible", options.entries));
    if (const int err = init_ring(ring_, options); err < 0)
        return fail_errno(-err, "io_uring: cannot set up a ring (kernel 5.10 or newer is needed, and "
                                "kernel.io_uring_disabled must be 0)");
    ring_ready_ = true;
    if ((ring_.features & features_needed) != features_needed)
        return fail(Errc::unsupported, "io_uring: kernel 5.10 or newer is needed");
    const std::unique_ptr<io_uring_probe, void (*)(io_uring_probe*)> probe(io_uring_get_probe_ring(&ring_),
                                                                           io_uring_free_probe);
    for (const auto op : ops_needed) {
        if (!probe || io_uring_opcode_supported(probe.get(), op) == 0)
            return fail(Errc::unsupported, fmt::format("io_uring: this kernel lacks operation {}", static_cast<int>(op)));
    }
    wake_fd_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_fd_)
        return fail_errno(errno, "eventfd");
    multishot_ = options.multishot;
    anchor_->core = this;
    wake_watch_ = std::make_shared<WatchNode>(
        anchor_, wake_fd_.get(), POLLIN,
        [this](std::uint32_t) {
            std::uint64_t count = 0;
            const std::lock_guard lock(mutex_);
            (void)!::read(wake_fd_.get(), &count, sizeof count);
            woken_ = false;
        },
        Trigger::edge);
    wake_watch_->arm();
    return {};
}

Core::~Core() {
    if (!ring_ready_)
        return;
    drain_all();
    for (auto& [key, timer] : timers_)
        timer->forget();
    anchor_->core = nullptr;
    io_uring_queue_exit(&ring_);
}

// Ends everything in flight without calling back. Every node was bound to a completion that must come: disk I/O ends by
// itself, the rest is cancelled.
void Core::drain_all() {
    for (auto& node : std::vector(in_flight_))
        cancel(*node);
    while (true) {
        reap();
        for (const Completion& c : reaped_) {
            auto* node = reinterpret_cast<RingNode*>(c.user_data);
            if (node == nullptr || (c.flags & IORING_CQE_F_MORE) != 0)
                continue;
            std::swap(in_flight_[node->slot_], in_flight_.back());
            in_flight_[node->slot_]->slot_ = node->slot_;
            node->in_ring_ = false;
            in_flight_.pop_back();
        }
        reaped_.clear();
        if (in_flight_.empty())
            return;
        if (const int r = io_uring_submit_and_wait(&ring_, 1); r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
            panic("io_uring: cannot wait for operations in flight", __FILE__, __LINE__);
    }
}

io_uring_sqe* Core::sqe() {
    while (true) {
        if (io_uring_sqe* entry = io_uring_get_sqe(&ring_))
            return entry;
        flush();
    }
}

// Makes room in the submission queue. EBUSY and EAGAIN mean that completions must be taken (or memory freed) first;
// they are kept in order and dispatched by the running round.
void Core::flush() {
    const int r = io_uring_submit(&ring_);
    if (r >= 0 || r == -EINTR)
        return;
    if (r == -EBUSY || r == -EAGAIN) {
        reap();
        io_uring_get_events(&ring_);
        reap();
        return;
    }
    panic("io_uring: submission refused", __FILE__, __LINE__);
}

void Core::submit(io_uring_sqe* entry, std::shared_ptr<RingNode> node) {
    io_uring_sqe_set_data(entry, node.get());
    node->slot_ = in_flight_.size();
    node->in_ring_ = true;
    in_flight_.push_back(std::move(node));
}

void Core::cancel(RingNode& node) {
    io_uring_sqe* entry = sqe();
    io_uring_prep_cancel64(entry, reinterpret_cast<std::uint64_t>(&node), 0);
    io_uring_sqe_set_data64(entry, 0);
}

void Core::reap() {
    std::array<io_uring_cqe*, 64> batch{};
    while (true) {
        const unsigned n = io_uring_peek_batch_cqe(&ring_, batch.data(), static_cast<unsigned>(batch.size()));
        for (unsigned i = 0; i < n; ++i)
            reaped_.push_back({batch[i]->user_data, batch[i]->res, batch[i]->flags});
        io_uring_cq_advance(&ring_, n);
        if (n == 0)
            return;
    }
}

void Core::dispatch(const Completion& c) {
    auto* raw = reinterpret_cast<RingNode*>(c.user_data);
    if (raw == nullptr)
        return;  // of a cancel request: the cancelled operation completes on its own
    const std::shared_ptr<RingNode> node = in_flight_[raw->slot_];
    BLKFERRY_ASSERT(node.get() == raw);
    const bool more = (c.flags & IORING_CQE_F_MORE) != 0;
    if (!more) {
        const std::size_t slot = node->slot_;
        in_flight_[slot] = std::move(in_flight_.back());
        in_flight_[slot]->slot_ = slot;
        in_flight_.pop_back();
        node->in_ring_ = false;
    }
    node->complete(c.result, more);
}

Result<void> Core::enter(std::uint64_t timeout_ns) {
    int r = 0;
    if (timeout_ns == 0) {
        r = io_uring_submit_and_get_events(&ring_);
    } else if (timeout_ns == std::numeric_limits<std::uint64_t>::max()) {
        r = io_uring_submit_and_wait(&ring_, 1);
    } else {
        __kernel_timespec ts{};
        ts.tv_sec = static_cast<long long>(timeout_ns / 1'000'000'000U);
        ts.tv_nsec = static_cast<long long>(timeout_ns % 1'000'000'000U);
        io_uring_cqe* cqe = nullptr;
        r = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &ts, nullptr);
    }
    if (r < 0 && r != -ETIME && r != -EINTR && r != -EAGAIN && r != -EBUSY)
        return fail_errno(-r, "io_uring: wait");
    return {};
}

Result<void> Core::run_once(std::uint64_t timeout_ns) {
    thread_.store(std::this_thread::get_id(), std::memory_order_relaxed);
    if (!reaped_.empty() || has_tasks() || stop_.load(std::memory_order_acquire)) {
        timeout_ns = 0;
    } else if (!timers_.empty()) {
        const std::uint64_t deadline = timers_.begin()->first.first;
        const std::uint64_t now = Loop::now_ns();
        timeout_ns = std::min(timeout_ns, deadline > now ? deadline - now : 0);
    }
    BLKFERRY_TRY(enter(timeout_ns));
    reap();
    for (std::size_t n = reaped_.size(); n > 0; --n) {
        const Completion c = reaped_.front();
        reaped_.pop_front();
        dispatch(c);
    }
    run_timers();
    run_tasks();
    return {};
}

Result<void> Core::run() {
    while (!stop_.load(std::memory_order_acquire))
        BLKFERRY_TRY(run_once(std::numeric_limits<std::uint64_t>::max()));
    stop_.store(false, std::memory_order_release);
    return {};
}

void Core::stop() noexcept {
    stop_.store(true, std::memory_order_release);
    const std::lock_guard lock(mutex_);
    wake();
}

void Core::wake() noexcept {
    if (woken_)
        return;
    woken_ = true;
    const std::uint64_t one = 1;
    (void)!::write(wake_fd_.get(), &one, sizeof one);
}

void Core::post(Task task) {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    // The loop's own thread looks at tasks_ before it waits. Another one that takes the loop over stores its id before it
    // takes the lock to look, so either it sees this task or we see its id.
    if (thread_.load(std::memory_order_relaxed) != std::this_thread::get_id())
        wake();
}

bool Core::has_tasks() {
    const std::lock_guard lock(mutex_);
    return !tasks_.empty();
}

void Core::run_tasks() {
    std::vector<Task> ready;
    {
        const std::lock_guard lock(mutex_);
        ready.swap(tasks_);
    }
    for (Task& task : ready) {
        task();
        task = nullptr;  // what it captured goes in its turn, not at the end of the round
    }
}

std::uint64_t Core::add_timer(std::uint64_t deadline_ns, std::shared_ptr<TimerNode> node) {
    const std::uint64_t id = ++timer_id_;
    timers_.emplace(TimerKey{deadline_ns, id}, std::move(node));
    return id;
}

// Only what was due when the round began: a timer that arms itself with delay 0 cannot starve the rest.
void Core::run_timers() {
    const std::uint64_t now = Loop::now_ns();
    const std::uint64_t newest = timer_id_;
    while (!timers_.empty()) {
        const auto it = std::find_if(timers_.begin(), timers_.end(), [&](const auto& t) {
            return t.first.first > now || t.first.second <= newest;
        });
        if (it == timers_.end() || it->first.first > now)
            return;
        const std::shared_ptr<TimerNode> node = std::move(it->second);
        timers_.erase(it);
        node->fire(now);
    }
}

}  // namespace blkferry::loop::detail
