// SPDX-License-Identifier: Apache-2.0
#include "config/schema.hpp"

namespace blkferry::config {

namespace {

using S = ServerConfig;
constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = kib * 1024;
constexpr std::uint64_t gib = mib * 1024;
constexpr std::uint64_t no_max = std::numeric_limits<std::int64_t>::max();

const std::vector<Key<S>> schema = {
    {"listen", &S::listen, "[\"[::]:1500\"]", "", false,
     "Addresses to listen on, with port; \"[::]:1500\" takes IPv4 too. At most 16."},
    {"store", &S::store, "\"/var/lib/blkferry/server\"", "", false,
     "Folder of journals, staging and recovery points; XFS or btrfs lets recovery points share blocks."},
    {"cert", &S::cert, "\"/etc/blkferry/server.pem\"", "", true,
     "Certificate of this server (PEM). `blkferry pki issue` makes it."},
    {"key", &S::key, "\"/etc/blkferry/server.key\"", "", true,
     "Its private key; refused if group or others have any right on the file."},
    {"ca", &S::ca, "\"/etc/blkferry/ca.pem\"", "", true,
     "Certificate of the CA that signed the sources' certificates."},
    {"crl", &S::crl, "\"\"", "", true,
     "Revoked certificates (PEM), made by `blkferry pki revoke`; empty: none, or with `pki` the list in there."},
    {"pki", &S::pki, "\"\"", "", false,
     "Folder of the CA with which this server enrols sources, renews and revokes their certificates; `blkferry server init` makes it. The "
     "server's user must be able to write there. Empty: certificates are made elsewhere, by `blkferry pki`."},
    {"certificate_life", &S::certificate_life_ms, "\"90d\"", "", false,
     "How long the certificates live that this server makes. Agents renew theirs when two thirds of it are over; one that was away for "
     "longer than the rest has to be enrolled again.", Unit::span, {10'000, 3650ULL * 86'400'000, 1}},
    {"server_certificate_life", &S::server_certificate_life_ms, "\"365d\"", "", false,
     "How long the server's own certificate lives each time the server renews it, which it does when a third of its life is left, if `pki` is "
     "the CA that made it. Else the server warns from 30 days before its end.", Unit::span, {10'000, 3650ULL * 86'400'000, 1}},
    {"audit_log", &S::audit_log, "\"\"", "", false,
     "File to which every event of tokens and certificates is appended, one JSON object a line; empty: audit.log in `pki`."},
    {"manifest_key", &S::manifest_key, "\"\"", "", false,
     "Private key that signs manifests of recovery points (PEM, Ed25519 or EC P-256; refused if group or others have any right on "
     "the file). A store keeps the key with which it began. Empty: the store makes a key of its own, keys/manifest.pem in it."},
    {"control_socket", &S::control_socket, "\"/run/blkferry/server/control.sock\"", "", false,
     "Local socket on which `blkferry` asks the server."},
    {"snapshot_engine", &S::snapshot_engine, "\"auto\"", "", false,
     "How a chunk is cloned for a recovery point: reflink (XFS, btrfs), copy (anywhere), or auto: the best that the store can."},
    {"chunk", &S::chunk_bytes, "\"64MiB\"", "", false,
     "Size of a chunk of new replicas; a multiple of 512KiB.", Unit::size, {512 * kib, gib, 512 * kib}},
    {"point_interval_s", &S::point_interval_s, "600", "", true,
     "Seconds between recovery points of each source; 0: only on request.", Unit::seconds, {0, 30U * 86'400, 1}},
    {"points_keep", &S::points_keep, "0", "", true,
     "Newest recovery points kept of each source, of those made by the interval and of those asked for apart; older ones are removed when "
     "another is made; 0: all.", Unit::none,
     {0, 100'000, 1}},
    {"journal_keep", &S::journal_keep_bytes, "\"8GiB\"", "", false,
     "Journal of each source kept behind what is applied, so that any mark in it can be recovered.", Unit::size,
     {64 * mib, no_max, 1}},
    {"journal_backlog", &S::journal_backlog_bytes, "\"4GiB\"", "", true,
     "Journal of one source that is not applied yet, above which the source is held until applying has caught up.", Unit::size,
     {64 * mib, no_max, 1}},
    {"window", &S::window_bytes, "\"64MiB\"", "", true,
     "Most that an agent may send ahead of the acknowledgement; the server shrinks it as journal_backlog comes near.", Unit::size,
     {mib, 4 * gib, 1}},
    {"disk_reserve", &S::disk_reserve_bytes, "\"1GiB\"", "", true,
     "Free space of the store's file system below which every source is held; counts as a tenth of the file system if it is more.",
     Unit::size, {0, no_max, 1}},
    {"source_quota", &S::source_quota_bytes, "\"0\"", "", false,
     "Most that one source may take of the store; \"0\": no limit.", Unit::size, {0, no_max, 1}},
    {"source_size", &S::source_size_bytes, "\"16TiB\"", "", false,
     "Most that the disks of one source may have together; a resync takes up to a 2048th of it in the store.", Unit::size,
     {mib, no_max, 1}},
    {"max_sources", &S::max_sources, "512", "", true,
     "Sources that may have a replica here.", Unit::none, {1, 65'536, 1}},
    {"apply_workers", &S::apply_workers, "2", "", false,
     "Threads that apply journals; each source is applied by one at a time.", Unit::none, {1, 64, 1}},
    {"log_level", &S::log_level, "\"info\"", "", true,
     "What the log holds: errors only, or ever more."},
};

}  // namespace

std::span<const Key<ServerConfig>> server_schema() { return schema; }

}  // namespace blkferry::config
