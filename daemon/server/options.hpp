// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "proto/limits.hpp"
#include "server/admission.hpp"
#include "service/log.hpp"
#include "store/store.hpp"
#include "tls/context.hpp"

namespace blkferry::server {

using service::Level;
using service::Log;
using service::quote;

/// What the daemon is told (by its configuration file, or by a test).
struct ServerOptions {
    std::vector<std::string> listen{"[::]:1500"};  ///< "host:port" or "[v6]:port"; port 0: any
    std::uint64_t bind_wait_ns = 10'000'000'000;   ///< for an address that is still in use, for example by a killed server
    std::filesystem::path store_dir;
    tls::Files tls;
    std::filesystem::path pki;                     ///< CA for enrolment; empty: none, and tls.crl is not in it
    std::filesystem::path audit;                   ///< file; with pki
    std::uint64_t certificate_life_ms = 90ULL * 86'400'000;
    std::uint64_t server_certificate_life_ms = 365ULL * 86'400'000;  ///< of the server's own, when it is renewed
    std::filesystem::path control_socket;          ///< empty: none
    std::size_t sources_max = 1024;                ///< names that get a folder
    unsigned workers = 2;                          ///< apply threads
    AdmissionLimits admission;
    std::uint64_t window_bytes = 64ULL << 20;      ///< that an agent may send ahead of the acknowledgement
    std::uint64_t backlog_bytes_max = 4ULL << 30;  ///< journal not applied, per source: above it the source is held
    std::uint64_t disk_reserve_bytes = 1ULL << 30; ///< free bytes of the store's file system below which sources are
                                                   ///< held; at most a tenth of the file system
    std::uint64_t point_interval_ns = 0;           ///< 0: points only on request
    std::uint64_t points_keep = 0;                 ///< newest points kept per source, older ones go; 0: all
    std::uint64_t apply_turn_bytes = 8ULL << 20;   ///< of one source before the next one gets its turn
    std::uint64_t handshake_ns = proto::handshake_ms_max * 1'000'000;
    std::uint64_t greetings_max = 30;              ///< HELLOs of one source at once; then one in half a second
    std::uint64_t silence_ns = proto::peer_silence_ms_max * 1'000'000;
    std::uint64_t frame_ns = 900'000'000'000;      ///< for one frame to arrive whole: 1 MiB at 10 kbit/s, but not a byte a second
    std::uint64_t heartbeat_ns = proto::heartbeat_interval_ms * 1'000'000;
    store::StoreOptions store;
};

}  // namespace blkferry::server
