// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "server/replica.hpp"

/// The worker's side of a replica: jobs, and what comes back from them.
namespace blkferry::server {

namespace {
constexpr std::uint64_t point_retry_ns_max = 10'000'000'000;
constexpr std::size_t point_results_max = 64;
}  // namespace

struct Replica::JobResult {
    Result<store::ApplyReport> report;
    Result<std::vector<proto::HashReply>> replies;
    std::uint64_t session = 0;
    bool collect_left = false;  ///< collecting was asked for and is not at its end
};

struct Replica::Job {
    std::shared_ptr<store::SourceStore> store;
    std::vector<WorkerTask> tasks;
    std::vector<proto::HashAsk> asks;
    store::Position asks_position = 0;
    std::uint64_t session = 0;
    std::uint64_t budget = 0;
    bool collect = false;

    /// In a worker. Asks wait here until staging has reached their place: the budget then is all there is.
    JobResult run() {
        for (WorkerTask& task : tasks)
            task(*store);
        tasks.clear();
        JobResult out{store->apply_some(budget), std::vector<proto::HashReply>{}, session, collect};
        while (out.report && !asks.empty() && store->applied() < asks_position) {
            auto more = store->apply_some(budget);
            if (!more) {
                out.report = std::unexpected(more.error());
                break;
            }
            more->bytes += out.report->bytes;
            more->batches += out.report->batches;
            std::ranges::move(out.report->epochs, std::back_inserter(more->epochs));
            std::ranges::move(out.report->points, std::back_inserter(more->points));
            if (more->bytes == out.report->bytes && store->applied() < asks_position) {
                out.report = fail(Errc::corrupt, "applying stands still below a durable position");
                break;
            }
            out.report = std::move(more);
        }
        for (const proto::HashAsk& ask : asks) {
            if (!out.report || !out.replies)
                break;
            auto reply = store->compare(ask);
            if (reply)
                out.replies->push_back(std::move(*reply));
            else
                out.replies = std::unexpected(reply.error());
        }
        if (collect && out.report && out.report->idle) {
            const auto removed = store->collect();
            out.collect_left = !removed || *removed > 0;
            if (!removed)
                out.report = std::unexpected(removed.error());
        }
        return out;
    }
};

void Replica::work() {
    if (working_ || !store_ || shutting_)
        return;
    const auto durable = store_->durable();
    Job job;
    job.store = store_;
    job.session = session_number_;
    job.budget = around_.options.apply_turn_bytes;
    job.tasks = std::exchange(tasks_, {});
    job.asks_position = durable.position;
    while (job.asks.empty() && !asks_.empty() && asks_.front().after_batch <= durable.batch) {
        job.asks.push_back(std::move(asks_.front().ask));
        asks_.pop_front();
    }
    const bool behind = store_->applied() < durable.position;
    job.collect = collect_wanted_;
    if (job.tasks.empty() && job.asks.empty() && !behind && !unstored_ && !job.collect)
        return;
    working_ = true;
    collect_wanted_ = false;  // what is removed from here on is collected by the next job
    around_.workers.submit([&loop = around_.loop, weak = weak_from_this(), job = std::move(job)]() mutable {
        auto result = std::make_unique<JobResult>(job.run());
        job.store.reset();
        loop.post([weak, result = std::move(result)] {
            if (const auto self = weak.lock())
                self->worked(std::move(*result));
        });
    });
}

void Replica::worked(JobResult result) {
    working_ = false;
    collect_wanted_ = collect_wanted_ || result.collect_left;
    if (shutting_) {
        maybe_shut();
        return;
    }
    if (!store_)
        return;
    if (!result.report) {
        around_.log.error("source={} event=apply-failed error={}", name_, quote(result.report.error()));
        fail_store(result.report.error());
        return;
    }
    const store::ApplyReport& report = *result.report;
    applied_bytes_ += report.bytes;
    idle_turns_ = report.bytes > 0 ? 0 : idle_turns_ + 1;
    // Turns without a byte go on until the checkpoint came; a bound in case that it came together with the last bytes.
    unstored_ = report.bytes > 0 || (unstored_ && !report.checkpointed && idle_turns_ < 60);
    for (const proto::EpochResult& r : report.epochs)
        on_epoch(r);
    for (const store::PointOutcome& p : report.points)
        on_point(p);
    if (welcomed_ && result.session == session_number_) {
        if (!result.replies) {
            Session& session = *session_;
            detach(session);
            session.refuse(result.replies.error());
        } else {
            for (const proto::HashReply& reply : *result.replies)
                session_->send_message(proto::FrameType::hash_reply, reply);
        }
    }
    maybe_point();
    update_hold();
    commit();
    if (!store_)
        return;
    const auto durable = store_->durable();
    if (store_->applied() < durable.position || !tasks_.empty() || collect_wanted_ ||
        (!asks_.empty() && asks_.front().after_batch <= durable.batch))
        work();
}

void Replica::on_epoch(const proto::EpochResult& result) {
    around_.log.info("source={} event=epoch slot={} seq0={} ok={} text={}", name_, result.slot, result.seq0, result.ok,
                     quote(result.text));
    epoch_results_[result.slot] = result;
    if (welcomed_)
        session_->send_message(proto::FrameType::epoch_result, result);
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
