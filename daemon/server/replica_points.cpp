// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "server/replica.hpp"

/// When recovery points of a replica are made, and which of them go again.
namespace blkferry::server {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t point_retry_ns_max = 10 * second_ns;
constexpr std::size_t point_results_max = 64;
}  // namespace

/// By the interval, at a mark that the agent called consistent, once the disks are synced; not twice at one mark. What was
/// in the journal at the start is applied first: it may hold a request for this very point.
void Replica::maybe_point() {
    const std::uint64_t now = around_.clock.monotonic_ns();
    if (around_.options.point_interval_ns == 0 || shutting_ || point_pending_ || in_batch_ || !consistent_ || !store_ ||
        now < point_due_ns_)
        return;
    const auto status = store_->status();
    if (store_->applied() < redo_end_ || !status.settled || (status.points > 0 && status.newest_point_mark == complete_mark_)) {
        point_due_ns_ = now + second_ns / 4;
        return;
    }
    if (const auto r = store_->request_point(++point_request_, proto::PointKind::crash, {}); !r) {
        journal_failed(r.error());
        return;
    }
    point_pending_ = true;
    commit_wanted_ = true;
}

/// The newest of those that the interval made, and the newest of those asked for: each kind makes way for its own only, so
/// that nobody who speaks for a source can push the others out.
void Replica::prune_points() {
    const std::uint64_t keep = around_.options.points_keep;
    if (keep == 0 || !store_)
        return;
    const auto points = store_->points().list();
    std::uint64_t scheduled = 0;
    std::uint64_t asked_for = 0;
    std::vector<std::string> old;
    for (auto p = points.rbegin(); p != points.rend(); ++p)
        if (++(p->scheduled ? scheduled : asked_for) > keep)
            old.push_back(p->name);
    for (auto name = old.rbegin(); name != old.rend(); ++name) {
        tasks_.push_back([&log = around_.log, source = name_, name = *name](store::SourceStore& store) {
            const auto r = store.remove_point(name);
            if (r)
                log.info("source={} event=point-pruned point={}", source, name);
            else if (r.error().code != Errc::not_found)
                log.warn("source={} event=prune-failed point={} error={}", source, name, quote(r.error()));
        });
        collect_wanted_ = true;
    }
}

void Replica::on_point(const store::PointOutcome& outcome) {
    const proto::PointResult& r = outcome.result;
    if (r.ok)
        around_.log.info("source={} event=point point={} mark={} by={}", name_, r.name, r.mark,
                         outcome.from_server ? "server" : "agent");
    else
        around_.log.warn("source={} event=point-refused mark={} by={} reason={}", name_, r.mark,
                         outcome.from_server ? "server" : "agent", quote(r.text));
    const std::uint64_t interval = around_.options.point_interval_ns;
    if (outcome.from_server)
        point_pending_ = false;
    point_due_ns_ = around_.clock.monotonic_ns() + (r.ok ? interval : std::min(interval, point_retry_ns_max));
    if (!outcome.from_server) {
        point_results_.push_back(r);
        if (point_results_.size() > point_results_max)
            point_results_.pop_front();
        if (welcomed_)
            session_->send_message(proto::FrameType::point_result, r);
    }
    if (r.ok)
        prune_points();
}

}  // namespace blkferry::server
