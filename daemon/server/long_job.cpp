// SPDX-License-Identifier: Apache-2.0
#include "server/long_job.hpp"

#include <nlohmann/json.hpp>

namespace blkferry::server {

namespace {
constexpr std::uint64_t progress_ns = 250'000'000;
}

LongJob::LongJob(loop::Loop& loop, control::Reply reply, std::shared_ptr<const std::atomic<bool>> stop)
    : loop_(loop), reply_(std::make_unique<control::Reply>(std::move(reply))), stop_(std::move(stop)) {}

LongJob::~LongJob() = default;

void LongJob::start(loop::Loop& loop, WorkerPool& pool, control::Reply reply,
                    std::shared_ptr<const std::atomic<bool>> stop, Body body) {
    std::shared_ptr<LongJob> job(new LongJob(loop, std::move(reply), std::move(stop)));
    pool.submit([job = std::move(job), body = std::move(body)]() mutable {
        loop::Loop& l = job->loop_;
        auto result = std::make_unique<Result<control::Json>>(body(*job));
        l.post([job = std::move(job), result = std::move(result)] {
            if (*result)
                job->reply_->done(**result);
            else
                job->reply_->fail(result->error());
        });
    });
}

bool LongJob::progress(std::uint64_t done_bytes, std::uint64_t total_bytes) {
    if (stop_->load(std::memory_order_relaxed) || abandoned_.load(std::memory_order_relaxed))
        return false;
    const std::uint64_t now = loop::Loop::now_ns();
    if (now - told_ns_ < progress_ns)
        return true;
    told_ns_ = now;
    loop_.post([job = shared_from_this(), done_bytes, total_bytes] {
        if (job->reply_->abandoned())
            job->abandoned_.store(true, std::memory_order_relaxed);
        else
            job->reply_->line({{"progress", {{"done_bytes", done_bytes}, {"total_bytes", total_bytes}}}});
    });
    return true;
}

}  // namespace blkferry::server
