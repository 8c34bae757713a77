// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/compare.hpp"
#include "agent/disk.hpp"
#include "agent/read_pool.hpp"
#include "agent/resync.hpp"
#include "agent/shipper.hpp"
#include "agent/verify_state.hpp"
#include "capture/tracker.hpp"
#include "extent/extent_set.hpp"
#include "loop/loop.hpp"
#include "loop/token_bucket.hpp"

namespace blkferry::agent {

/// Compares disks with the server's replica by hash while replication goes on.
///
///     pass: every 1 MiB block --differs--> suspects
///     round: S = newest number; when S is durable: read and compare the suspects again; S2 = newest number; when S2 is
///            durable too, every write between is known: what differs and was not written in the round differs in truth,
///            what was written goes to the next round
///
/// What differs in truth is reported and marked dirty, so that it is shipped. Reads of the source pass a token bucket. place()
/// tells from where a later one can go on. One thread (the loop's).
class Verify {
public:
    struct Target {
        Disk* disk;
        Resync* resync;
    };
    struct Range {
        std::uint16_t slot = 0;
        std::string device;
        std::uint64_t offset = 0;
        std::uint64_t bytes = 0;
    };
    struct Outcome {
        std::uint64_t compared_bytes = 0;
        std::uint64_t differing_bytes = 0;
        std::uint64_t unsettled_bytes = 0;  ///< written in every round: could not be judged
        std::vector<Range> ranges;          ///< the first ones that differ
    };
    struct Progress {
        std::uint64_t done_bytes = 0;
        std::uint64_t total_bytes = 0;
        std::uint64_t differing_bytes = 0;
    };
    struct Parts {
        capture::Tracker& tracker;
        Shipper& shipper;
        ReadPool& pool;
        HashExchange& hashes;
        loop::Loop& loop;
        loop::TokenBucket& bucket;  ///< bytes read from the source's disks
    };
    using Done = std::move_only_function<void(Result<Outcome>)>;
    static constexpr std::size_t ranges_max = 100;

    /// Called when a range differs in truth.
    using Found = std::move_only_function<void(const Range&)>;

    /// `targets` ascending by slot; it begins at `from`.
    Verify(Parts parts, std::vector<Target> targets, VerifyPlace from, Found found, Done done);
    Verify(const Verify&) = delete;
    Verify& operator=(const Verify&) = delete;

    /// Goes on; call it from time to time and when something became durable.
    void step();
    [[nodiscard]] Progress progress() const noexcept;
    /// Everything before it has been judged: it only grows.
    [[nodiscard]] VerifyPlace place() const noexcept;
    [[nodiscard]] const Outcome& outcome() const noexcept { return outcome_; }
    void batch_wrote(const fold::Folded& folded);
    void session_ended() { finish(fail(Errc::closed, "the session with the server ended; try again")); }
    void abandon() { finish(fail(Errc::closed, "abandoned")); }
    [[nodiscard]] bool ended() const noexcept { return phase_ == Phase::over; }

private:
    enum class Phase : std::uint8_t { settling, comparing, judging, over };
    struct Job {
        std::size_t target = 0;
        Extent extent;
    };
    struct Suspect {
        std::size_t target = 0;
        Extent block;
        std::vector<Extent> runs;
    };

    /// A block by the order of the pass.
    using Where = std::pair<std::size_t, std::uint64_t>;

    void compare_more();
    [[nodiscard]] bool may_read();
    [[nodiscard]] Where watermark() const noexcept;
    void watch(const Job& job) { watched_[targets_[job.target].disk->slot()].insert(job.extent); }
    void compared(const Job& job, std::vector<Extent> differs);
    void judge();
    void report(const Suspect& s, const Extent& run);
    void next_round();
    [[nodiscard]] bool settled() const noexcept;
    [[nodiscard]] bool durable_up_to(std::uint64_t seq) const noexcept;
    [[nodiscard]] bool take_number();
    void finish(Result<Outcome> outcome);

    Parts parts_;
    std::vector<Target> targets_;
    Found found_;
    Done done_;
    Phase phase_ = Phase::settling;
    unsigned round_ = 0;
    std::uint64_t seq_ = 0;           ///< number that must be durable before the phase goes on
    std::uint64_t epochs_ = 0;        ///< of all targets when the round began
    std::size_t pass_target_ = 0;     ///< where the first pass is
    std::uint64_t pass_sector_ = 0;
    std::deque<Job> jobs_;
    std::set<Where> running_;         ///< blocks that are being read and compared
    loop::Timer throttle_;
    std::vector<Suspect> suspects_;
    std::map<std::uint16_t, ExtentSet> watched_;  ///< suspect blocks of the round, by slot
    std::map<std::uint16_t, ExtentSet> written_;  ///< what was captured in them since the round began
    std::uint64_t total_bytes_ = 0;
    Outcome outcome_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace blkferry::agent
