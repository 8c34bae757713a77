// SPDX-License-Identifier: Apache-2.0
#include "capture/block_sysfs.hpp"

#include <cerrno>
#include <charconv>

#include <fmt/format.h>

#include "base/fd.hpp"

namespace blkferry::capture {

namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& file) {
    auto text = read_text_file(file, 4096);
    if (!text)
        return {};
    while (!text->empty() && (text->back() == '\n' || text->back() == ' '))
        text->pop_back();
    return *text;
}

std::uint64_t number_of(std::string_view text, std::uint64_t otherwise = 0) {
    while (text.starts_with(' '))
        text.remove_prefix(1);
    std::uint64_t n = 0;
    const auto r = std::from_chars(text.data(), text.data() + text.size(), n);
    return r.ec == std::errc() ? n : otherwise;
}

std::uint64_t tags_of(const fs::path& disk) {
    // With an I/O scheduler requests come from its own tags, of which there are nr_requests for each queue.
    const std::uint64_t scheduler = number_of(text_of(disk / "queue/nr_requests"));
    std::uint64_t tags = 0;
    std::error_code ec;
    for (const auto& queue : fs::directory_iterator(disk / "mq", ec))
        tags += number_of(text_of(queue.path() / "nr_tags")) + scheduler;
    return tags;
}

}  // namespace

Result<BlockFacts> read_block_facts(std::uint64_t dev, const fs::path& sys) {
    std::error_code ec;
    const fs::path dir = fs::canonical(sys / fmt::format("dev/block/{}:{}", dev >> 32, dev & 0xffffffffU), ec);
    if (ec)
        return fail_errno(ENODEV, fmt::format("there is no block device {}:{}", dev >> 32, dev & 0xffffffffU));
    BlockFacts f;
    f.name = dir.filename();
    const auto refuse = [&](int err, std::string_view why) {
        return std::unexpected(Error{err == EINVAL ? Errc::invalid : Errc::unsupported, err, fmt::format("{}: {}", f.name, why)});
    };
    if (fs::exists(dir / "partition", ec))
        return refuse(EINVAL, "it is a partition; protect the whole disk");
    if (!fs::is_directory(dir / "mq", ec))
        return refuse(EOPNOTSUPP, "its driver takes bios, not requests (device-mapper, md, zram, NVMe multipath): without the module "
                                  "only disks with requests can be tracked; protect the disks below, or load the module");
    f.sectors = number_of(text_of(dir / "size"));
    if (f.sectors < 8)
        return refuse(EINVAL, "it has no medium, or less than 4 KiB");
    if (number_of(text_of(dir / "ro")) != 0)
        return refuse(EROFS, "it is read-only");
    if (const std::string zoned = text_of(dir / "queue/zoned"); !zoned.empty() && zoned != "none")
        return refuse(EOPNOTSUPP, "it is zoned");
    if (number_of(text_of(dir / "queue/dax")) != 0)
        return refuse(EOPNOTSUPP, "it is mapped directly (DAX): writes to it cannot be seen");
    f.logical_block = static_cast<std::uint32_t>(number_of(text_of(dir / "queue/logical_block_size"), 512));
    f.tags = tags_of(dir);
    f.diskseq = number_of(text_of(dir / "diskseq"));
    f.counts = number_of(text_of(dir / "queue/iostats")) != 0;
    const std::string inflight = text_of(dir / "inflight");
    const auto second = inflight.find_last_of(' ');
    f.writes_inflight = number_of(second == std::string::npos ? std::string_view() : std::string_view(inflight).substr(second), 1);
    return f;
}

std::uint64_t all_tags(const fs::path& sys) {
    std::uint64_t tags = 0;
    std::error_code ec;
    for (const auto& disk : fs::directory_iterator(sys / "block", ec))
        tags += tags_of(disk.path());
    return tags;
}

}  // namespace blkferry::capture
