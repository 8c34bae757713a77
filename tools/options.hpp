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
    bool all = false;
    bool no_replication = false;
    bool dry_run = false;
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
struct EnrollTokenOptions {
    std::string source;          ///< empty: the source names itself
    std::string expires = "24h";
};
struct TokensOptions {};
struct TokenRevokeOptions {
    std::string id;
};
struct RevokeOptions {
    std::string source;
};
struct EnrollOptions {
    std::string server;
    std::string source;          ///< empty: the host's name
    std::string token_file;      ///< "-": standard input; both empty: asked on the terminal
    std::string token;
    std::string proxy;
    std::filesystem::path proxy_password_file;
    std::filesystem::path dir = "/var/lib/blkferry/agent/tls";
    std::filesystem::path config = "/etc/blkferry/agent.toml";
    bool no_start = false;
};
struct UninstallOptions {
    bool local = false;          ///< a launched machine: it says nothing to the server
    bool force = false;
    bool packages = false;
    std::filesystem::path config = "/etc/blkferry/agent.toml";
};
struct ServerInitOptions {
    std::string name;            ///< empty: the host's name
    std::filesystem::path pki = "/var/lib/blkferry/pki";
    std::filesystem::path config = "/etc/blkferry/server.toml";
    bool no_start = false;
};
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
                             PointsOptions, DeleteOptions, VerifyOptions, ExportOptions, ServerStatusOptions, EnrollTokenOptions,
                             TokensOptions, TokenRevokeOptions, RevokeOptions, EnrollOptions, UninstallOptions, ServerInitOptions, PkiInitOptions,
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
