// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "agent/shipper.hpp"
#include "capture/tracker.hpp"
#include "proto/batch.hpp"
#include "proto/control.hpp"

namespace blkferry::agent {

/// A recovery point that was asked for.
struct PointOutcome {
    std::uint64_t mark = 0;
    std::string name;
    bool fs = false;
};

/// Recovery points on request: a cut in the rings, a batch that ends at it, a POINT_REQUEST in that batch, the server's answer.
///
///     ask() -> CUT at S -> batch closes at S (closes()) -> POINT_REQUEST -> POINT_RESULT (result()) -> done
///
/// A request whose batch is not durable survives a reconnect (its CUT comes out of the ring again); the server repeats
/// results that found no session. One thread (the loop's).
class Points {
public:
    using Done = std::move_only_function<void(Result<PointOutcome>)>;
    static constexpr std::uint64_t wait_ns_max = 120'000'000'000;

    Points(capture::Tracker& tracker, Shipper& shipper) : tracker_(tracker), shipper_(shipper) {}

    struct Request {
        std::string name;                       ///< empty: the server names it
        bool fs = false;                        ///< the cut is taken with file systems frozen
    };
    /// Takes the cut now. The answer comes later, also if it is an error.
    void ask(Request request, Done done);
    /// The same with a cut that was taken (or not); nothing behind it may have been merged yet.
    void taken(const Result<std::uint64_t>& seq, Request request, Done done);

    /// A batch closes at `mark`: adds the requests whose cut it is, or fails them if the mark is not consistent.
    void closes(std::uint64_t mark, bool consistent);
    void result(const proto::PointResult& result);
    /// Fails what waits for too long. `now_ns` is monotonic.
    void expire(std::uint64_t now_ns);
    [[nodiscard]] bool waiting() const noexcept { return !pending_.empty(); }

private:
    struct Pending {
        std::uint64_t seq = 0;
        proto::PointRequest request;
        std::uint64_t asked_ns = 0;
        Done done;
    };
    void finish(std::map<std::uint64_t, Pending>::iterator it, Result<PointOutcome> outcome);

    capture::Tracker& tracker_;
    Shipper& shipper_;
    std::map<std::uint64_t, Pending> pending_;  ///< by request number
};

/// The devices whose file systems lie on one of the disks (device numbers), those stacked highest first; from
/// /proc/self/mountinfo and sysfs under `roots`.
[[nodiscard]] std::vector<std::uint64_t> mounted_on(const std::vector<std::uint64_t>& disks, const std::string& sys = "/sys",
                                                    const std::string& proc = "/proc");

}  // namespace blkferry::agent
