// SPDX-License-Identifier: Apache-2.0
#include "agent/workers.hpp"

#include <utility>

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
    threads_.reserve(threads);
    for (unsigned i = 0; i < threads; ++i)
        threads_.emplace_back([this] { run(); });
}

WorkerPool::~WorkerPool() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
        jobs_.clear();
    }
    wake_.notify_all();
    threads_.clear();
}

void WorkerPool::submit(Work work, loop::Task done) {
    {
        const std::lock_guard lock(mutex_);
        jobs_.push_back({std::move(work), std::move(done)});
    }
    wake_.notify_one();
}

void WorkerPool::run() {
    WorkerContext context;
    for (;;) {
        Job job;
        {
            std::unique_lock lock(mutex_);
            wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
            if (stop_)
                return;
            job = std::move(jobs_.front());
            jobs_.pop_front();
        }
        job.work(context);
        job.work = nullptr;  // what it owned goes before anybody hears of its end
        loop_.post(std::move(job.done));
    }
}

}  // namespace blkferry::agent
