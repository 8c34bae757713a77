// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "server/replica.hpp"

/// The worker's side of a replica: jobs, and what comes back from them.
namespace blkferry::server {

struct Replica::JobResult {
    Result<store::ApplyReport> report;
    std::optional<Result<proto::HashReply>> reply;
    std::optional<Ask> ask;  ///< not answered: staging has not reached its place yet
    std::uint64_t session = 0;
    bool collect_left = false;  ///< collecting was asked for and is not at its end
};

struct Replica::Job {
    std::shared_ptr<store::SourceStore> store;
    std::vector<WorkerTask> tasks;
    std::optional<Ask> ask;
    std::uint64_t session = 0;
    std::uint64_t budget = 0;
    bool collect = false;

    /// In a worker: one turn, and then other sources have theirs. A question for whose place in the stream staging is not there
    /// yet goes back and comes with a later turn.
    JobResult run() {
        for (WorkerTask& task : tasks)
            task(*store);
        tasks.clear();
        JobResult out{store->apply_some(budget), std::nullopt, std::nullopt, session, collect};
        if (ask && out.report) {
            if (store->status().applied_batch >= ask->after_batch)
                out.reply = store->compare(ask->ask);
            else
                out.ask = std::move(ask);
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
    if (!asks_.empty() && asks_.front().after_batch <= durable.batch) {
        job.ask = std::move(asks_.front());
        asks_.pop_front();
    }
    const bool behind = store_->applied() < durable.position;
    job.collect = collect_wanted_;
    if (job.tasks.empty() && !job.ask && !behind && !unstored_ && !job.collect)
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
        if (result.ask)
            asks_.push_front(std::move(*result.ask));
        if (result.reply && *result.reply) {
            session_->send_message(proto::FrameType::hash_reply, **result.reply);
        } else if (result.reply) {
            Session& session = *session_;
            detach(session);
            session.refuse(result.reply->error());
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

}  // namespace blkferry::server
