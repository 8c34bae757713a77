// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "control/server.hpp"
#include "loop/loop.hpp"
#include "server/worker_pool.hpp"

namespace blkferry::server {

/// A command that reads for a long time in a worker, reports progress lines, and stops when its client went away.
/// The Reply is touched in the loop's thread only.
class LongJob : public std::enable_shared_from_this<LongJob> {
public:
    /// Runs in the worker; the value becomes the answer.
    using Body = std::move_only_function<Result<control::Json>(LongJob&)>;

    /// Starts it. `stop` ends all jobs of its owner.
    static void start(loop::Loop& loop, WorkerPool& pool, control::Reply reply,
                      std::shared_ptr<const std::atomic<bool>> stop, Body body);
    ~LongJob();

    /// From the worker: a progress line now and then. False: nobody waits any more, stop.
    [[nodiscard]] bool progress(std::uint64_t done_bytes, std::uint64_t total_bytes);

private:
    LongJob(loop::Loop& loop, control::Reply reply, std::shared_ptr<const std::atomic<bool>> stop);

    loop::Loop& loop_;
    std::unique_ptr<control::Reply> reply_;  ///< loop only
    std::shared_ptr<const std::atomic<bool>> stop_;
    std::atomic<bool> abandoned_{false};
    std::uint64_t told_ns_ = 0;              ///< worker only
};

}  // namespace blkferry::server
