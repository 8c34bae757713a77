// SPDX-License-Identifier: Apache-2.0
// All JSON of the journal and the checkpoint, in one translation unit.
#include "store/checkpoint.hpp"

#include <charconv>

#include "base/hash.hpp"
#include "store/json_reader.hpp"
#include "store/manifest_json.hpp"

namespace blkferry::store {

using nlohmann::json;

namespace {

constexpr unsigned checkpoint_version = 1;
constexpr std::size_t people_text_max = 256;
constexpr std::size_t pending_max = 64;

json to_json(const proto::DiskInfo& d) {
    return {{"slot", d.slot},       {"disk_id", d.disk_id.str()},         {"name", d.name},
            {"identity", d.identity}, {"sectors", d.sectors},             {"logical_block", d.logical_block},
            {"attach_id", d.attach_id.str()}};
}

Result<proto::DiskInfo> disk_info_from(const json& j) {
    JsonReader in(j, "disk");
    proto::DiskInfo d;
    d.slot = static_cast<std::uint16_t>(in.integer("slot", proto::disks_max - 1));
    d.disk_id = in.uuid("disk_id");
    d.name = in.text("name", people_text_max);
    d.identity = in.text("identity", people_text_max);
    d.sectors = in.integer("sectors", proto::disk_sectors_max);
    d.logical_block = static_cast<std::uint32_t>(in.integer("logical_block", 65536));
    d.attach_id = in.uuid("attach_id");
    BLKFERRY_TRY(in.finish());
    return d;
}

json to_json(const Epoch& e) {
    return {{"slot", e.begin.slot},     {"kind", static_cast<unsigned>(e.begin.kind)}, {"block_shift", e.begin.block_shift},
            {"seq0", e.begin.seq0},     {"sectors", e.begin.sectors},                  {"digest", e.begin.digest},
            {"position", e.position}};
}

Result<Epoch> epoch_from(const json& j) {
    JsonReader in(j, "epoch");
    Epoch e;
    e.begin.slot = static_cast<std::uint16_t>(in.integer("slot", proto::disks_max - 1));
    const auto kind = in.integer("kind", static_cast<unsigned>(proto::EpochKind::rescan));
    if (kind == 0)
        in.refuse("has kind 0");
    e.begin.kind = static_cast<proto::EpochKind>(kind);
    e.begin.block_shift = static_cast<std::uint32_t>(in.integer("block_shift", 63));
    e.begin.seq0 = in.integer("seq0");
    e.begin.sectors = in.integer("sectors", proto::disk_sectors_max);
    e.begin.digest = in.integer("digest");
    e.position = in.integer("position");
    BLKFERRY_TRY(in.finish());
    return e;
}

json to_json(const EpochOutcome& o) {
    return {{"seq0", o.seq0}, {"position", o.position}, {"known", o.known}, {"ok", o.ok}, {"text", o.text}};
}

Result<EpochOutcome> outcome_from(const json& j) {
    JsonReader in(j, "epoch outcome");
    EpochOutcome o;
    o.seq0 = in.integer("seq0");
    o.position = in.integer("position");
    o.known = in.boolean("known");
    o.ok = in.boolean("ok");
    o.text = in.text("text", 1024);
    BLKFERRY_TRY(in.finish());
    return o;
}

json to_json(const Disk& d) {
    return {{"info", to_json(d.info)}, {"present", d.present},   {"known", d.known},
            {"synced", d.synced},      {"covering", d.covering}, {"epoch", d.epoch ? to_json(*d.epoch) : json()},
            {"last", d.last ? to_json(*d.last) : json()}};
}

Result<Disk> disk_from(const json& j) {
    JsonReader in(j, "disk state");
    Disk d;
    if (const json* info = in.member("info")) {
        BLKFERRY_TRY_ASSIGN(d.info, disk_info_from(*info));
    }
    d.present = in.boolean("present");
    d.known = in.boolean("known");
    d.synced = in.boolean("synced");
    d.covering = in.boolean("covering");
    if (const json* epoch = in.member("epoch"); epoch != nullptr && !epoch->is_null()) {
        BLKFERRY_TRY_ASSIGN(d.epoch, epoch_from(*epoch));
    }
    if (const json* last = in.member("last"); last != nullptr && !last->is_null()) {
        BLKFERRY_TRY_ASSIGN(d.last, outcome_from(*last));
    }
    BLKFERRY_TRY(in.finish());
    return d;
}

std::string_view as_text(std::span<const std::byte> body) noexcept {
    return {reinterpret_cast<const char*>(body.data()), body.size()};
}

Result<Checkpoint> checkpoint_from(const json& j) {
    JsonReader in(j, "checkpoint");
    if (in.integer("version") != checkpoint_version)
        in.refuse("has a version that this program does not read");
    Checkpoint c;
    c.position = in.integer("position");
    c.batch = in.integer("batch");
    c.mark = in.integer("mark");
    c.mark_time_ns = in.integer("mark_time_ns");
    c.consistent = in.boolean("consistent");
    c.generation = in.integer("generation");
    c.chunk_bytes = in.integer("chunk_bytes", chunk_bytes_max);
    c.table.session = in.integer("session");
    c.table.source_id = in.uuid("source_id");
    c.table.load_id = in.uuid("load_id");
    c.head_serial = in.integer("head_serial");
    c.head_hash = in.text("head_hash", 64);
    for (const json& d : in.array("disks", proto::disks_max)) {
        BLKFERRY_TRY_ASSIGN(Disk disk, disk_from(d));
        c.table.restore(std::move(disk));
    }
    for (const json& p : in.array("pending", pending_max)) {
        BLKFERRY_TRY_ASSIGN(Manifest m, manifest_core_from(p));
        c.pending.push_back(std::move(m));
    }
    if (c.generation == 0 || c.chunk_bytes == 0 || c.chunk_bytes % chunk_bytes_unit != 0)
        in.refuse("has an impossible generation or chunk size");
    BLKFERRY_TRY(in.finish());
    return c;
}

}  // namespace

std::string encode(const Session& m) {
    json disks = json::array();
    for (const auto& d : m.disks)
        disks.push_back(to_json(d));
    return dump_json({{"session", m.session},
                      {"source_id", m.source_id.str()},
                      {"load_id", m.load_id.str()},
                      {"time_ns", m.time_ns},
                      {"agent_version", m.agent_version},
                      {"disks", std::move(disks)}});
}

Result<Session> decode_session(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_json(as_text(body), entry_body_bytes_max, "journal entry SESSION"));
    JsonReader in(j, "journal entry SESSION");
    Session m;
    m.session = in.integer("session");
    m.source_id = in.uuid("source_id");
    m.load_id = in.uuid("load_id");
    m.time_ns = in.integer("time_ns");
    m.agent_version = in.text("agent_version", people_text_max);
    for (const json& d : in.array("disks", proto::disks_max)) {
        BLKFERRY_TRY_ASSIGN(proto::DiskInfo info, disk_info_from(d));
        m.disks.push_back(std::move(info));
    }
    BLKFERRY_TRY(in.finish());
    return m;
}

