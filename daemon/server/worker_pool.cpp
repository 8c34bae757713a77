// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.hpp"

#include <csignal>

#include <pthread.h>

namespace blkferry::server {

WorkerPool::WorkerPool(unsigned threads) {
    // Signals belong to the loop's thread.
    sigset_t all;
    sigset_t before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; i < threads; ++i)
        threads_.emplace_back([this] { run(); });
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

WorkerPool::~WorkerPool() {
    std::deque<Job> dropped;
    {
        const std::lock_guard guard(lock_);
        stop_ = true;
        dropped.swap(jobs_);
    }
    wake_.notify_all();
    dropped.clear();
    for (std::thread& t : threads_)
        t.join();
}

void WorkerPool::submit(Job job) {
    {
        const std::lock_guard guard(lock_);
        if (stop_)
            return;
        jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
}

void WorkerPool::run() {
    for (;;) {
        Job job;
        {
            std::unique_lock guard(lock_);
            wake_.wait(guard, [this] { return stop_ || !jobs_.empty(); });
            if (stop_)
                return;
            job = std::move(jobs_.front());
            jobs_.pop_front();
        }
        job();
    }
}

}  // namespace blkferry::server
