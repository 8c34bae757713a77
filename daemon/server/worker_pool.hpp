// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace blkferry::server {

/// Threads that run jobs in the order they were given. A job that wants to go on gives itself again, so that all get turns.
class WorkerPool {
public:
    using Job = std::move_only_function<void()>;

    explicit WorkerPool(unsigned threads);
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;
    /// Waits for the jobs that run; those that wait are dropped.
    ~WorkerPool();

    /// From any thread.
    void submit(Job job);

private:
    void run();

    std::mutex lock_;
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    bool stop_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace blkferry::server