std::string encode(const PointEntry& m) {
    return dump_json({{"request", m.request},
                      {"kind", static_cast<unsigned>(m.kind)},
                      {"name", m.name},
                      {"time_ns", m.time_ns}});
}

Result<PointEntry> decode_point_entry(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const json j, parse_json(as_text(body), 4096, "journal entry POINT"));
    JsonReader in(j, "journal entry POINT");
    PointEntry m;
    m.request = in.integer("request");
    const auto kind = in.integer("kind", static_cast<unsigned>(proto::PointKind::fs));
    m.kind = static_cast<proto::PointKind>(kind);
    m.name = in.text("name", proto::name_bytes_max);
    m.time_ns = in.integer("time_ns");
    if (kind == 0 || (!m.name.empty() && !proto::valid_name(m.name)))
        in.refuse("has an impossible kind or name");
    BLKFERRY_TRY(in.finish());
    return m;
}

std::string encode(const Checkpoint& c) {
    json disks = json::array();
    for (const auto& [slot, d] : c.table.disks())
        disks.push_back(to_json(d));
    json pending = json::array();
    for (const auto& m : c.pending)
        pending.push_back(manifest_core(m));
    std::string text = dump_json({{"version", checkpoint_version},
                                  {"position", c.position},
                                  {"batch", c.batch},
                                  {"mark", c.mark},
                                  {"mark_time_ns", c.mark_time_ns},
                                  {"consistent", c.consistent},
                                  {"generation", c.generation},
                                  {"chunk_bytes", c.chunk_bytes},
                                  {"session", c.table.session},
                                  {"source_id", c.table.source_id.str()},
                                  {"load_id", c.table.load_id.str()},
                                  {"head_serial", c.head_serial},
                                  {"head_hash", c.head_hash},
                                  {"disks", std::move(disks)},
                                  {"pending", std::move(pending)}});
    const std::uint32_t crc = crc32c(std::as_bytes(std::span(text)));
    return text + fmt::format("\ncrc32c={:08x}\n", crc);
}

Result<Checkpoint> decode_checkpoint(std::string_view text) {
    const std::size_t line = text.find('\n');
    constexpr std::string_view key = "crc32c=";
    if (line == std::string_view::npos || text.size() != line + 1 + key.size() + 8 + 1 ||
        text.substr(line + 1, key.size()) != key || text.back() != '\n')
        return fail(Errc::corrupt, "checkpoint refused: it is not one line of JSON and one with its checksum");
    const std::string_view body = text.substr(0, line);
    const std::string_view digits = text.substr(line + 1 + key.size(), 8);
    std::uint32_t crc = 0;
    const auto [end, err] = std::from_chars(digits.data(), digits.data() + digits.size(), crc, 16);
    if (err != std::errc{} || end != digits.data() + digits.size() || crc != crc32c(std::as_bytes(std::span(body))))
        return fail(Errc::corrupt, "checkpoint refused: its checksum is wrong");
    BLKFERRY_TRY_ASSIGN(const json j, parse_json(body, checkpoint_bytes_max, "checkpoint"));
    return checkpoint_from(j);
}

}  // namespace blkferry::store
