// SPDX-License-Identifier: Apache-2.0
// Stands for the loop library's io_uring: the same handles in virtual time.
#include "loop/loop.hpp"

#include <algorithm>
#include <cerrno>
#include <poll.h>
#include <unistd.h>

#include "world.hpp"

namespace blkferry::loop {

using sim::us;
using sim::world;

namespace detail {

class WatchNode {
public:
    int fd = -1;
    std::uint32_t want = 0;
    WatchCallback callback;
    bool closed = false;
    bool running = false;
    void close() {
        closed = true;
        if (!running)
            callback = nullptr;
    }
};

class TimerNode : public std::enable_shared_from_this<TimerNode> {
public:
    std::weak_ptr<bool> alive;
    Task callback;
    std::uint64_t interval_ns = 0;
    sim::World::Key key{};
    bool active = false;
    bool running = false;
    bool closed = false;

    void start(std::uint64_t deadline) {
        stop();
        if (alive.expired() || closed)
            return;
        active = true;
        key = world->at(deadline, [self = shared_from_this(), deadline] { self->fire(deadline); });
    }
    void stop() {
        if (active && world != nullptr)
            world->forget(key);
        active = false;
    }
    void fire(std::uint64_t deadline) {
        active = false;
        if (alive.expired() || closed)
            return;
        if (interval_ns != 0)
            start(deadline + ((world->now - deadline) / interval_ns + 1) * interval_ns);
        running = true;
        callback();
        running = false;
        if (closed)
            callback = nullptr;
    }
    void close() {
        const auto self = shared_from_this();
        stop();
        closed = true;
        if (!running)
            callback = nullptr;
    }
};

class IoNode {
public:
    enum class Kind : std::uint8_t { read, write, sync };
    Kind kind = Kind::read;
    int fd = -1;
    std::uint64_t offset = 0;
    std::span<std::byte> to;
    std::vector<std::span<const std::byte>> from;
    IoCallback callback;
    bool pending = true;
    bool closed = false;
    sim::World::Key key{};

    [[nodiscard]] std::int32_t perform();
};

class Core {
public:
    std::shared_ptr<bool> alive = std::make_shared<bool>(true);
    std::vector<std::shared_ptr<WatchNode>> watches;
    std::vector<std::shared_ptr<IoNode>> ios;
    std::deque<Task> tasks;
    bool tasks_due = false;
    bool stopped = false;

