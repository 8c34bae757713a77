// SPDX-License-Identifier: Apache-2.0
#include "proto/handshake.hpp"

#include <set>

#include <fmt/format.h>

#include "proto/batch.hpp"
#include "proto/json_body.hpp"

namespace blkferry::proto {

namespace {
constexpr std::uint64_t any = ~0ULL;

}  // namespace

void encode(const Hello& m, std::vector<std::byte>& out) {
    json disks = json::array();
    for (const DiskInfo& d : m.disks)
        disks.push_back({{"slot", d.slot},
                         {"disk_id", d.disk_id.str()},
                         {"name", d.name},
                         {"identity", d.identity},
                         {"sectors", d.sectors},
                         {"logical_block", d.logical_block},
                         {"attach_id", d.attach_id.str()}});
    put({{"protocol", m.protocol},
         {"agent_version", m.agent_version},
         {"source", m.source},
         {"source_id", m.source_id.str()},
         {"load_id", m.load_id.str()},
         {"features", m.features},
         {"disks", disks}},
        out);
}

Result<Hello> decode_hello(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_object(body, "HELLO"));
    Members in(j);
    Hello m;
    m.protocol = static_cast<unsigned>(in.number("protocol", 65535));
    m.agent_version = in.text("agent_version", name_bytes_max);
    m.source = in.text("source", name_bytes_max);
    if (!valid_name(m.source))
        in.complain("source", "name of letters, digits, '.', '_' and '-'");
    m.source_id = in.uuid("source_id");
    m.load_id = in.uuid("load_id");
    m.features = in.texts("features");
    std::set<std::uint16_t> slots;
    const json* disks = in.list("disks", disks_max);
    for (std::size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        if (!(*disks)[i].is_object())
            return fail(Errc::invalid, "HELLO refused: member 'disks' must be a list of objects");
        Members din((*disks)[i]);
        DiskInfo d;
        d.slot = static_cast<std::uint16_t>(din.number("slot", disks_max - 1));
        d.disk_id = din.uuid("disk_id");
        d.name = din.text("name");
        d.identity = din.text("identity");
        d.sectors = din.number("sectors", disk_sectors_max);
        d.logical_block = static_cast<std::uint32_t>(din.number("logical_block", 65536));
        d.attach_id = din.uuid("attach_id");
        if (d.sectors == 0)
            din.complain("sectors", "number above 0");
        if (!slots.insert(d.slot).second)
            din.complain("slot", "number that no other disk has");
        if (!din.complaint().empty())
            return fail(Errc::invalid, fmt::format("HELLO refused: disk {}: {}", i, din.complaint()));
        m.disks.push_back(std::move(d));
    }
    if (m.disks.empty())
        in.complain("disks", "list of at least one disk");
    if (!in.complaint().empty())
        return fail(Errc::invalid, fmt::format("HELLO refused: {}", in.complaint()));
    return m;
}

void encode(const Welcome& m, std::vector<std::byte>& out) {
    json disks = json::array();
    for (const DiskState& d : m.disks)
        disks.push_back({{"slot", d.slot},
                         {"known", d.known},
                         {"attach_id", d.attach_id.str()},
                         {"synced", d.synced},
                         {"epoch_seq", d.epoch_seq}});
    put({{"protocol", m.protocol},
         {"server_version", m.server_version},
         {"session", m.session},
         {"durable_batch", m.durable_batch},
         {"durable_mark", m.durable_mark},
         {"load_id", m.load_id.str()},
         {"window_bytes", m.window_bytes},
         {"features", m.features},
         {"disks", disks}},
        out);
}

Result<Welcome> decode_welcome(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_object(body, "WELCOME"));
    Members in(j);
    Welcome m;
    m.protocol = static_cast<unsigned>(in.number("protocol", 65535));
    m.server_version = in.text("server_version", name_bytes_max);
    m.session = in.number("session", any);
    m.durable_batch = in.number("durable_batch", any - 1);
    m.durable_mark = in.number("durable_mark", any);
    m.load_id = in.uuid("load_id");
    m.window_bytes = in.number("window_bytes", any);
    m.features = in.texts("features");
    const json* disks = in.list("disks", disks_max);
    for (std::size_t i = 0; disks != nullptr && i < disks->size(); ++i) {
        if (!(*disks)[i].is_object())
            return fail(Errc::invalid, "WELCOME refused: member 'disks' must be a list of objects");
        Members din((*disks)[i]);
        DiskState d;
        d.slot = static_cast<std::uint16_t>(din.number("slot", disks_max - 1));
        d.known = din.flag("known");
        d.attach_id = din.uuid("attach_id");
        d.synced = din.flag("synced");
        d.epoch_seq = din.number("epoch_seq", any);
        if (!din.complaint().empty())
            return fail(Errc::invalid, fmt::format("WELCOME refused: disk {}: {}", i, din.complaint()));
        m.disks.push_back(d);
    }
    if (!in.complaint().empty())
        return fail(Errc::invalid, fmt::format("WELCOME refused: {}", in.complaint()));
    return m;
}

void encode(const Heartbeat& m, std::vector<std::byte>& out) {
    put({{"state", m.state},
         {"cause", m.cause},
         {"backlog_bytes", m.backlog_bytes},
         {"lag_ms", m.lag_ms},
         {"applied_mark", m.applied_mark},
         {"points", m.points},
         {"newest_point_mark", m.newest_point_mark},
         {"progress_permille", m.progress_permille}},
        out);
}

Result<Heartbeat> decode_heartbeat(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_object(body, "HEARTBEAT"));
    Members in(j);
    Heartbeat m;
    m.state = in.text("state", name_bytes_max);
    m.cause = in.text("cause");
    m.backlog_bytes = in.number("backlog_bytes", any);
    m.lag_ms = in.number("lag_ms", any);
    m.applied_mark = in.number("applied_mark", any);
    m.points = in.number("points", any);
    m.newest_point_mark = in.number("newest_point_mark", any);
    m.progress_permille = in.number("progress_permille", 1000);
    if (!in.complaint().empty())
        return fail(Errc::invalid, fmt::format("HEARTBEAT refused: {}", in.complaint()));
    return m;
}

void encode(const PeerError& m, std::vector<std::byte>& out) {
    put({{"code", m.code}, {"text", m.text.substr(0, text_bytes_max)}}, out);
}

Result<PeerError> decode_peer_error(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_object(body, "ERROR"));
    Members in(j);
    PeerError m;
    m.code = in.text("code", name_bytes_max);
    m.text = in.text("text", json_body_bytes_max);
    if (!in.complaint().empty())
        return fail(Errc::invalid, fmt::format("ERROR refused: {}", in.complaint()));
    return m;
}

}  // namespace blkferry::proto
