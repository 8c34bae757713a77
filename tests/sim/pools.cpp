// SPDX-License-Identifier: Apache-2.0
// Stands for the threads of both worker pools: a job runs whole, at a seeded time, in the order of submission.
#include "agent/workers.hpp"
#include "server/worker_pool.hpp"
#include "world.hpp"

namespace blkferry::sim {

struct PoolQueue {
    std::deque<std::function<void()>> jobs;
    unsigned threads = 1;
    unsigned busy = 0;  ///< threads that woke up for one of the jobs
};

namespace {
void next(const std::shared_ptr<PoolQueue>& q) {
    if (q->jobs.size() <= q->busy || q->busy >= q->threads)
        return;
    ++q->busy;
    const std::uint64_t delay = world->one_in(40) ? world->between(1, 30) * ms : world->between(5, 400) * us;
    world->in(delay, [weak = std::weak_ptr<PoolQueue>(q)] {
        const auto here = weak.lock();
        if (!here)
            return;
        --here->busy;
        const auto job = std::move(here->jobs.front());
        here->jobs.pop_front();
        next(here);
        job();
    });
}
void open_pool(const void* pool, unsigned threads) {
    auto q = std::make_shared<PoolQueue>();
    q->threads = threads;
    world->pools[pool] = std::move(q);
}
void give(const void* pool, std::function<void()> job) {
    const auto q = world->pools.at(pool);
    q->jobs.push_back(std::move(job));
    next(q);
}
void close_pool(const void* pool) {
    const auto q = std::move(world->pools.at(pool));
    world->pools.erase(pool);
    auto jobs = std::exchange(q->jobs, {});
}
}  // namespace

}  // namespace blkferry::sim

namespace blkferry::agent {

Compressor* WorkerContext::compressor(const Compression& wanted) {
    if (wanted.codec == Codec::none)
        return nullptr;
    if (!compressor_ || !(current_ == wanted)) {
        compressor_.emplace(wanted.codec, wanted.level);
        current_ = wanted;
    }
    return &*compressor_;
}

WorkerPool::WorkerPool(loop::Loop& loop, unsigned threads) : loop_(loop) {
    threads_.resize(threads);  // none of them runs
    sim::open_pool(this, threads);
}
WorkerPool::~WorkerPool() { sim::close_pool(this); }
void WorkerPool::submit(Work work, loop::Task done) {
    auto job = std::make_shared<Job>(std::move(work), std::move(done));
    sim::give(this, [this, job] {
        WorkerContext context;
        job->work(context);
        job->work = nullptr;
        loop_.post(std::move(job->done));
    });
}

}  // namespace blkferry::agent

namespace blkferry::server {

WorkerPool::WorkerPool(unsigned threads) { sim::open_pool(this, threads); }
WorkerPool::~WorkerPool() { sim::close_pool(this); }
void WorkerPool::submit(Job job) {
    sim::give(this, [job = std::make_shared<Job>(std::move(job))] { (*job)(); });
}

}  // namespace blkferry::server