    Core() { world->cores.push_back(this); }
    Core(const Core&) = delete;
    Core& operator=(const Core&) = delete;
    ~Core() {
        alive.reset();
        std::erase(world->cores, this);
        // What the kernel has when a process dies still ends, one way or the other.
        for (const auto& io : std::exchange(ios, {})) {
            world->forget(io->key);
            if (io->kind == IoNode::Kind::write && world->below(2) == 0)
                (void)io->perform();
            io->pending = false;
            io->callback = nullptr;
        }
        tasks.clear();
    }
    void run_tasks() {
        tasks_due = false;
        const std::weak_ptr<bool> here = alive;
        for (std::size_t n = tasks.size(); n > 0 && !here.expired() && !tasks.empty(); --n) {
            Task task = std::move(tasks.front());
            tasks.pop_front();
            task();
        }
        if (!here.expired() && !tasks.empty())
            want_tasks();
    }
    void want_tasks() {
        if (tasks_due)
            return;
        tasks_due = true;
        world->in(world->between(1, 10) * us, [this, here = std::weak_ptr<bool>(alive)] {
            if (!here.expired())
                run_tasks();
        });
    }
    void submit(const std::shared_ptr<IoNode>& node) {
        const std::uint64_t delay = world->one_in(50) ? world->between(1, 20) * sim::ms : world->between(20, 800) * us;
        ios.push_back(node);
        node->key = world->in(delay, [this, node, here = std::weak_ptr<bool>(alive)] {
            if (here.expired())
                return;
            std::erase(ios, node);
            const std::int32_t result = node->perform();
            node->pending = false;
            IoCallback callback = std::move(node->callback);
            node->callback = nullptr;
            if (!node->closed)
                callback(result);
        });
    }
};

std::int32_t IoNode::perform() {
    store::File* file = world->disk.file_of(fd);
    if (kind == Kind::sync) {
        if (file == nullptr)
            return -EBADF;
        if (world->one_in(world->chances.journal_error))
            return -EIO;
        if (world->mutation == sim::Mutation::lose_sync)
            return 0;
        const auto r = file->sync();
        return r ? 0 : -(r.error().sys_errno != 0 ? r.error().sys_errno : EIO);
    }
    if (kind == Kind::read) {
        if (world->one_in(world->chances.source_read_error))
            return -EIO;
        std::size_t bytes = to.size();
        if (bytes > 512 && world->one_in(world->chances.short_io))
            bytes = std::max<std::size_t>(512, world->below(bytes) / 512 * 512);
        if (file != nullptr) {
            const auto r = file->read(to.first(bytes), offset);
            return r ? static_cast<std::int32_t>(*r) : -EIO;
        }
        const ssize_t n = ::pread(fd, to.data(), bytes, static_cast<off_t>(offset));
        return n < 0 ? -errno : static_cast<std::int32_t>(n);
    }
    if (file == nullptr)
        return -EBADF;
    if (world->one_in(world->chances.journal_error))
        return world->below(2) == 0 ? -EIO : -ENOSPC;
    std::size_t whole = 0;
    for (const auto part : from)
        whole += part.size();
    if (whole > 4096 && from.size() == 1 && world->one_in(world->chances.short_io)) {
        whole = std::max<std::size_t>(4096, world->below(whole) / 4096 * 4096);
        from[0] = from[0].first(whole);
    }
    const auto r = file->write(from, offset);
    return r ? static_cast<std::int32_t>(whole) : -(r.error().sys_errno != 0 ? r.error().sys_errno : EIO);
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
        node_->want = events;
}
std::uint32_t Watch::events() const noexcept { return node_ ? node_->want : 0; }
void Watch::reset() noexcept {
    if (const auto node = std::move(node_))
        node->close();
    node_.reset();
}

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
        node_->start(world->now + delay_ns);
}
void Timer::stop() noexcept {
    if (node_)
        node_->stop();
}
bool Timer::active() const noexcept { return node_ && node_->active; }
void Timer::reset() noexcept {
    if (const auto node = std::move(node_))
        node->close();
    node_.reset();
}

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
bool Io::pending() const noexcept { return node_ && node_->pending; }
void Io::reset() noexcept {
    if (const auto node = std::move(node_))
        node->closed = true;
    node_.reset();
}

Loop::Loop(std::unique_ptr<detail::Core> core) noexcept : core_(std::move(core)) {}
Loop::~Loop() = default;
Result<std::unique_ptr<Loop>> Loop::create(const LoopOptions&) {
    return std::unique_ptr<Loop>(new Loop(std::make_unique<detail::Core>()));
}
Result<void> Loop::run() { return fail(Errc::unsupported, "the simulation runs the loops"); }
/// Only tells whether stop() was called: the simulation does the rounds.
Result<void> Loop::run_once(std::uint64_t) {
    return core_->stopped ? Result<void>(fail(Errc::closed, "stopped")) : Result<void>();
}
void Loop::stop() noexcept { core_->stopped = true; }
void Loop::post(Task task) {
    core_->tasks.push_back(std::move(task));
    core_->want_tasks();
}
std::uint64_t Loop::now_ns() noexcept { return world->now; }
std::size_t Loop::in_flight() const noexcept { return core_->ios.size(); }
bool Loop::has_multishot() const noexcept { return false; }

Timer Loop::after(std::uint64_t delay_ns, Task callback) {
    auto node = std::make_shared<detail::TimerNode>();
    node->alive = core_->alive;
    node->callback = std::move(callback);
    node->start(world->now + delay_ns);
    return Timer(std::move(node));
}
Timer Loop::every(std::uint64_t interval_ns, Task callback) {
    auto node = std::make_shared<detail::TimerNode>();
    node->alive = core_->alive;
    node->callback = std::move(callback);
    node->interval_ns = interval_ns;
    node->start(world->now + interval_ns);
    return Timer(std::move(node));
}
Watch Loop::watch(int fd, std::uint32_t events, WatchCallback callback, Trigger) {
    auto node = std::make_shared<detail::WatchNode>();
    node->fd = fd;
    node->want = events;
    node->callback = std::move(callback);
    core_->watches.push_back(node);
    return Watch(std::move(node));
}

namespace {
std::shared_ptr<detail::IoNode> node_of(detail::IoNode::Kind kind, int fd, std::uint64_t offset, IoCallback callback) {
    auto node = std::make_shared<detail::IoNode>();
    node->kind = kind;
    node->fd = fd;
    node->offset = offset;
    node->callback = std::move(callback);
    return node;
}
}  // namespace

Io Loop::read(int fd, std::span<std::byte> buffer, std::uint64_t offset, IoCallback callback) {
    auto node = node_of(detail::IoNode::Kind::read, fd, offset, std::move(callback));
    node->to = buffer;
    core_->submit(node);
    return Io(std::move(node));
}
Io Loop::write(int fd, std::span<const std::byte> buffer, std::uint64_t offset, IoCallback callback) {
    auto node = node_of(detail::IoNode::Kind::write, fd, offset, std::move(callback));
    node->from = {buffer};
    core_->submit(node);
    return Io(std::move(node));
}
Io Loop::writev(int fd, std::span<const iovec> pieces, std::uint64_t offset, IoCallback callback) {
    auto node = node_of(detail::IoNode::Kind::write, fd, offset, std::move(callback));
    for (const iovec& p : pieces)
        node->from.emplace_back(static_cast<const std::byte*>(p.iov_base), p.iov_len);
    core_->submit(node);
    return Io(std::move(node));
}
Io Loop::fsync(int fd, IoCallback callback) {
    auto node = node_of(detail::IoNode::Kind::sync, fd, 0, std::move(callback));
    core_->submit(node);
    return Io(std::move(node));
}
Io Loop::fdatasync(int fd, IoCallback callback) { return fsync(fd, std::move(callback)); }

}  // namespace blkferry::loop

