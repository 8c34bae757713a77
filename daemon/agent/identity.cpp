// SPDX-License-Identifier: Apache-2.0
#include "agent/identity.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace blkferry::agent {

namespace {

enum class Match : std::uint8_t { no, weak, content, hardware };

/// -1: both known and different, 0: at least one unknown, 1: equal.
int compare(const std::string& a, const std::string& b) noexcept {
    if (a.empty() || b.empty())
        return 0;
    return a == b ? 1 : -1;
}

Match match(const DiskIdentity& wanted, const DiskIdentity& d) noexcept {
    const int hardware[] = {compare(wanted.wwn, d.wwn), compare(wanted.serial, d.serial), compare(wanted.mapper, d.mapper)};
    if (std::ranges::find(hardware, -1) != std::end(hardware))
        return Match::no;
    if (std::ranges::find(hardware, 1) != std::end(hardware))
        return Match::hardware;
    // A device on top of the disk (device-mapper) shows the same contents, but has an identity of its own.
    if (d.has_hardware())
        return Match::no;
    const int content[] = {compare(wanted.table_guid, d.table_guid), compare(wanted.fs_uuid, d.fs_uuid)};
    if (std::ranges::find(content, -1) != std::end(content))
        return Match::no;
    if (std::ranges::find(content, 1) != std::end(content))
        return Match::content;
    // Neither side knows anything that lasts. A disk that was empty when it was protected may have got a table since.
    if (wanted.has_hardware() || wanted.has_content())
        return Match::no;
    return wanted.name == d.name && wanted.sectors == d.sectors ? Match::weak : Match::no;
}

}  // namespace

std::string DiskIdentity::str() const {
    std::vector<std::string> parts;
    const auto add = [&](std::string_view key, const std::string& value) {
        if (!value.empty())
            parts.push_back(fmt::format("{}={}", key, value));
    };
    add("wwn", wwn);
    add("serial", serial);
    add("mapper", mapper);
    add("table", table_guid);
    add("fs", fs_uuid);
    if (parts.empty())
        parts.push_back(fmt::format("name={} sectors={}", name, sectors));
    return fmt::format("{}", fmt::join(parts, " ")).substr(0, 256);
}

Result<std::size_t> find_device(const DiskIdentity& wanted, std::span<const BlockDevice> devices) {
    Match best = Match::no;
    std::vector<std::size_t> found;
    for (std::size_t i = 0; i < devices.size(); ++i) {
        const Match m = match(wanted, devices[i].identity);
        if (m == Match::no || m < best)
            continue;
        if (m > best)
            found.clear();
        best = m;
        found.push_back(i);
    }
    if (found.empty())
        return fail(Errc::not_found, fmt::format("no disk of this machine has the identity {}; connect it, or unprotect it",
                                                 wanted.str()));
    if (found.size() > 1) {
        std::vector<std::string> names;
        for (const std::size_t i : found)
            names.push_back(devices[i].identity.name);
        return fail(Errc::conflict, fmt::format("the disks {} all have the identity {}; remove the copies or change their "
                                                "identity, then protect the right one again",
                                                fmt::join(names, ", "), wanted.str()));
    }
    return found.front();
}

}  // namespace blkferry::agent
