// SPDX-License-Identifier: Apache-2.0
#include "agent/points.hpp"

#include <utility>

#include <fmt/format.h>

#include "base/uuid.hpp"

namespace blkferry::agent {

namespace {
/// Never used twice, also not by the agent after the next start.
std::uint64_t random_number() {
    std::uint64_t v = 0;
    for (const std::uint8_t b : Uuid::random().bytes)
        v = v * 257 + b;
    return v;
}
}  // namespace

void Points::ask(Request request, Done done) {
    taken(tracker_.cut({}, 0), std::move(request), std::move(done));
}

void Points::taken(const Result<std::uint64_t>& seq, Request request, Done done) {
    if (!seq) {
        Error e = seq.error();
        done(std::unexpected(std::move(e).with("no mark was taken")));
        return;
    }
    const proto::PointRequest m{random_number(), request.fs ? proto::PointKind::fs : proto::PointKind::crash, std::move(request.name)};
    pending_.emplace(m.request, Pending{*seq, m, loop::Loop::now_ns(), std::move(done)});
}

void Points::closes(std::uint64_t mark, bool consistent) {
    std::size_t added = 0;
    for (auto it = pending_.begin(); it != pending_.end();) {
        const auto here = it++;
        if (here->second.seq != mark)
            continue;  // still to come, or sent: waits for its result
        if (!consistent)
            finish(here, fail(Errc::conflict, "a gap is open on a disk of this source: no recovery point can be made before it is "
                                              "closed; see 'blkferry status'"));
        else if (added == proto::batch_points_max)
            finish(here, fail(Errc::busy, "too many recovery points were asked for at once; try again"));
        else
            ++added, shipper_.add_point(here->second.request);
    }
}

void Points::result(const proto::PointResult& r) {
    const auto it = pending_.find(r.request);
    if (it == pending_.end())
        return;  // of an agent before this one
    if (r.ok)
        finish(it, PointOutcome{r.mark, r.name, it->second.request.kind == proto::PointKind::fs});
    else
        finish(it, fail(Errc::conflict, fmt::format("the server made no recovery point: {}", r.text)));
}

void Points::expire(std::uint64_t now_ns) {
    for (auto it = pending_.begin(); it != pending_.end();) {
        const auto here = it++;
        if (now_ns - here->second.asked_ns > wait_ns_max)
            finish(here, fail(Errc::timeout, fmt::format("the recovery point at mark {} was not confirmed within {} s; it may "
                                                         "still appear, see 'blkferry points'",
                                                         here->second.seq, wait_ns_max / 1'000'000'000)));
    }
}

void Points::finish(std::map<std::uint64_t, Pending>::iterator it, Result<PointOutcome> outcome) {
    Done done = std::move(it->second.done);
    pending_.erase(it);
    done(std::move(outcome));
}

}  // namespace blkferry::agent
