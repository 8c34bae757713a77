// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace blkferry::server {

/// Words to systemd (sd_notify); all do nothing when it does not listen.
namespace notify {
void ready(const std::string& status);
void status(const std::string& status);
void reloading();
void stopping();
void watchdog();
/// The interval in which watchdog() has to be called, or 0 if none is wanted.
[[nodiscard]] std::uint64_t watchdog_ns();
}  // namespace notify

}  // namespace blkferry::server
