// SPDX-License-Identifier: Apache-2.0
#include "server/own_bytes.hpp"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>
#include <sys/stat.h>

#include "store/chunk_store.hpp"
#include "store/file.hpp"

namespace blkferry::server {

namespace {

/// A point's place in the list, by its generation of one disk.
using Seen = std::multimap<store::Generation, std::size_t>;

/// Adds the files of one disk to the points that hold them alone.
void add_disk(const std::filesystem::path& dir, const Seen& seen, std::vector<std::uint64_t>& out) {
    const auto names = store::make_posix_file_system()->list(dir);
    if (!names)
        return;
    std::vector<store::ChunkName> chunks;
    for (const std::string& name : *names)
        if (const auto chunk = store::parse_chunk_name(name))
            chunks.push_back(*chunk);
    std::ranges::sort(chunks, {}, [](const store::ChunkName& c) { return std::pair(c.chunk, c.generation); });
    // The last file of a chunk is staging's.
    for (std::size_t i = 0; i + 1 < chunks.size(); ++i) {
        if (chunks[i + 1].chunk != chunks[i].chunk)
            continue;
        const auto from = seen.lower_bound(chunks[i].generation);
        const auto to = seen.lower_bound(chunks[i + 1].generation);
        struct stat st {};
        if (from != to && std::next(from) == to && ::stat((dir / to_string(chunks[i])).c_str(), &st) == 0)
            out[from->second] += static_cast<std::uint64_t>(st.st_blocks) * 512;
    }
}

}  // namespace

std::vector<std::uint64_t> own_bytes(const std::filesystem::path& source_dir, const std::vector<store::Manifest>& points) {
    std::vector<std::uint64_t> out(points.size());
    std::map<std::uint16_t, Seen> disks;
    for (std::size_t i = 0; i < points.size(); ++i)
        for (const auto& d : points[i].disks)
            disks[d.slot].emplace(d.generation, i);
    for (const auto& [slot, seen] : disks)
        add_disk(source_dir / "disks" / fmt::format("{:03}", slot), seen, out);
    return out;
}

}  // namespace blkferry::server
