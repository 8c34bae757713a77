// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

/// What systemd is told; without systemd (no NOTIFY_SOCKET) all of it does nothing.
namespace blkferry::agent::notify {

void ready();
void reloading();
void stopping();
void status(std::string_view text);
void watchdog();
/// Nanoseconds between two watchdog() calls that systemd wants at most; 0: none.
[[nodiscard]] std::uint64_t watchdog_interval_ns();

}  // namespace blkferry::agent::notify
