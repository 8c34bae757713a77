// SPDX-License-Identifier: Apache-2.0
#include "agent/registry.hpp"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "proto/limits.hpp"

namespace blkferry::agent {

namespace {

using nlohmann::json;
constexpr std::size_t file_bytes_max = 1U << 20;
constexpr int format_version = 1;

json to_json(const ProtectedDisk& d) {
    return {{"disk_id", d.disk_id.str()},
            {"slot", d.slot},
            {"sync_attach", d.sync_attach.str()},
            {"sync_kind", d.sync_kind == SyncKind::initial ? "initial" : "rescan"},
            {"name", d.identity.name},
            {"sectors", d.identity.sectors},
            {"wwn", d.identity.wwn},
            {"serial", d.identity.serial},
            {"mapper", d.identity.mapper},
            {"table_guid", d.identity.table_guid},
            {"fs_uuid", d.identity.fs_uuid},
            {"held", d.held}};
}

/// at() and get() throw on a wrong shape; the caller turns that into a refusal of the file.
ProtectedDisk disk_from(const json& j) {
    const auto uuid = [&](const char* key) {
        const auto u = Uuid::parse(j.at(key).get<std::string>());
        if (!u)
            throw std::invalid_argument(fmt::format("'{}' is not a UUID", key));
        return *u;
    };
    ProtectedDisk d;
    d.disk_id = uuid("disk_id");
    d.slot = j.at("slot").get<std::uint16_t>();
    d.sync_attach = uuid("sync_attach");
    const auto kind = j.at("sync_kind").get<std::string>();
    if (kind != "initial" && kind != "rescan")
        throw std::invalid_argument("'sync_kind' is neither initial nor rescan");
    d.sync_kind = kind == "initial" ? SyncKind::initial : SyncKind::rescan;
    d.identity.name = j.at("name").get<std::string>();
    d.identity.sectors = j.at("sectors").get<std::uint64_t>();
    d.identity.wwn = j.at("wwn").get<std::string>();
    d.identity.serial = j.at("serial").get<std::string>();
    d.identity.mapper = j.at("mapper").get<std::string>();
    d.identity.table_guid = j.at("table_guid").get<std::string>();
    d.identity.fs_uuid = j.at("fs_uuid").get<std::string>();
    d.held = j.value("held", false);  // younger than the format
    return d;
}

}  // namespace

Result<Registry> Registry::parse(const std::string& text, const std::filesystem::path& path) {
    const auto refuse = [&](std::string_view why) {
        return fail(Errc::corrupt, fmt::format("{} is damaged: {}; restore it, or remove it to begin as a new source (the "
                                               "server then asks for a new name)",
                                               path.string(), why));
    };
    try {
        const json j = json::parse(text);
        if (j.at("format").get<int>() != format_version)
            return refuse(fmt::format("format {} is not {}", j.at("format").get<int>(), format_version));
        Registry r;
        r.path_ = path;
        const auto id = Uuid::parse(j.at("source_id").get<std::string>());
        if (!id || id->is_nil())
            return refuse("'source_id' is not a UUID");
        r.source_id_ = *id;
        r.next_slot_ = j.at("next_slot").get<std::uint16_t>();
        r.first_point_ = j.at("first_point").get<bool>();
        std::set<std::uint16_t> slots;
        std::set<Uuid> ids;
        for (const json& d : j.at("disks")) {
            r.disks_.push_back(disk_from(d));
            const ProtectedDisk& disk = r.disks_.back();
            if (disk.slot >= r.next_slot_ || !slots.insert(disk.slot).second || !ids.insert(disk.disk_id).second)
                return refuse("two disks share a slot or an id");
        }
        return r;
    } catch (const std::exception& e) {
        return refuse(e.what());
    }
}

Result<Registry> Registry::open(const std::filesystem::path& dir) {
    const std::filesystem::path path = dir / "source.json";
    std::error_code ec;
    std::filesystem::create_directories(dir, ec);
    if (ec)
        return fail(Errc::io, fmt::format("cannot make the folder {}: {}", dir.string(), ec.message()));
    auto text = read_text_file(path, file_bytes_max);
    if (text)
        return parse(*text, path);
    if (text.error().code != Errc::not_found)
        return std::unexpected(std::move(text).error());
    Registry r;
    r.path_ = path;
    r.source_id_ = Uuid::random();
    BLKFERRY_TRY(r.save());
    return r;
}

Result<ProtectedDisk> Registry::add(const DiskIdentity& identity, bool held) {
    if (next_slot_ >= proto::disks_max)
        return fail(Errc::no_space, fmt::format("this source used up its {} disk slots; set it up again under a new name",
                                                proto::disks_max));
    ProtectedDisk d;
    d.disk_id = Uuid::random();
    d.slot = next_slot_++;
    d.identity = identity;
    d.held = held;
    disks_.push_back(d);
    if (auto r = save(); !r) {
        disks_.pop_back();
        --next_slot_;
        return std::unexpected(std::move(r).error());
    }
    return d;
}

Result<void> Registry::remove(const Uuid& disk_id) {
    const auto it = std::ranges::find(disks_, disk_id, &ProtectedDisk::disk_id);
    if (it == disks_.end())
        return fail(Errc::not_found, fmt::format("disk {} is not protected", disk_id.str()));
    disks_.erase(it);
    return save();
}

Result<void> Registry::update(const ProtectedDisk& disk) {
    const auto it = std::ranges::find(disks_, disk.disk_id, &ProtectedDisk::disk_id);
    if (it == disks_.end())
        return fail(Errc::not_found, fmt::format("disk {} is not protected", disk.disk_id.str()));
    if (*it == disk)
        return {};
    *it = disk;
    return save();
}

Result<void> Registry::set_first_point(bool made) {
    if (first_point_ == made)
        return {};
    first_point_ = made;
    return save();
}

Result<void> Registry::save() const {
    json list = json::array();
    for (const ProtectedDisk& d : disks_)
        list.push_back(to_json(d));
    const json j = {{"format", format_version},
                    {"source_id", source_id_.str()},
                    {"next_slot", next_slot_},
                    {"first_point", first_point_},
                    {"disks", list}};
    return write_file_durable(path_, j.dump(2, ' ', false, json::error_handler_t::replace) + "\n");
}

}  // namespace blkferry::agent
