// SPDX-License-Identifier: Apache-2.0
#include "store/snapshot_engine.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

namespace blkferry::store {

namespace {

class ReflinkEngine final : public SnapshotEngine {
public:
    std::string_view name() const noexcept override { return "reflink"; }
    Result<void> clone(File& source, File& target) const override { return target.reflink_from(source); }
};

class CopyEngine final : public SnapshotEngine {
public:
    std::string_view name() const noexcept override { return "copy"; }
    Result<void> clone(File& source, File& target) const override {
        BLKFERRY_TRY_ASSIGN(const std::uint64_t size, source.size());
        BLKFERRY_TRY(target.truncate(size));
        std::uint64_t at = 0;
        while (at < size) {
            BLKFERRY_TRY_ASSIGN(const std::optional<std::uint64_t> data, source.next_data(at));
            if (!data || *data >= size)
                break;
            BLKFERRY_TRY_ASSIGN(const std::uint64_t hole, source.next_hole(*data));
            const std::uint64_t end = std::min(hole, size);
            BLKFERRY_TRY(target.copy_from(source, *data, end - *data));
            at = end;
        }
        return {};
    }
};

/// Whether two files in this folder can share blocks: by trying.
Result<bool> can_reflink(FileSystem& files, const std::filesystem::path& dir) {
    const auto from = dir / "reflink-probe-a";
    const auto to = dir / "reflink-probe-b";
    bool works = false;
    {
        BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> a, files.open(from, OpenMode::create));
        BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> b, files.open(to, OpenMode::create));
        std::array<std::byte, 4096> block;
        block.fill(std::byte{0x5A});
        BLKFERRY_TRY(a->write(block, 0));
        auto cloned = b->reflink_from(*a);
        if (!cloned && cloned.error().code != Errc::unsupported)
            return std::unexpected(std::move(cloned).error());
        works = cloned.has_value();
    }
    BLKFERRY_TRY(files.remove(from));
    BLKFERRY_TRY(files.remove(to));
    return works;
}

}  // namespace

std::unique_ptr<SnapshotEngine> make_reflink_engine() {
    return std::make_unique<ReflinkEngine>();
}

std::unique_ptr<SnapshotEngine> make_copy_engine() {
    return std::make_unique<CopyEngine>();
}

Result<std::unique_ptr<SnapshotEngine>> make_engine(std::string_view name, FileSystem& files,
                                                    const std::filesystem::path& dir) {
    if (name == "copy")
        return make_copy_engine();
    if (name != "reflink" && name != "auto")
        return fail(Errc::invalid, fmt::format("snapshot engine \"{}\" is unknown: auto, reflink or copy", name));
    BLKFERRY_TRY_ASSIGN(const bool works, can_reflink(files, dir));
    if (works)
        return make_reflink_engine();
    if (name == "auto")
        return make_copy_engine();
    return fail(Errc::unsupported, fmt::format("snapshot engine \"reflink\" does not work in {}: its file system cannot share "
                                               "blocks; use XFS or btrfs, or engine \"copy\"",
                                               dir.string()));
}

}  // namespace blkferry::store
