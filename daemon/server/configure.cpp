// SPDX-License-Identifier: Apache-2.0
#include "server/configure.hpp"

namespace blkferry::server {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
}

ServerOptions options_of(const config::ServerConfig& c) {
    ServerOptions o;
    o.listen.clear();
    for (const config::Endpoint& e : c.listen)
        o.listen.push_back(e.str());
    o.store_dir = c.store;
    o.tls = {.cert = c.cert, .key = c.key, .ca = c.ca, .crl = c.crl};
    o.pki = c.pki;
    if (!c.pki.empty()) {
        o.audit = c.audit_log.empty() ? c.pki / "audit.log" : c.audit_log;
        o.tls.crl = c.crl.empty() ? c.pki / "ca.crl" : c.crl;
    }
    o.certificate_life_ms = c.certificate_life_ms;
    o.server_certificate_life_ms = c.server_certificate_life_ms;
    o.control_socket = c.control_socket;
    o.sources_max = c.max_sources;
    o.admission.connections_max = 2 * c.max_sources + 64;  // a source may come again before its old connection is gone
    o.workers = static_cast<unsigned>(c.apply_workers);
    o.window_bytes = c.window_bytes;
    o.backlog_bytes_max = c.journal_backlog_bytes;
    o.disk_reserve_bytes = c.disk_reserve_bytes;
    o.point_interval_ns = c.point_interval_s * second_ns;
    o.points_keep = c.points_keep;
    o.store.engine = c.snapshot_engine == config::SnapshotEngine::automatic ? "auto" : to_string(c.snapshot_engine);
    o.store.manifest_key = c.manifest_key;
    o.store.source.journal_keep_bytes = c.journal_keep_bytes;
    o.store.source.quota_bytes = c.source_quota_bytes;
    o.store.source.disks_bytes_max = c.source_size_bytes;
    o.store.source.applier.chunk_bytes = c.chunk_bytes;
    return o;
}

}  // namespace blkferry::server
