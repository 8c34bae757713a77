// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "extent/extent.hpp"
#include "store/direct_run.hpp"
#include "store/file.hpp"
#include "store/snapshot_engine.hpp"

namespace blkferry::store {

using Generation = std::uint64_t;

inline constexpr std::uint64_t chunk_bytes_unit = 512U << 10;
inline constexpr std::uint64_t chunk_bytes_default = 64U << 20;
inline constexpr std::uint64_t chunk_bytes_max = 1U << 30;
inline constexpr std::size_t direct_bytes_min_default = 128U << 10;

/// A chunk file's name: "<chunk 8 hex>.<generation 16 hex>", with ".new" until its first sync.
struct ChunkName {
    std::uint32_t chunk = 0;
    Generation generation = 0;
    bool fresh = false;
    bool operator==(const ChunkName&) const = default;
};
[[nodiscard]] std::string to_string(const ChunkName& name);
[[nodiscard]] std::optional<ChunkName> parse_chunk_name(std::string_view name) noexcept;

/// Staging of one disk: fixed-size chunk files in one folder, each first written in some generation. The content of chunk c
/// at generation g is the file of c with the highest generation <= g; no file or an empty one reads as zeroes, and so does
/// everything behind a file's end. A write clones an older file into the current generation first.
///
/// A file made since the last sync() carries ".new" and is removed at open: redo makes it again from the older file.
/// Large pieces go around the page cache, together with what follows them: a resync would fill it with what nobody reads, and
/// a copy into fresh pages costs several times what the write itself does. They wait in one run until it breaks off; every
/// other access to their chunk, and sync(), writes them first.
/// Owned by one thread. Memory: the table of files, one run and at most `open_files_max` descriptors and two.
class ChunkStore {
public:
    struct Options {
        std::uint64_t chunk_bytes = chunk_bytes_default;  ///< multiple of chunk_bytes_unit
        std::size_t open_files_max = 256;
        std::size_t direct_bytes_min = direct_bytes_min_default;  ///< of a piece that begins a run; 0: none does
        std::size_t run_bytes = 2U << 20;                         ///< of one write of a run
    };

    /// Opens the folder (made if missing), removes ".new" files and those above `current`, refuses names it does not know.
    [[nodiscard]] static Result<std::unique_ptr<ChunkStore>> open(FileSystem& files, std::filesystem::path dir,
                                                                  const SnapshotEngine& engine, Options options,
                                                                  Generation current);

    /// Writes whole sectors into the current generation. data.size() == extent.count * 512.
    [[nodiscard]] Result<void> write(Extent extent, std::span<const std::byte> data);
    /// Makes sectors read as zeroes in the current generation; a whole chunk becomes an empty file.
    [[nodiscard]] Result<void> zero(Extent extent);
    /// Fills `out` from `sector` on as it was at generation `at`.
    [[nodiscard]] Result<void> read(std::uint64_t sector, std::span<std::byte> out, Generation at);
    /// Whether no file covers the extent at generation `at` (it reads as zeroes). False says nothing.
    [[nodiscard]] bool absent(Extent extent, Generation at) const noexcept;

    [[nodiscard]] Generation current() const noexcept { return current_; }
    /// What is stored now stays readable as generation current(); later writes go to `next` > current().
    void raise(Generation next);

    /// Makes everything written durable and gives new files their final names.
    [[nodiscard]] Result<void> sync();
    [[nodiscard]] bool dirty() const noexcept { return !dirty_.empty() || dir_dirty_; }

    /// Removes up to `budget` files that none of `live` (ascending; current() counts as live) can see. Returns how many.
    /// Only right after sync() and a checkpoint with this generation. Files of generations up to `pinned` stay, whoever sees
    /// them.
    [[nodiscard]] Result<std::size_t> collect(std::span<const Generation> live, std::size_t budget, Generation pinned = 0);

    [[nodiscard]] std::size_t files() const noexcept { return count_; }
    /// Bytes on disk as of the last sync (shared blocks count in each file).
    [[nodiscard]] std::uint64_t allocated_bytes() const noexcept { return allocated_; }

private:
    struct Version {
        bool fresh = false;            ///< not synced yet, file name ends in ".new"
        std::uint64_t allocated = 0;
    };
    using Key = std::pair<std::uint32_t, Generation>;
    struct Open {
        std::shared_ptr<File> file;
        std::list<Key>::iterator at;
    };
    struct KeyHash {
        std::size_t operator()(const Key& k) const noexcept { return k.first * 0x9E3779B97F4A7C15ULL ^ k.second; }
    };

    ChunkStore(FileSystem& files, std::filesystem::path dir, const SnapshotEngine& engine, Options options,
               Generation current);
    [[nodiscard]] Result<void> load();
    [[nodiscard]] std::filesystem::path path_of(const Key& key) const;
    [[nodiscard]] const std::map<Generation, Version>* versions(std::uint32_t chunk) const noexcept;
    [[nodiscard]] std::optional<Generation> visible(std::uint32_t chunk, Generation at) const noexcept;
    [[nodiscard]] Result<std::shared_ptr<File>> open_version(const Key& key);
    [[nodiscard]] Result<std::shared_ptr<File>> writable(std::uint32_t chunk, bool whole);
    [[nodiscard]] Result<void> write_part(std::uint32_t chunk, std::uint64_t inside, std::span<const std::byte> data);
    [[nodiscard]] Result<std::shared_ptr<File>> direct_file(const Key& key);
    [[nodiscard]] Result<void> settle_chunk(std::uint32_t chunk);
    [[nodiscard]] Result<void> zero_part(std::uint32_t chunk, std::uint64_t inside, std::uint64_t bytes);
    void remember(const Key& key, std::shared_ptr<File> file);
    void forget(const Key& key);
    [[nodiscard]] Result<void> sync_files();

    FileSystem& files_;
    const std::filesystem::path dir_;
    const SnapshotEngine& engine_;
    const Options options_;
    const Generation opened_at_;
    Generation current_;
    std::map<std::uint32_t, std::map<Generation, Version>> chunks_;
    std::size_t count_ = 0;
    std::uint64_t allocated_ = 0;
    std::list<Key> recent_;  ///< open files, newest use first
    std::unordered_map<Key, Open, KeyHash> open_;
    std::set<Key> dirty_;
    std::set<Key> fresh_;
    bool dir_dirty_ = false;
    bool evicted_dirty_ = false;
    DirectRun run_;
    Key run_key_{};                     ///< of an open run; it is in dirty_
    std::shared_ptr<File> direct_;      ///< the file of the newest run, opened a second time
    Key direct_key_{};
    bool can_direct_ = true;            ///< the file system has direct writes, as far as known
};

}  // namespace blkferry::store
