// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/checkpoint.hpp"
#include "store/manifest.hpp"

struct sqlite3;

namespace blkferry::store {

/// The store's index in SQLite (WAL, synchronous=FULL): sources, their disks, checkpoints, epochs and points. The truth is
/// in the sources' folders (checkpoint, manifests, journal): rebuild_catalogue() makes the index anew from them.
/// Thread-safe (one connection under a lock).
class Catalogue {
public:
    /// Opens or makes it. A file that is not a sound catalogue of this version is Errc::corrupt: rebuild it.
    [[nodiscard]] static Result<std::unique_ptr<Catalogue>> open(const std::filesystem::path& path);
    ~Catalogue();

    struct SourceRow {
        std::string name;
        Uuid source_id;
        std::uint64_t batch = 0;
        std::uint64_t mark = 0;
        std::uint64_t mark_time_ns = 0;
        Generation generation = 0;
        Position position = 0;
        std::uint64_t checkpoint_ns = 0;
    };
    struct DiskRow {
        std::uint16_t slot = 0;
        Uuid disk_id;
        std::string name;
        std::string identity;
        std::uint64_t sectors = 0;
        bool present = false;
        bool synced = false;
    };
    struct EpochRow {
        std::uint16_t slot = 0;
        std::uint64_t seq0 = 0;
        bool ended = false;
        bool ok = false;
        std::string text;
    };
    struct PointRow {
        std::uint64_t serial = 0;
        std::string name;
        std::uint64_t mark = 0;
        std::uint64_t mark_time_ns = 0;
        std::uint64_t made_ns = 0;
        std::string kind;
        std::string launchable;
        std::string hash;
    };

    /// A source's checkpoint with its disks and epochs, in one transaction.
    [[nodiscard]] Result<void> put_checkpoint(std::string_view source, const Checkpoint& checkpoint, std::uint64_t now_ns);
    [[nodiscard]] Result<void> put_point(const Manifest& manifest);
    /// Replaces all points of a source.
    [[nodiscard]] Result<void> put_points(std::string_view source, const std::vector<Manifest>& manifests);
    [[nodiscard]] Result<void> remove_point(std::string_view source, std::string_view name);
    [[nodiscard]] Result<void> remove_source(std::string_view source);

    [[nodiscard]] Result<std::vector<SourceRow>> sources();
    [[nodiscard]] Result<std::vector<DiskRow>> disks(std::string_view source);
    [[nodiscard]] Result<std::vector<EpochRow>> epochs(std::string_view source);
    [[nodiscard]] Result<std::vector<PointRow>> points(std::string_view source);

private:
    explicit Catalogue(sqlite3* db) noexcept : db_(db) {}
    [[nodiscard]] Result<void> execute(const char* sql);
    [[nodiscard]] Result<void> insert_point(const Manifest& manifest);
    template <class F>
    [[nodiscard]] Result<void> transaction(F&& body);

    std::mutex lock_;
    sqlite3* db_;
};

/// Makes `<store>/catalogue.sqlite` anew from the sources' folders and returns how many it found. Errc::busy while a server
/// runs on the store. A source whose checkpoint is missing or damaged is left out: opening it says what is wrong.
[[nodiscard]] Result<std::size_t> rebuild_catalogue(const std::filesystem::path& store_dir);

}  // namespace blkferry::store