namespace blkferry::sim {

namespace {
std::uint32_t ready(int fd, std::uint32_t want) {
    if (const auto it = world->ends.find(fd); it != world->ends.end()) {
        const End& end = *it->second;
        std::uint32_t events = 0;
        if (end.readable(world->now))
            events |= POLLIN;
        if (end.writable())
            events |= POLLOUT;
        events &= want;
        if (end.reset)
            events |= POLLERR | POLLHUP;
        return events;
    }
    pollfd p{fd, static_cast<short>(want), 0};
    return ::poll(&p, 1, 0) > 0 ? static_cast<std::uint32_t>(static_cast<unsigned short>(p.revents)) : 0;
}
}  // namespace

bool poll_watches() {
    bool any = false;
    const auto cores = world->cores;
    for (loop::detail::Core* core : cores) {
        if (std::ranges::find(world->cores, core) == world->cores.end())
            continue;
        std::erase_if(core->watches, [](const auto& w) { return w->closed; });
        const std::weak_ptr<bool> here = core->alive;
        const auto watches = core->watches;
        for (const auto& w : watches) {
            if (here.expired())
                break;
            if (w->closed || w->want == 0)
                continue;
            const std::uint32_t events = ready(w->fd, w->want);
            if (events == 0)
                continue;
            any = true;
            w->running = true;
            w->callback(events);
            w->running = false;
            if (w->closed)
                w->callback = nullptr;
        }
    }
    return any;
}

}  // namespace blkferry::sim
