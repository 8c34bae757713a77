// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "proto/limits.hpp"

/// HELLO, WELCOME, HEARTBEAT and ERROR: JSON bodies (they are rare, grow with versions, and a library parses them).
/// Unknown members are ignored, missing or ill-typed ones are refused by name.
namespace blkferry::proto {

/// A disk of the source as the agent announces it.
struct DiskInfo {
    std::uint16_t slot = 0;      ///< stands for the disk in all later frames of this source, for ever; assigned by the agent
    Uuid disk_id;                ///< identity made by the agent at `protect`, survives renames and reboots
    std::string name;            ///< kernel name now, for people
    std::string identity;        ///< serial, WWN or GUID text, for people and matching
    std::uint64_t sectors = 0;   ///< size
    std::uint32_t logical_block = 512;
    Uuid attach_id;              ///< of the module: changes when tracking was interrupted
    bool operator==(const DiskInfo&) const = default;
};

struct Hello {
    unsigned protocol = protocol_version;
    std::string agent_version;
    std::string source;          ///< must be the name in the client certificate
    Uuid source_id;              ///< made once per source; a second machine under the same name is refused
    Uuid load_id;                ///< of the module: changes with reboot or module reload
    std::vector<std::string> features;
    std::vector<DiskInfo> disks;  ///< 1 .. disks_max, slots unique
    bool operator==(const Hello&) const = default;
};
void encode(const Hello& m, std::vector<std::byte>& out);
[[nodiscard]] Result<Hello> decode_hello(std::span<const std::byte> body);

/// What the server knows of one disk.
struct DiskState {
    std::uint16_t slot = 0;
    bool known = false;           ///< the server holds a replica (else initial sync)
    Uuid attach_id;               ///< tracking session that the replica follows; differs from HELLO's: rescan
    bool synced = false;          ///< outside of any epoch: the replica equals the source at the durable mark
    std::uint64_t epoch_seq = 0;  ///< seq0 of the open epoch, 0 if none
    bool operator==(const DiskState&) const = default;
};

struct Welcome {
    unsigned protocol = protocol_version;
    std::string server_version;
    std::uint64_t session = 0;        ///< counts connections of this source
    std::uint64_t durable_batch = 0;  ///< the next batch has number durable_batch + 1
    std::uint64_t durable_mark = 0;   ///< operations with seq <= this are durable: not sent again
    Uuid load_id;                     ///< the module session to which durable_mark belongs; nil if none
    std::uint64_t window_bytes = 0;
    std::vector<std::string> features;
    std::vector<DiskState> disks;     ///< one for each of HELLO's
    bool operator==(const Welcome&) const = default;
};
void encode(const Welcome& m, std::vector<std::byte>& out);
[[nodiscard]] Result<Welcome> decode_welcome(std::span<const std::byte> body);

/// Causes in the server's heartbeats: it reads nothing from the connection while it names one of them.
inline constexpr std::string_view held_by_disk = "server disk";    ///< too little free space in its store
inline constexpr std::string_view held_by_apply = "server apply";  ///< too much journal that is not applied

/// HEARTBEAT, agent -> server: how the source stands; server -> agent: how the replica stands. Both in one shape.
struct Heartbeat {
    std::string state;                 ///< name of the source's state (agent), empty from the server
    std::string cause;                 ///< why it stalls, empty if it does not
    std::uint64_t backlog_bytes = 0;   ///< agent: captured or dirty, not durable. server: journal not applied
    std::uint64_t lag_ms = 0;          ///< agent: age of the newest durable mark. server: age of the applied one
    std::uint64_t applied_mark = 0;    ///< server
    std::uint64_t points = 0;          ///< server: recovery points held
    std::uint64_t newest_point_mark = 0;
    std::uint64_t progress_permille = 0;  ///< agent: of the running resync
    bool operator==(const Heartbeat&) const = default;
};
void encode(const Heartbeat& m, std::vector<std::byte>& out);
[[nodiscard]] Result<Heartbeat> decode_heartbeat(std::span<const std::byte> body);

/// ERROR: the sender closes after it. The code is a name of Errc.
struct PeerError {
    std::string code;
    std::string text;
    bool operator==(const PeerError&) const = default;
};
void encode(const PeerError& m, std::vector<std::byte>& out);
[[nodiscard]] Result<PeerError> decode_peer_error(std::span<const std::byte> body);

}  // namespace blkferry::proto
