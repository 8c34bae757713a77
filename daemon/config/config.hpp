// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "config/units.hpp"

/// The files agent.toml and server.toml. A schema table (key, kind, range, default, help) is the only description: loading,
/// the commented default file and the check of the manual pages all come from it.
namespace blkferry::config {

inline constexpr const char* agent_file = "/etc/blkferry/agent.toml";
inline constexpr const char* server_file = "/etc/blkferry/server.toml";
inline constexpr const char* agent_socket = "/run/blkferry/agent/control.sock";
inline constexpr const char* server_socket = "/run/blkferry/server/control.sock";
inline constexpr std::uint16_t default_port = 1500;

enum class Compression : std::uint8_t { none, lz4, zstd };
enum class LogLevel : std::uint8_t { error, warning, info, debug };
enum class Capture : std::uint8_t { automatic, module, ebpf };
enum class SnapshotEngine : std::uint8_t { automatic, reflink, copy };

[[nodiscard]] std::string_view to_string(Compression value) noexcept;
[[nodiscard]] std::string_view to_string(LogLevel value) noexcept;
[[nodiscard]] std::string_view to_string(Capture value) noexcept;
[[nodiscard]] std::string_view to_string(SnapshotEngine value) noexcept;

struct AgentConfig {
    std::vector<Endpoint> server;      ///< of one server, tried in turn
    std::string source;
    std::filesystem::path state_dir;
    std::filesystem::path control_socket;
    std::filesystem::path cert;
    std::filesystem::path key;
    std::filesystem::path ca;
    std::string server_name;           ///< empty: any server of this CA
    std::string proxy;                 ///< http://[user@]host[:port]; empty: none
    std::filesystem::path proxy_password_file;
    std::uint64_t bandwidth = 0;       ///< bytes per second on the wire, 0 = unlimited
    Compression compression = Compression::none;
    std::int64_t compression_level = 0;
    std::uint64_t batch_interval_ms = 0;
    std::uint64_t batch_bytes = 0;
    std::uint64_t ring_bytes = 0;      ///< per disk
    Capture capture = Capture::automatic;
    std::uint64_t cycle_interval_ms = 0;  ///< without the module: from the begin of a round to that of the next
    std::uint64_t resync_queue_depth = 0;
    std::uint64_t resync_block_bytes = 0;
    std::uint64_t workers = 0;
    std::uint64_t verify_interval_ms = 0;  ///< between verifications of source against replica, 0 = only on request
    std::uint64_t verify_bandwidth = 0;    ///< bytes per second that a verification reads, 0 = unlimited
    LogLevel log_level = LogLevel::info;
    bool operator==(const AgentConfig&) const = default;
};

struct ServerConfig {
    std::vector<Endpoint> listen;
    std::filesystem::path store;
    std::filesystem::path control_socket;
    std::filesystem::path cert;
    std::filesystem::path key;
    std::filesystem::path ca;
    std::filesystem::path crl;           ///< empty: none
    std::filesystem::path pki;           ///< folder of the CA with which the server enrols sources; empty: it does not
    std::uint64_t certificate_life_ms = 0;
    std::uint64_t server_certificate_life_ms = 0;
    std::filesystem::path audit_log;     ///< empty: audit.log in pki
    std::filesystem::path manifest_key;  ///< empty: the store makes a key of its own
    SnapshotEngine snapshot_engine = SnapshotEngine::automatic;
    std::uint64_t chunk_bytes = 0;
    std::uint64_t point_interval_s = 0;  ///< 0: only on request
    std::uint64_t points_keep = 0;       ///< newest points kept per source; 0: all
    std::uint64_t journal_keep_bytes = 0;
    std::uint64_t journal_backlog_bytes = 0;  ///< journal not applied, above which a source is held
    std::uint64_t window_bytes = 0;           ///< an agent may send ahead of the acknowledgement
    std::uint64_t disk_reserve_bytes = 0;     ///< free space of the store below which sources are held
    std::uint64_t source_quota_bytes = 0;     ///< 0: none
    std::uint64_t source_size_bytes = 0;      ///< of the disks of one source together
    std::uint64_t max_sources = 0;
    std::uint64_t apply_workers = 0;
    LogLevel log_level = LogLevel::info;
    bool operator==(const ServerConfig&) const = default;
};

/// "host:port", or several joined by ", ".
[[nodiscard]] std::string to_string(const std::vector<Endpoint>& endpoints);

/// Reads and checks a file. Unknown, duplicate, missing, ill-typed and out-of-range keys are refused; the error begins with
/// file:line. Relative paths are refused.
[[nodiscard]] Result<AgentConfig> load_agent(const std::filesystem::path& file);
[[nodiscard]] Result<ServerConfig> load_server(const std::filesystem::path& file);
/// The same from text; `name` stands for the file in errors.
[[nodiscard]] Result<AgentConfig> parse_agent(std::string_view toml, std::string_view name);
[[nodiscard]] Result<ServerConfig> parse_server(std::string_view toml, std::string_view name);

/// Names of the keys whose values differ; and of them those that a running daemon cannot take over.
struct Changes {
    std::vector<std::string> changed;
    std::vector<std::string> needs_restart;
};
[[nodiscard]] Changes compare(const AgentConfig& before, const AgentConfig& after);
[[nodiscard]] Changes compare(const ServerConfig& before, const ServerConfig& after);

/// What a reload does: the keys that a running daemon can take over get their value of `fresh`, the others stay.
void take_over(AgentConfig& running, const AgentConfig& fresh);
void take_over(ServerConfig& running, const ServerConfig& fresh);

/// One key as people see it.
struct KeyHelp {
    std::string key;
    std::string kind;           ///< "size", "string", "integer", ...
    std::string default_value;  ///< as TOML; empty if the key is required
    std::string range;          ///< empty if any value of the kind will do
    std::string help;
    bool reloads = false;       ///< a reload takes it over
};
[[nodiscard]] std::vector<KeyHelp> agent_keys();
[[nodiscard]] std::vector<KeyHelp> server_keys();

/// A whole commented file: required keys with an example, all others commented out with their defaults.
[[nodiscard]] std::string default_agent_file();
[[nodiscard]] std::string default_server_file();

}  // namespace blkferry::config
