// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "base/result.hpp"
#include "tools/options.hpp"

namespace blkferry::tools {

/// One object in one line on stdout.
void print_json(const nlohmann::json& message);
/// Text on stdout as it is.
void print_text(std::string_view text);
/// An error: as JSON on stdout, or as text on stderr; gives the exit status for it.
[[nodiscard]] Exit report(const Global& global, const Error& error, Exit status = Exit::failed);
[[nodiscard]] bool stdout_is_terminal() noexcept;
[[nodiscard]] bool stderr_is_terminal() noexcept;
/// CLOCK_MONOTONIC and CLOCK_REALTIME in milliseconds.
[[nodiscard]] std::uint64_t monotonic_ms() noexcept;
[[nodiscard]] std::uint64_t realtime_ms() noexcept;

}  // namespace blkferry::tools
