// SPDX-License-Identifier: Apache-2.0
// Reads the machine's block devices from sysfs, their contents by libblkid. Everything read is text of bounded length.
#include "agent/identity.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <blkid/blkid.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/fd.hpp"

namespace blkferry::agent {

namespace fs = std::filesystem;

namespace {

std::string trimmed(std::string text) {
    std::erase_if(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
    const auto first = text.find_first_not_of(' ');
    if (first == std::string::npos)
        return {};
    return text.substr(first, text.find_last_not_of(' ') - first + 1).substr(0, 128);
}

std::string attribute(const fs::path& dir, const char* name) {
    auto text = read_text_file(dir / name, 4096);
    return text ? trimmed(std::move(*text)) : std::string();
}

std::uint64_t number(const fs::path& dir, const char* name) {
    const std::string text = attribute(dir, name);
    std::uint64_t v = 0;
    std::from_chars(text.data(), text.data() + text.size(), v);
    return v;
}

std::uint64_t device_number(const fs::path& dir) {
    const std::string text = attribute(dir, "dev");
    unsigned major = 0;
    unsigned minor = 0;
    const auto r = std::from_chars(text.data(), text.data() + text.size(), major);
    if (r.ec == std::errc() && r.ptr != text.data() + text.size())
        std::from_chars(r.ptr + 1, text.data() + text.size(), minor);
    return (static_cast<std::uint64_t>(major) << 32) | minor;
}

/// SCSI disks keep the unit serial number in VPD page 0x80: 4 bytes of head, then text.
std::string vpd_serial(const fs::path& device) {
    auto raw = read_text_file(device / "vpd_pg80", 4096);
    return raw && raw->size() > 4 ? trimmed(raw->substr(4)) : std::string();
}

void probe_contents(BlockDevice& d) {
    const std::unique_ptr<blkid_struct_probe, void (*)(blkid_probe)> probe(
        blkid_new_probe_from_filename(d.path.c_str()), [](blkid_probe p) { blkid_free_probe(p); });
    if (!probe)
        return;
    blkid_probe_enable_partitions(probe.get(), 1);
    blkid_probe_enable_superblocks(probe.get(), 1);
    blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_UUID | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_TYPE);
    if (blkid_do_safeprobe(probe.get()) != 0)
        return;
    const auto value = [&](const char* name) {
        const char* text = nullptr;
        return blkid_probe_lookup_value(probe.get(), name, &text, nullptr) == 0 && text != nullptr ? trimmed(text)
                                                                                                    : std::string();
    };
    d.identity.table_guid = value("PTUUID");
    d.identity.fs_uuid = value("UUID");
    d.label = value("LABEL");
    if (value("TYPE") == "swap" && d.obstacle.empty())
        d.obstacle = "it is swap space, whose contents are worthless after a restart";
}

std::string unescaped(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size()) {
            out.push_back(static_cast<char>(std::stoi(text.substr(i + 1, 3), nullptr, 8)));
            i += 3;
        } else {
            out.push_back(text[i]);
        }
    }
    return out;
}

/// Device number (major:minor as text) -> mount points.
std::multimap<std::string, std::string> mounts(const SystemRoots& roots) {
    std::multimap<std::string, std::string> out;
    std::ifstream in(roots.proc + "/self/mountinfo");
    std::string line;
    while (std::getline(in, line)) {
        std::istringstream fields(line);
        std::string id;
        std::string parent;
        std::string dev;
        std::string root;
        std::string point;
        if (fields >> id >> parent >> dev >> root >> point)
            out.emplace(dev, unescaped(point));
    }
    return out;
}

using Mounts = std::multimap<std::string, std::string>;

void add_mounts(BlockDevice& d, const fs::path& dir, const Mounts& table) {
    const auto [first, last] = table.equal_range(attribute(dir, "dev"));
    for (auto it = first; it != last; ++it)
        d.mounts.push_back(it->second);
}

std::string obstacle_of(const fs::path& dir) {
    const std::string zoned = attribute(dir / "queue", "zoned");
    if (attribute(dir, "ro") == "1")
        return "it is read-only";
    if (!zoned.empty() && zoned != "none")
        return fmt::format("it is a zoned device ({})", zoned);
    if (attribute(dir / "queue", "dax") == "1")
        return "it is persistent memory (DAX), whose writes bypass the block layer";
    if (number(dir, "size") < 128)
        return "it is smaller than 64 KiB";
    return {};
}

std::vector<std::string> names_in(const fs::path& dir) {
    std::vector<std::string> out;
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(dir, ec))
        out.push_back(entry.path().filename().string());
    std::ranges::sort(out);
    return out;
}

