// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

/// What the command line asks for, one struct a command. The parser fills them, the commands read them.
namespace blkferry::tools {

struct StatusOptions {
    bool watch = false;
    double interval_s = 1;
};
struct DisksOptions {};
struct ProtectOptions {
    std::vector<std::string> devices;
};
struct UnprotectOptions {
    std::vector<std::string> devices;
};
struct MarkOptions {
    bool fs = false;
    std::string name;
};
struct ThrottleOptions {
    std::string rate;  ///< empty: only tell
};
struct PointsOptions {
    std::string source;
};
struct DeleteOptions {
    std::string point;
};
struct VerifyOptions {
    std::string point;  ///< [SOURCE/]POINT
    bool source = false;
};
struct ExportOptions {
    std::string point;  ///< [SOURCE/]POINT
    std::filesystem::path file;
    std::optional<unsigned> slot;
    std::filesystem::path store;  ///< set: offline, without the server
};
struct ServerStatusOptions {};
struct PkiInitOptions {
    std::filesystem::path dir;
    std::string name;
    unsigned days = 3650;
};
struct PkiIssueOptions {
    std::filesystem::path dir;
    std::string role;
    std::string name;
    unsigned days = 825;
    std::filesystem::path out = ".";
    std::filesystem::path request;  ///< set: sign this instead of making a key
};
struct PkiRevokeOptions {
    std::filesystem::path dir;
    std::string serial;
    std::string role;
    std::string name;
};
struct PkiListOptions {
    std::filesystem::path dir;
};
struct ConfigCheckOptions {
    std::string part;  ///< agent or server
    std::filesystem::path file;
};
struct ConfigDefaultOptions {
    std::string part;
};
struct CompletionOptions {
    std::string shell;  ///< bash, zsh or fish
};

using Command = std::variant<StatusOptions, DisksOptions, ProtectOptions, UnprotectOptions, MarkOptions, ThrottleOptions,
                             PointsOptions, DeleteOptions, VerifyOptions, ExportOptions, ServerStatusOptions, PkiInitOptions,
                             PkiIssueOptions, PkiRevokeOptions, PkiListOptions, ConfigCheckOptions, ConfigDefaultOptions,
                             CompletionOptions>;

/// What holds for every command.
struct Global {
    bool json = false;
    std::filesystem::path agent_socket;
    std::filesystem::path server_socket;
};

/// Documented in blkferry(1).
enum class Exit : int {
    ok = 0,
    failed = 1,
    usage = 2,
    unreachable = 3,  ///< the daemon does not answer
    differs = 4,      ///< a verification found differences
};

}  // namespace blkferry::tools
