// SPDX-License-Identifier: Apache-2.0
#include "store/manifest.hpp"

#include <algorithm>

#include "base/hash.hpp"
#include "store/json_reader.hpp"
#include "store/manifest_json.hpp"

namespace blkferry::store {

using nlohmann::json;

namespace {

constexpr unsigned manifest_version = 1;
constexpr std::size_t hash_digits = 64;

bool is_hash(std::string_view text) noexcept {
    return text.size() == hash_digits && std::ranges::all_of(text, [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
           });
}

std::string sha256_hex(std::string_view text) {
    const Sha256 digest = sha256(std::as_bytes(std::span(text)));
    std::string hex;
    for (const std::byte b : digest)
        hex += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return hex;
}

json proof_json(const Manifest& m, const std::string& hash) {
    json digests = json::object();
    for (const auto& [slot, digest] : m.digests)
        digests[fmt::format("{:03}", slot)] = digest;
    return {{"hash", hash}, {"launchable", to_string(m.launchable)}, {"digests", std::move(digests)}};
}

Result<ManifestDisk> disk_from(const json& j) {
    JsonReader in(j, "manifest disk");
    ManifestDisk d;
    d.slot = static_cast<std::uint16_t>(in.integer("slot", proto::disks_max - 1));
    d.disk_id = in.uuid("disk_id");
    d.name = in.text("name", 256);
    d.identity = in.text("identity", 256);
    d.sectors = in.integer("sectors", proto::disk_sectors_max);
    d.logical_block = static_cast<std::uint32_t>(in.integer("logical_block", 65536));
    d.chunk_bytes = in.integer("chunk_bytes", chunk_bytes_max);
    d.generation = in.integer("generation");
    if (d.sectors == 0 || d.chunk_bytes == 0 || d.chunk_bytes % chunk_bytes_unit != 0 || d.generation == 0)
        in.refuse("has an impossible size, chunk size or generation");
    BLKFERRY_TRY(in.finish());
    return d;
}

Result<void> proof_from(const json& j, Manifest& m) {
    JsonReader in(j, "manifest proof");
    if (in.text("hash", hash_digits) != m.hash())
        in.refuse("belongs to another manifest");
    const std::string state = in.text("launchable", 16);
    bool found = false;
    for (const auto s : {Launchable::unproven, Launchable::launchable, Launchable::failed})
        if (state == to_string(s)) {
            m.launchable = s;
            found = true;
        }
    if (!found)
        in.refuse(fmt::format("has unknown state {}", state));
    const json* digests = in.member("digests");
    if (digests != nullptr && (!digests->is_object() || digests->size() > m.disks.size()))
        in.refuse("has malformed digests");
    if (!in.bad())
        for (const auto& [key, value] : digests->items()) {
            const auto disk = std::ranges::find_if(m.disks, [&](const auto& d) { return fmt::format("{:03}", d.slot) == key; });
            if (disk == m.disks.end() || !value.is_string() || !is_hash(value.get_ref<const std::string&>()))
                in.refuse(fmt::format("has a malformed digest {}", key));
            else
                m.digests[disk->slot] = value.get<std::string>();
        }
    return in.finish();
}

}  // namespace

std::string_view to_string(Launchable state) noexcept {
    switch (state) {
        case Launchable::unproven: return "unproven";
        case Launchable::launchable: return "launchable";
        case Launchable::failed: return "failed";
    }
    return "unknown";
}

json manifest_core(const Manifest& m) {
    json disks = json::array();
    for (const ManifestDisk& d : m.disks)
        disks.push_back({{"slot", d.slot},
                         {"disk_id", d.disk_id.str()},
                         {"name", d.name},
                         {"identity", d.identity},
                         {"sectors", d.sectors},
                         {"logical_block", d.logical_block},
                         {"chunk_bytes", d.chunk_bytes},
                         {"generation", d.generation}});
    json core = {{"version", manifest_version},
                 {"serial", m.serial},
                 {"name", m.name},
                 {"source", m.source},
                 {"source_id", m.source_id.str()},
                 {"store", m.store.str()},
                 {"batch", m.batch},
                 {"mark", m.mark},
                 {"mark_time_ns", m.mark_time_ns},
                 {"made_ns", m.made_ns},
                 {"kind", to_string(m.kind)},
                 {"disks", std::move(disks)},
            {"parent", m.parent_hash}};
    if (m.scheduled)
        core["scheduled"] = true;
    return core;
}

Result<Manifest> manifest_core_from(const json& core) {
    JsonReader in(core, "manifest");
    if (in.integer("version") != manifest_version)
        in.refuse("has a version that this program does not read");
    Manifest m;
    m.serial = in.integer("serial");
    m.name = in.text("name", proto::name_bytes_max);
    m.source = in.text("source", proto::name_bytes_max);
    m.source_id = in.uuid("source_id");
    m.store = in.uuid("store");
    m.batch = in.integer("batch");
    m.mark = in.integer("mark");
    m.mark_time_ns = in.integer("mark_time_ns");
    m.made_ns = in.integer("made_ns");
    const std::string kind = in.text("kind", 32);
    if (kind == to_string(proto::PointKind::fs))
        m.kind = proto::PointKind::fs;
    else if (kind != to_string(proto::PointKind::crash))
        in.refuse(fmt::format("has unknown kind {}", kind));
    m.parent_hash = in.text("parent", hash_digits);
    m.scheduled = in.has("scheduled") && in.boolean("scheduled");
    if (in.has("scheduled") && !m.scheduled)
        in.refuse("says that it was not scheduled");  // left out then, so that each manifest has one form
    for (const json& d : in.array("disks", proto::disks_max)) {
        BLKFERRY_TRY_ASSIGN(ManifestDisk disk, disk_from(d));
        if (!m.disks.empty() && m.disks.back().slot >= disk.slot)
            in.refuse("lists its disks out of order");
        m.disks.push_back(std::move(disk));
    }
    if (m.serial == 0 || !proto::valid_name(m.name) || !proto::valid_name(m.source) || !is_hash(m.parent_hash) ||
        m.disks.empty())
        in.refuse("has an impossible serial, name, source, parent or no disk");
    BLKFERRY_TRY(in.finish());
    return m;
}

std::string Manifest::hash() const {
    return sha256_hex(dump_json(manifest_core(*this)));
}

const ManifestDisk* Manifest::disk(std::uint16_t slot) const noexcept {
    const auto it = std::ranges::find_if(disks, [&](const ManifestDisk& d) { return d.slot == slot; });
    return it == disks.end() ? nullptr : &*it;
}

Result<std::string> encode(const Manifest& m, const Signer* signer) {
    json core = manifest_core(m);
    const std::string core_text = dump_json(core);
    json proof = proof_json(m, sha256_hex(core_text));
    json file{{"core", std::move(core)}, {"proof", proof}};
    if (signer != nullptr) {
        BLKFERRY_TRY_ASSIGN(file["core_signature"], signer->sign(core_text));
        BLKFERRY_TRY_ASSIGN(file["proof_signature"], signer->sign(dump_json(proof)));
        file["key"] = signer->key_id();
    }
    return dump_json(file) + "\n";
}

Result<DecodedManifest> decode_manifest(std::string_view text, const Signer* verifier) {
    BLKFERRY_TRY_ASSIGN(const json file, parse_json(text, manifest_bytes_max, "manifest"));
    JsonReader in(file, "manifest file");
    const json* core = in.member("core");
    const json* proof = in.member("proof");
    DecodedManifest out;
    out.is_signed = in.has("key") || in.has("core_signature") || in.has("proof_signature");
    std::string core_signature;
    std::string proof_signature;
    if (out.is_signed) {
        out.key_id = in.text("key", hash_digits);
        core_signature = in.text("core_signature", 512);
        proof_signature = in.text("proof_signature", 512);
    }
    BLKFERRY_TRY(in.finish());
    if (dump_json(file) + "\n" != text)
        return fail(Errc::corrupt, "manifest is not in the form in which it was written");
    if (verifier != nullptr) {
        if (!out.is_signed)
            return fail(Errc::corrupt, "manifest is not signed");
        if (out.key_id != verifier->key_id())
            return fail(Errc::corrupt, fmt::format("manifest is signed with key {}, not with {}", out.key_id,
                                                   verifier->key_id()));
        BLKFERRY_TRY(verifier->verify(dump_json(*core), core_signature));
        BLKFERRY_TRY(verifier->verify(dump_json(*proof), proof_signature));
    }
    BLKFERRY_TRY_ASSIGN(out.manifest, manifest_core_from(*core));
    BLKFERRY_TRY(proof_from(*proof, out.manifest));
    return out;
}

}  // namespace blkferry::store
