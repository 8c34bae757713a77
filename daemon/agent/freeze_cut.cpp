// SPDX-License-Identifier: Apache-2.0
#include "agent/freeze_cut.hpp"

#include <utility>

namespace blkferry::agent {

void FreezeCut::start(std::vector<std::uint64_t> devices, std::uint32_t freeze_ms, Done done) {
    if (running_) {
        done(fail(Errc::busy, "another mark with frozen file systems is being taken"));
        return;
    }
    running_ = true;
    auto result = std::make_shared<Result<std::uint64_t>>(fail(Errc::closed, "not run"));
    pool_.submit(
        [open = open_, devices = std::move(devices), freeze_ms, result](WorkerContext&) {
            auto tracker = open();
            *result = tracker ? (*tracker)->cut(devices, freeze_ms) : std::unexpected(std::move(tracker).error());
        },
        [this, alive = std::weak_ptr<bool>(alive_), result, done = std::move(done)]() mutable {
            if (alive.expired())
                return;
            running_ = false;
            done(std::move(*result));
        });
}

}  // namespace blkferry::agent
