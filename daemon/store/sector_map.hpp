// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "extent/extent_set.hpp"
#include "store/file.hpp"

namespace blkferry::store {

/// A set of sectors of one disk in a sparse file of pages (docs/journal-format.md), with a bounded write-back cache of them. Bits
/// are only set, never cleared, so a map torn by a crash holds a set between the last sync and now. One thread.
class SectorMap {
public:
    static constexpr std::size_t page_bytes = 4096;
    /// What a disk writes whole or not at all has a checksum of its own, so a crash tears none.
    static constexpr std::size_t block_bytes = 512;
    /// Sectors of a block: what its checksum leaves.
    static constexpr std::uint64_t block_sectors = (block_bytes - 8) * 8;
    static constexpr std::uint64_t page_sectors = page_bytes / block_bytes * block_sectors;

    /// What a block with a wrong checksum stands for.
    enum class Damaged : std::uint8_t {
        empty,  ///< no sector, as if it had never been written
        full,   ///< all sectors, and it stays known as damaged (any_damaged()), whatever is added to it
    };

    /// Makes an empty map; an existing file is emptied.
    [[nodiscard]] static Result<std::unique_ptr<SectorMap>> create(FileSystem& files, const std::filesystem::path& path,
                                                                   Damaged damaged, std::size_t pages_max = 64);
    [[nodiscard]] static Result<std::unique_ptr<SectorMap>> open(FileSystem& files, const std::filesystem::path& path,
                                                                 Damaged damaged, std::size_t pages_max = 64);

    /// Adds sectors.
    [[nodiscard]] Result<void> set(Extent extent);
    /// The parts of `extent` that are not in the set, ascending.
    [[nodiscard]] Result<std::vector<Extent>> missing(Extent extent);
    [[nodiscard]] Result<bool> test(std::uint64_t sector);

    struct Summary {
        std::uint64_t sectors = 0;
        std::uint64_t digest = 0;  ///< SetDigest of the canonical runs, slot 0
        bool operator==(const Summary&) const = default;
    };
    /// Counts the whole set and takes its digest. Reads the file once, skipping holes.
    [[nodiscard]] Result<Summary> summary();

    /// Whether a checksum is wrong. Reads the file once, skipping holes.
    [[nodiscard]] Result<bool> any_damaged();

    /// Blocks that its file has on the disk; 0 if nobody can tell.
    [[nodiscard]] std::uint64_t allocated_bytes() const noexcept { return file_->allocated().value_or(0); }

    /// Writes dirty pages out and makes the file durable.
    [[nodiscard]] Result<void> sync();

private:
    /// Runs of pages known to be full: named again, they cost nothing. Forgotten when they become too many.
    static constexpr std::size_t full_runs_max = 4096;
    struct Page {
        std::vector<std::uint64_t> words;
        bool dirty = false;
        std::uint8_t damaged = 0;  ///< bit n: block n, whose checksum stays wrong (Damaged::full)
        std::list<std::uint64_t>::iterator at;
    };
    SectorMap(std::unique_ptr<File> file, Damaged damaged, std::size_t pages_max);
    /// `overwrite`: the caller sets the whole page, it need not be read.
    [[nodiscard]] Result<Page*> page(std::uint64_t number, bool overwrite);
    [[nodiscard]] Result<void> set_new(Extent extent);
    [[nodiscard]] Result<void> missing_of(Extent extent, std::vector<Extent>& out);
    [[nodiscard]] Result<void> flush();
    /// Writes dirty pages out and calls visit(number, page) for each that is in the file.
    template <class Visit>
    [[nodiscard]] Result<void> each_page(Visit visit);
    [[nodiscard]] Result<void> write_back(std::uint64_t number, Page& page);

    std::unique_ptr<File> file_;
    const Damaged damaged_;
    const std::size_t pages_max_;
    std::list<std::uint64_t> recent_;
    std::unordered_map<std::uint64_t, Page> pages_;
    ExtentSet full_;
    bool unsynced_ = false;
};

}  // namespace blkferry::store
