// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "capture/ring.hpp"

namespace blkferry::capture {

/// Merges the rings of all disks by seq without ever skipping a number, so that what came out up to S is a cut over all
/// disks. Pure on top of Ring; does not own the rings. One thread.
///
///     next() == op       CapturedOp given (any OpKind, any OpState), mark() is its seq
///            == idle     no ring holds the next number (and none holds a higher one)
///            == waiting  the operation with the next number is not finished
///            == hole     a higher number is there, the next one is not. A number is drawn before its descriptor can be
///                        seen, so this may pass by itself; to be sure: info(), list() (takes each disk's lock),
///                        fence(void_seq of info) and next() again
///            == bad      a broken promise, see error(): mark all disks dirty and rescan
class Merger {
public:
    enum class Status : std::uint8_t { op, idle, waiting, hole, bad };

    /// `next_seq` is the first number wanted, usually the server's durable mark + 1. Operations below it that are
    /// still in a ring are dropped when they come up (they are durable); see dropped().
    explicit Merger(std::uint64_t next_seq = 1) noexcept : next_(next_seq), first_(next_seq) {}

    /// Adds a ring; its operations carry `slot`. The ring must outlive its membership. Slots are unique.
    void add(Ring& ring, std::uint16_t slot);
    /// Takes the ring of `slot` out (it was detached: call fence() afterwards, its numbers are void).
    void remove(std::uint16_t slot);
    /// Starts again: rewinds every ring to its tail and wants `next_seq` next.
    void restart(std::uint64_t next_seq);

    /// Gives the next operation in the order of numbers.
    [[nodiscard]] Status next(CapturedOp& op);
    /// Takes at most `max` operations and appends them to `out`; the status is why it stopped (op: max reached). Stops
    /// after a marker too, so that the caller can close a batch there.
    Status take(std::vector<CapturedOp>& out, std::size_t max);

    /// A missing number <= void_seq may be skipped. Order matters: `void_seq` was read by Tracker::info(), and
    /// Tracker::list() was called after that; then every live number up to it is visible in its ring. A hole
    /// that is still there after a fence is a broken promise.
    void fence(std::uint64_t void_seq);

    /// Every operation with a number <= mark() was given out (or is void).
    [[nodiscard]] std::uint64_t mark() const noexcept { return next_ - 1; }
    /// CLOCK_REALTIME of the newest operation given out, 0 if none.
    [[nodiscard]] std::uint64_t time_ns() const noexcept { return time_ns_; }
    /// Operations dropped because their number was below the first one wanted.
    [[nodiscard]] std::uint64_t dropped() const noexcept { return dropped_; }
    [[nodiscard]] const Error& error() const noexcept { return error_; }

    /// How far each ring was consumed: acknowledge them together once the batch is durable.
    struct Position {
        std::uint64_t member = 0;  ///< which add() it belongs to: a ring added later under the same slot is another one
        std::uint64_t index = 0;
    };
    [[nodiscard]] std::vector<Position> positions() const;
    /// Gives back what was consumed up to `positions`; rings that were removed meanwhile are ignored.
    void ack(const std::vector<Position>& positions) noexcept;

    /// Arms the rings that next() waits for: the one with the unfinished operation, else all. False: something is there
    /// already, call next().
    [[nodiscard]] bool arm() noexcept;
    void disarm() noexcept;

private:
    struct Member {
        Ring* ring = nullptr;
        std::uint64_t serial = 0;
        std::uint16_t slot = 0;
    };
    static constexpr std::uint64_t no_seq = ~0ULL;

    bool load_front(std::size_t member);
    bool refresh_empty();
    [[nodiscard]] Status no_front();
    void give(std::size_t member, CapturedOp& op);
    void set_error(Error error);

    std::vector<Member> members_;
    std::vector<std::uint64_t> front_seq_;  ///< seq at each ring's cursor; no_seq: nothing there
    std::vector<CapturedOp> front_;
    std::vector<std::uint8_t> ready_;       ///< 1: front_ is final
    std::size_t last_ = 0;
    std::uint64_t serial_ = 0;
    std::uint64_t next_;
    std::uint64_t first_;            ///< the first number wanted; what is below it is dropped
    std::uint64_t void_seq_ = 0;
    std::uint64_t hole_ = 0;         ///< number that was missing at the last next(), 0 if none
    bool hole_fenced_ = false;
    std::uint64_t time_ns_ = 0;
    std::uint64_t dropped_ = 0;
    bool bad_ = false;
    Error error_;
};

}  // namespace blkferry::capture
