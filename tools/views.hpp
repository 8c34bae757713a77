// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "tools/progress.hpp"

/// Answers of the daemons as text; pure. What is shown is never better than it is: 100 % only when nothing is left, finalizing
/// phases by their names, a stall with its cause.
namespace blkferry::tools {

/// The agent's status. `eta` (may be null) has followed the running sync.
[[nodiscard]] std::string status_text(const nlohmann::json& status, const Eta* eta);
/// The state in words, for example "Finalizing initial sync - flushing backlog".
[[nodiscard]] std::string state_text(const std::string& state, const std::string& cause);
/// The running sync is over and nothing is left: only then is 100 % shown.
[[nodiscard]] bool is_complete(const nlohmann::json& status);
[[nodiscard]] std::string disks_text(const nlohmann::json& answer);
[[nodiscard]] std::string server_status_text(const nlohmann::json& status);
[[nodiscard]] std::string points_text(const nlohmann::json& answer);

}  // namespace blkferry::tools
