// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "agent/workers.hpp"
#include "capture/tracker.hpp"

namespace blkferry::agent {

/// Takes cuts with file systems frozen, which may last as long as the freeze, in a thread of its own and over a tracker
/// connection of its own, so that the loop goes on meanwhile. One at a time.
class FreezeCut {
public:
    using Open = std::function<Result<std::unique_ptr<capture::Tracker>>()>;
    using Done = std::move_only_function<void(Result<std::uint64_t>)>;

    /// `open` is called in the thread, for each cut.
    FreezeCut(loop::Loop& loop, Open open) : open_(std::move(open)), pool_(loop, 1) {}
    FreezeCut(const FreezeCut&) = delete;
    FreezeCut& operator=(const FreezeCut&) = delete;
    /// Waits for the cut that runs; its `done` is dropped.
    ~FreezeCut() = default;

    /// Devices as BLKFERRY_CMD_CUT takes them. `done` gets the mark, in the loop. Errc::busy at once while another one runs.
    void start(std::vector<std::uint64_t> devices, std::uint32_t freeze_ms, Done done);
    [[nodiscard]] bool running() const noexcept { return running_; }

private:
    Open open_;
    bool running_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    WorkerPool pool_;  ///< last: it ends first
};

}  // namespace blkferry::agent
