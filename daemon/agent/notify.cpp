// SPDX-License-Identifier: Apache-2.0
#include "agent/notify.hpp"

#include <ctime>
#include <string>

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

namespace blkferry::agent::notify {

void ready() {
    (void)sd_notify(0, "READY=1");
}

void reloading() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    const auto text = fmt::format("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1'000'000 + now.tv_nsec / 1000);
    (void)sd_notify(0, text.c_str());
}

void stopping() {
    (void)sd_notify(0, "STOPPING=1");
}

void status(std::string_view text) {
    (void)sd_notify(0, fmt::format("STATUS={}", text).c_str());
}

void watchdog() {
    (void)sd_notify(0, "WATCHDOG=1");
}

std::uint64_t watchdog_interval_ns() {
    std::uint64_t usec = 0;
    return sd_watchdog_enabled(0, &usec) > 0 ? usec * 1000 / 2 : 0;
}

}  // namespace blkferry::agent::notify
