// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "extent/extent.hpp"
#include "loop/loop.hpp"

namespace blkferry::agent {

/// Page-aligned buffers for O_DIRECT, of a few sizes, bounded in sum. Buffers may be given back from any thread.
class ReadPool {
public:
    explicit ReadPool(std::size_t budget_bytes);

    /// A buffer of at least `bytes`, or null if the budget is used up (one buffer is always granted).
    [[nodiscard]] std::shared_ptr<std::byte> take(std::size_t bytes);
    /// take(bytes) would give nothing now.
    [[nodiscard]] bool full(std::size_t bytes) const;
    /// Gives memory that waits for reuse back to the system.
    void trim();

private:
    struct State;
    std::shared_ptr<State> state_;
};

/// Reads a disk (or the file that stands for one) through the loop.
class DiskReader {
public:
    using Done = std::move_only_function<void(Result<void>)>;

    /// Opens the path with O_DIRECT; a file system that cannot do that is read through its cache.
    [[nodiscard]] static Result<DiskReader> open(loop::Loop& loop, const std::string& path);

    /// Reads the whole extent into `buffer`. `done` runs from the loop, also when the reader is gone (then never called:
    /// see cancel()). A read that ends early is an error.
    void read(Extent extent, std::shared_ptr<std::byte> buffer, Done done);
    /// No `done` of a read that is in flight is called any more.
    void cancel() { alive_ = std::make_shared<bool>(true); }

private:
    struct Request;
    DiskReader(loop::Loop& loop, Fd fd, std::string path)
        : loop_(&loop), fd_(std::make_shared<Fd>(std::move(fd))), path_(std::move(path)) {}
    static void step(const std::shared_ptr<Request>& request);

    loop::Loop* loop_;
    std::shared_ptr<Fd> fd_;
    std::string path_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace blkferry::agent