/// The disks of a machine are those at the bottom: what lies on them comes with them. A multipath device stands for its paths.
std::string left_out_of(const fs::path& dir, const SystemRoots& roots) {
    const auto is_multipath = [&](const std::string& name) {
        return attribute(fs::path(roots.sys) / "class/block" / name / "dm", "uuid").starts_with("mpath-");
    };
    if (attribute(dir, "removable") == "1")
        return "it is removable";
    for (const std::string& holder : names_in(dir / "holders"))
        if (is_multipath(holder))
            return fmt::format("it is a path of the multipath device {}", holder);
    if (const auto below = names_in(dir / "slaves"); !below.empty() && !is_multipath(dir.filename().string()))
        return fmt::format("it lies on {}, which carries it along", fmt::join(below, ", "));
    const std::string name = dir.filename().string();
    if (name.starts_with("loop"))
        return "it is a loop device: its file lies on a disk, or does not belong to the machine";
    if (name.starts_with("ram") || name.starts_with("zram"))
        return "it is memory";
    if (name.starts_with("nbd") || name.starts_with("rbd") || name.starts_with("drbd"))
        return "it is a network disk: name it to protect it";
    return {};
}

BlockDevice describe(const fs::path& dir, const SystemRoots& roots, const Mounts& table) {
    BlockDevice d;
    DiskIdentity& id = d.identity;
    id.name = dir.filename().string();
    std::ranges::replace(id.name, '!', '/');
    d.path = fmt::format("{}/{}", roots.dev, id.name);
    d.dev = device_number(dir);
    id.sectors = number(dir, "size");
    add_mounts(d, dir, table);
    if (fs::exists(dir / "partition")) {
        const std::string whole = fs::path(fs::weakly_canonical(dir)).parent_path().filename().string();
        d.obstacle = fmt::format("it is a partition; protect the whole disk {}/{}", roots.dev, whole);
        return d;
    }
    d.logical_block = static_cast<std::uint32_t>(std::max<std::uint64_t>(number(dir / "queue", "logical_block_size"), 512));
    d.model = attribute(dir / "device", "model");
    id.wwn = attribute(dir, "wwid");
    if (id.wwn.empty())
        id.wwn = attribute(dir / "device", "wwid");
    id.serial = attribute(dir, "serial");
    if (id.serial.empty())
        id.serial = attribute(dir / "device", "serial");
    if (id.serial.empty())
        id.serial = vpd_serial(dir / "device");
    for (const auto& [sub, name] : {std::pair{"dm", "uuid"}, std::pair{"md", "uuid"}, std::pair{"loop", "backing_file"}})
        if (id.mapper.empty())
            id.mapper = attribute(dir / sub, name);
    d.obstacle = obstacle_of(dir);
    d.left_out = left_out_of(dir, roots);
    std::error_code ec;
    for (const auto& sub : fs::directory_iterator(dir, ec))
        if (fs::exists(sub.path() / "partition"))
            add_mounts(d, sub.path(), table);
    if (id.sectors > 0)
        probe_contents(d);
    return d;
}

}  // namespace

std::vector<BlockDevice> list_devices(const SystemRoots& roots) {
    std::vector<BlockDevice> out;
    const Mounts table = mounts(roots);
    std::error_code ec;
    for (const auto& entry : fs::directory_iterator(roots.sys + "/class/block", ec)) {
        BlockDevice d = describe(entry.path(), roots, table);
        if (d.identity.sectors > 0)
            out.push_back(std::move(d));
    }
    std::ranges::sort(out, {}, [](const BlockDevice& d) { return d.identity.name; });
    return out;
}

Result<BlockDevice> device_of(std::string_view path_or_name, const SystemRoots& roots) {
    std::string path(path_or_name);
    if (path.find('/') == std::string::npos)
        path = fmt::format("{}/{}", roots.dev, path);
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0)
        return fail_errno(errno, fmt::format("cannot use {}", path));
    if (!S_ISBLK(st.st_mode))
        return fail(Errc::invalid, fmt::format("{} is not a block device", path));
    const fs::path link = fmt::format("{}/dev/block/{}:{}", roots.sys, major(st.st_rdev), minor(st.st_rdev));
    std::error_code ec;
    const fs::path dir = fs::canonical(link, ec);
    if (ec)
        return fail(Errc::not_found, fmt::format("{} is not known to the kernel ({} is missing)", path, link.string()));
    return describe(dir, roots, mounts(roots));
}

}  // namespace blkferry::agent
