// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

/// Words to systemd (sd_notify); all of them do nothing where it does not listen (no NOTIFY_SOCKET).
namespace blkferry::service::notify {

/// Started, or a reload is over; `status` (may be empty: none) is shown by `systemctl status`.
void ready(std::string_view status = {});
void status(std::string_view text);
void reloading();
void stopping();
void watchdog();
/// How often watchdog() should be called, in nanoseconds (a third of what systemd allows); 0: it wants none.
[[nodiscard]] std::uint64_t watchdog_interval_ns();

}  // namespace blkferry::service::notify
