// SPDX-License-Identifier: Apache-2.0
#include "server/notify.hpp"

#include <ctime>

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

namespace blkferry::server::notify {

void ready(const std::string& text) {
    (void)sd_notify(0, fmt::format("READY=1\nSTATUS={}", text).c_str());
}

void status(const std::string& text) {
    (void)sd_notify(0, fmt::format("STATUS={}", text).c_str());
}

void reloading() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    (void)sd_notify(0, fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000 + now.tv_nsec / 1000).c_str());
}

void stopping() {
    (void)sd_notify(0, "STOPPING=1");
}

void watchdog() {
    (void)sd_notify(0, "WATCHDOG=1");
}

std::uint64_t watchdog_ns() {
    std::uint64_t usec = 0;
    return sd_watchdog_enabled(0, &usec) > 0 ? usec * 1000 : 0;
}

}  // namespace blkferry::server::notify
