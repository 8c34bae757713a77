// SPDX-License-Identifier: Apache-2.0
// Which file systems lie on the protected disks: the mounts, followed down through partitions and stacked devices.
#include "agent/points.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include "base/fd.hpp"

namespace blkferry::agent {

namespace fs = std::filesystem;

namespace {

constexpr int depth_max = 16;

std::uint64_t device_number(std::string_view text) {
    unsigned major = 0;
    unsigned minor = 0;
    const auto colon = text.find(':');
    if (colon == std::string_view::npos)
        return 0;
    std::from_chars(text.data(), text.data() + colon, major);
    std::from_chars(text.data() + colon + 1, text.data() + text.size(), minor);
    return (std::uint64_t{major} << 32) | minor;
}

std::uint64_t device_of_dir(const fs::path& dir) {
    const auto text = read_text_file(dir / "dev", 64);
    return text ? device_number(std::string_view(*text).substr(0, text->find('\n'))) : 0;
}

/// Levels between the device and the nearest protected disk below it, or -1 if there is none.
int levels_above(const fs::path& dir, const std::set<std::uint64_t>& disks, int depth) {
    if (depth > depth_max)
        return -1;
    if (disks.contains(device_of_dir(dir)))
        return 0;
    int best = -1;
    const auto follow = [&](const fs::path& below) {
        const int n = levels_above(below, disks, depth + 1);
        if (n >= 0)
            best = std::max(best, n + 1);
    };
    std::error_code ec;
    if (fs::exists(dir / "partition", ec))
        follow(fs::canonical(dir, ec).parent_path());
    for (const auto& slave : fs::directory_iterator(dir / "slaves", ec))
        follow(fs::canonical(slave.path(), ec));
    return best;
}

}  // namespace

std::vector<std::uint64_t> mounted_on(const std::vector<std::uint64_t>& disks, const std::string& sys, const std::string& proc) {
    const std::set<std::uint64_t> wanted(disks.begin(), disks.end());
    std::vector<std::pair<int, std::uint64_t>> found;
    std::set<std::uint64_t> seen;
    std::ifstream in(proc + "/self/mountinfo");
    std::string line;
    while (std::getline(in, line)) {
        std::istringstream fields(line);
        std::string id;
        std::string parent;
        std::string dev;
        if (!(fields >> id >> parent >> dev) || !seen.insert(device_number(dev)).second)
            continue;
        std::error_code ec;
        const fs::path dir = fs::canonical(fmt::format("{}/dev/block/{}", sys, dev), ec);
        if (ec)
            continue;
        const int levels = levels_above(dir, wanted, 0);
        if (levels >= 0)
            found.emplace_back(levels, device_number(dev));
    }
    std::ranges::stable_sort(found, std::greater<>(), &std::pair<int, std::uint64_t>::first);
    std::vector<std::uint64_t> out;
    for (const auto& [levels, dev] : found)
        out.push_back(dev);
    return out;
}

}  // namespace blkferry::agent
