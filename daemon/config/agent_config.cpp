// SPDX-License-Identifier: Apache-2.0
#include "config/schema.hpp"

namespace blkferry::config {

namespace {

using A = AgentConfig;
constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = kib * 1024;
constexpr std::uint64_t gib = mib * 1024;

const std::vector<Key<A>> schema = {
    {"server", &A::server, "", "\"replica.example.org:1500\"", false,
     "Where the server listens: \"name:port\", \"192.0.2.1:1500\" or \"[2001:db8::1]:1500\"; the port may be left out (1500). An "
     "array of up to 16 of them if the server has several addresses; they are tried in turn.", Unit::none, {}, Rule::one_or_more},
    {"source", &A::source, "", "\"web1\"", false,
     "Name of this source, as in its certificate.", Unit::none, {}, Rule::name},
    {"cert", &A::cert, "\"/etc/blkferry/source.pem\"", "", false,
     "Certificate of this source (PEM), made by `blkferry pki issue`. A reload reads the file again."},
    {"key", &A::key, "\"/etc/blkferry/source.key\"", "", false,
     "Its private key; refused if group or others have any right on the file."},
    {"ca", &A::ca, "\"/etc/blkferry/ca.pem\"", "", false,
     "Certificate of the CA that signed the server's certificate."},
    {"server_name", &A::server_name, "\"\"", "", false,
     "Name that the server's certificate must carry; empty: any server of this CA.", Unit::none, {}, Rule::optional_name},
    {"proxy", &A::proxy, "\"\"", "", false,
     "HTTP proxy through which the server is reached (CONNECT): \"http://proxy.example.org:3128\", or with a user "
     "\"http://user@proxy.example.org:3128\"; the proxy resolves the server's name. Empty: none.", Unit::none, {}, Rule::proxy},
    {"proxy_password_file", &A::proxy_password_file, "\"\"", "", false,
     "File that holds the password of the proxy's user; refused if group or others have any right on it. Read at each connection."},
    {"state_dir", &A::state_dir, "\"/var/lib/blkferry/agent\"", "", false,
     "Where the agent keeps the identities of source and disks. No data of disks is stored there."},
    {"control_socket", &A::control_socket, "\"/run/blkferry/agent/control.sock\"", "", false,
     "Local socket on which `blkferry` asks the agent."},
    {"bandwidth", &A::bandwidth, "\"0\"", "", true,
     "Most that goes over the wire, TLS included: \"20mbit\", \"512kbit\", \"2mbyte\" (decimal); \"0\" = unlimited.",
     Unit::rate, {0, 125 * gib, 1}},
    {"compression", &A::compression, "\"lz4\"", "", true,
     "What shipped data is compressed with; data that does not shrink travels as it is."},
    {"compression_level", &A::compression_level, "1", "", true,
     "Level of zstd; lz4 has none.", Unit::none, {1, 19, 1}},
    {"batch_interval_ms", &A::batch_interval_ms, "200", "", true,
     "A batch closes after this time, in milliseconds; its end is a mark.", Unit::milliseconds, {10, 60'000, 1}},
    {"batch_bytes", &A::batch_bytes, "\"16MiB\"", "", true,
     "A batch closes when it holds this much.", Unit::size, {64 * kib, gib, 1}},
    {"ring", &A::ring_bytes, "\"64MiB\"", "", false,
     "Kernel memory for captured writes of each disk, taken when the disk is protected; rounded up to a power of two.",
     Unit::size, {64 * kib, 4 * gib, 1}},
    {"capture", &A::capture, "\"auto\"", "", false,
     "How writes are seen. \"module\": by the kernel module, which captures each of them; any moment can be recovered. \"ebpf\": without the "
     "module, by eBPF programs that only mark what is written; the marked blocks are read and shipped in rounds, and a recovery point "
     "exists only where nothing was written from the begin of a round to its end (`blkferry mark --fs` makes such a moment). "
     "\"auto\": the module if the kernel has it, else eBPF with a warning in log and status."},
    {"cycle_interval", &A::cycle_interval_ms, "\"5s\"", "", true,
     "Without the module: from the begin of a round to the begin of the next, \"1s\" to \"1h\". No recovery point is newer "
     "than the last round in which nothing was written.", Unit::span, {1'000, 3'600'000, 1}},
    {"resync_queue_depth", &A::resync_queue_depth, "16", "", true,
     "Reads of the source disk under way at once while it is copied.", Unit::none, {1, 256, 1}},
    {"resync_block", &A::resync_block_bytes, "\"256KiB\"", "", true,
     "Bytes of one such read.", Unit::size, {64 * kib, mib, 64 * kib}},
    {"workers", &A::workers, "1", "", false,
     "Threads that compress and hash.", Unit::none, {1, 64, 1}},
    {"verify_interval", &A::verify_interval_ms, "\"30d\"", "", true,
     "How often the disks are compared with the replica while replication goes on, as `blkferry verify --source` does: \"7d\", "
     "\"12h\"; \"0\": only on request. What differs is logged and shipped again.", Unit::span, {0, 3650ULL * 86'400'000, 1}},
    {"verify_bandwidth", &A::verify_bandwidth, "\"100mbyte\"", "", true,
     "Most that a verification reads from the disks in a second; \"0\" = unlimited.", Unit::rate, {0, 125 * gib, 1}},
    {"log_level", &A::log_level, "\"info\"", "", true,
     "What the log holds: errors only, or ever more."},
};

}  // namespace

std::span<const Key<AgentConfig>> agent_schema() { return schema; }

}  // namespace blkferry::config
