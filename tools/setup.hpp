// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <initializer_list>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.hpp"
#include "tools/options.hpp"

/// What setting a machine up, and taking it out again, share.
namespace blkferry::tools {

/// A disk and whether `protect --all` takes it.
struct Choice {
    std::string device;
    std::uint64_t bytes = 0;
    bool taken = false;
    std::string why;  ///< why not
};
/// From the agent's answer to `disks`; pure.
[[nodiscard]] std::vector<Choice> choose_disks(const nlohmann::json& answer, bool only_register);
[[nodiscard]] Exit protect_all(const Global& global, const ProtectOptions& options);

/// What root makes belongs to this user afterwards, where it exists. Nothing for others than root.
[[nodiscard]] Result<void> hand_over(const std::filesystem::path& path, const char* user);
/// A folder of mode 0700 for this user, and its parents.
[[nodiscard]] Result<void> make_folder(const std::filesystem::path& dir, const char* user);
/// Whether this run is the real thing: root, systemd, and the daemon's own configuration file.
[[nodiscard]] bool governs_system(const std::filesystem::path& config, const char* own);
/// Runs a program (found on PATH) with nothing on its standard input and output and waits; an error unless it ends with 0.
[[nodiscard]] Result<void> run_program(const std::vector<std::string>& words);
/// The host's name as a name of source or server.
[[nodiscard]] Result<std::string> host_name();

}  // namespace blkferry::tools
