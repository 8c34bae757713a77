// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "codec/compress.hpp"
#include "fold/encoder.hpp"
#include "loop/loop.hpp"

namespace blkferry::agent {

/// How EXTENTS frames are compressed.
struct Compression {
    Codec codec = Codec::none;
    int level = 1;
    bool operator==(const Compression&) const = default;
};

/// What one worker thread keeps between jobs.
class WorkerContext {
public:
    /// The thread's compressor for this setting, or null for Codec::none. Made anew only when the setting changed.
    [[nodiscard]] Compressor* compressor(const Compression& wanted);
    fold::FrameBuffer scratch;

private:
    Compression current_;
    std::optional<Compressor> compressor_;
};

/// Threads that only compress and hash. Jobs start in order of submission. `done` runs in the loop's thread.
/// Whatever a job reads must live until the job returned: let the job own it.
class WorkerPool {
public:
    using Work = std::move_only_function<void(WorkerContext&)>;

    WorkerPool(loop::Loop& loop, unsigned threads);
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;
    /// Waits for the jobs that run; jobs that wait are dropped, no `done` is called by the pool any more.
    ~WorkerPool();

    void submit(Work work, loop::Task done);
    [[nodiscard]] std::size_t threads() const noexcept { return threads_.size(); }

private:
    struct Job {
        Work work;
        loop::Task done;
    };
    void run();

    loop::Loop& loop_;
    std::mutex mutex_;  // jobs_ and stop_
    std::condition_variable wake_;
    std::deque<Job> jobs_;
    bool stop_ = false;
    std::vector<std::jthread> threads_;
};

}  // namespace blkferry::agent
