// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>
#include <functional>
#include <initializer_list>

#include "base/fd.hpp"
#include "loop/loop.hpp"

namespace blkferry::loop {

/// Delivers signals of the process as callbacks of the loop (signalfd). Create it before any other thread starts, so that
/// every thread inherits the blocked mask; destruction restores the mask of the calling thread.
class Signals {
public:
    using Callback = std::move_only_function<void(int signal)>;

    /// Blocks `signals` in the calling thread and calls back for each that arrives.
    [[nodiscard]] static Result<Signals> create(Loop& loop, std::initializer_list<int> signals, Callback callback);
    Signals(Signals&&) noexcept = default;
    Signals& operator=(Signals&&) = delete;
    ~Signals();

private:
    Signals() = default;
    Fd fd_;  // closed after the watch is gone
    sigset_t before_{};
    Watch watch_;
};

}  // namespace blkferry::loop
