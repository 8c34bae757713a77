// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include <sys/uio.h>

#include "base/result.hpp"

/// One io_uring, one thread: descriptors, timers, disk I/O and tasks of a daemon meet here as callbacks.
///
/// Thread rule: everything except Loop::post and Loop::stop belongs to the thread that calls run(); building a loop and
/// its first handles in another thread before run() starts (and destroying them after it returned) is fine.
/// Handle rule: a handle is the owner of its callback. Destroying it (in any callback, also its own) cancels: the
/// callback is not called again. A handle may outlive the loop; it then does nothing.
namespace blkferry::loop {

namespace detail {
class Core;
class WatchNode;
class TimerNode;
class IoNode;
}  // namespace detail

using Task = std::move_only_function<void()>;
/// Poll events that came true: POLLIN, POLLOUT, POLLHUP, POLLERR, ... of poll(2).
using WatchCallback = std::move_only_function<void(std::uint32_t events)>;
/// Bytes moved (may be fewer than asked for), 0 for the sync operations, or -errno.
using IoCallback = std::move_only_function<void(std::int32_t result)>;

/// Level: called as long as the condition holds (re-armed after each callback), so a callback may leave data behind.
/// Edge: one multishot poll; called when the condition comes true again, so a callback must drain until EAGAIN. Cheaper
/// per event. Where the kernel has no multishot poll (before 5.13) edge behaves as level.
enum class Trigger : std::uint8_t { level, edge };

/// Interest in the events of a descriptor; see Loop::watch.
class Watch {
public:
    Watch() noexcept;
    Watch(Watch&&) noexcept;
    Watch& operator=(Watch&&) noexcept;
    ~Watch();

    /// Changes what is waited for; 0 pauses the watch (also for POLLHUP and POLLERR). Cheap if nothing changes.
    void set_events(std::uint32_t events);
    [[nodiscard]] std::uint32_t events() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept { return node_ != nullptr; }
    void reset() noexcept;

private:
    friend class Loop;
    explicit Watch(std::shared_ptr<detail::WatchNode> node) noexcept;
    std::shared_ptr<detail::WatchNode> node_;
};

/// A timer; see Loop::after and Loop::every.
class Timer {
public:
    Timer() noexcept;
    Timer(Timer&&) noexcept;
    Timer& operator=(Timer&&) noexcept;
    ~Timer();

    /// Arms it anew: fires delay_ns from now (a periodic timer then goes on with its interval).
    void restart(std::uint64_t delay_ns);
    /// Stops it but keeps the callback for a later restart().
    void stop() noexcept;
    /// It will fire.
    [[nodiscard]] bool active() const noexcept;
    [[nodiscard]] explicit operator bool() const noexcept { return node_ != nullptr; }
    void reset() noexcept;

private:
    friend class Loop;
    explicit Timer(std::shared_ptr<detail::TimerNode> node) noexcept;
    std::shared_ptr<detail::TimerNode> node_;
};

/// A disk operation in flight; see Loop::read. Destroying it tries to cancel and suppresses the callback, but the kernel
/// may use the buffer and the descriptor until the operation ends. So let the callback own both (capture them): the
/// callback object is destroyed only when the kernel is done, also if the handle or the whole loop went away before.
class Io {
public:
    Io() noexcept;
    Io(Io&&) noexcept;
    Io& operator=(Io&&) noexcept;
    ~Io();

    /// Lets the operation and its callback go on without a handle.
    void detach() noexcept;
    /// Not completed yet.
    [[nodiscard]] bool pending() const noexcept;
    void reset() noexcept;

private:
    friend class Loop;
    explicit Io(std::shared_ptr<detail::IoNode> node) noexcept;
    std::shared_ptr<detail::IoNode> node_;
};

struct LoopOptions {
    unsigned entries = 512;  ///< size of the submission queue; more operations than that may be in flight
    /// The ring is created, run and destroyed by one thread: allows SINGLE_ISSUER and DEFER_TASKRUN (kernel 6.1).
    bool single_thread = false;
    /// Use multishot poll if the kernel has it; false is for tests of the other way.
    bool multishot = true;
};

class Loop {
public:
    /// Makes the ring. Needs kernel 5.10 (io_uring with fast poll); Errc::unsupported tells what is missing.
    [[nodiscard]] static Result<std::unique_ptr<Loop>> create(const LoopOptions& options = {});
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
    /// Cancels what is in flight and waits until the kernel is done with every buffer; no callback is called.
    ~Loop();

    /// Runs callbacks until stop(). Error: the ring itself failed.
    [[nodiscard]] Result<void> run();
    /// One round: waits at most timeout_ns for something to do, then does all that is ready.
    [[nodiscard]] Result<void> run_once(std::uint64_t timeout_ns);
    /// Makes run() return after the current round. From any thread, also before run(), also from signal-free callbacks.
    void stop() noexcept;
    /// Runs the task in the loop's thread, after what is ready now, in order of posting. From any thread. Tasks that did
    /// not run when the loop is destroyed are destroyed with it.
    void post(Task task);

    /// CLOCK_MONOTONIC in nanoseconds, read anew at each call.
    [[nodiscard]] static std::uint64_t now_ns() noexcept;

    /// Fires once, delay_ns from now. Never before its time.
    [[nodiscard]] Timer after(std::uint64_t delay_ns, Task callback);
    /// Fires each interval_ns (> 0). Rounds that were missed because the loop was busy are skipped, not made up for.
    [[nodiscard]] Timer every(std::uint64_t interval_ns, Task callback);

    /// Calls back with the events of `events` (and POLLHUP, POLLERR always) that came true on fd. The descriptor stays the
    /// caller's: destroy the watch before closing it. A descriptor that cannot be polled gives POLLNVAL once.
    [[nodiscard]] Watch watch(int fd, std::uint32_t events, WatchCallback callback, Trigger trigger = Trigger::level);

    /// pread/pwrite/fsync in the background. At most 1 GiB a call. See Io about buffers. offset -1: current position
    /// (sockets, pipes).
    [[nodiscard]] Io read(int fd, std::span<std::byte> buffer, std::uint64_t offset, IoCallback callback);
    [[nodiscard]] Io write(int fd, std::span<const std::byte> buffer, std::uint64_t offset, IoCallback callback);
    /// Writes at most 1024 pieces; the array is copied, the bytes it points to are not.
    [[nodiscard]] Io writev(int fd, std::span<const iovec> pieces, std::uint64_t offset, IoCallback callback);
    [[nodiscard]] Io fsync(int fd, IoCallback callback);
    [[nodiscard]] Io fdatasync(int fd, IoCallback callback);

    /// Operations the kernel holds now, watches included.
    [[nodiscard]] std::size_t in_flight() const noexcept;
    /// Multishot poll is in use.
    [[nodiscard]] bool has_multishot() const noexcept;

private:
    explicit Loop(std::unique_ptr<detail::Core> core) noexcept;
    std::unique_ptr<detail::Core> core_;
};

}  // namespace blkferry::loop
