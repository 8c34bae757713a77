// SPDX-License-Identifier: Apache-2.0
#include "tools/output.hpp"

#include <cstdio>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "base/clock.hpp"
#include "control/message.hpp"
#include "tools/human.hpp"

namespace blkferry::tools {

void print_json(const nlohmann::json& message) { print_text(control::to_line(message)); }

void print_text(std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
}

Exit report(const Global& global, const Error& error, Exit status) {
    if (global.json)
        print_json(control::error_message(error));
    else
        fmt::print(stderr, "blkferry: {}\n", printable(error.text));
    return status;
}

bool stdout_is_terminal() noexcept { return ::isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() noexcept { return ::isatty(STDERR_FILENO) == 1; }
std::uint64_t monotonic_ms() noexcept { return SystemClock().monotonic_ns() / 1'000'000; }
std::uint64_t realtime_ms() noexcept { return SystemClock().realtime_ns() / 1'000'000; }

}  // namespace blkferry::tools
