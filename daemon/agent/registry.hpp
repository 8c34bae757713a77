// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "agent/identity.hpp"
#include "base/result.hpp"
#include "base/uuid.hpp"

namespace blkferry::agent {

/// How a whole disk is brought to the server.
enum class SyncKind : std::uint8_t {
    initial,  ///< the server has nothing: read and ship
    rescan,   ///< the server has a replica of unknown age: compare by hash
};

/// A disk that the operator asked to protect.
struct ProtectedDisk {
    Uuid disk_id;            ///< made at `protect`; the replica's name of the disk
    std::uint16_t slot = 0;  ///< stands for the disk on the wire, never given to another disk of this source
    DiskIdentity identity;   ///< when it was last seen
    Uuid sync_attach;        ///< tracking session that owes a sync of the whole disk; nil if none does
    SyncKind sync_kind = SyncKind::initial;  ///< how that sync is done
    bool held = false;       ///< registered only: it is not tracked and not replicated until it is protected again
    bool operator==(const ProtectedDisk&) const = default;
};

/// What the agent keeps on disk: the source's id and its protected disks. One small JSON file, replaced as a whole.
/// Everything else (marks, maps, data) is in the module or on the server.
class Registry {
public:
    /// Reads `dir`/source.json, or makes a new source in an empty folder. A file that is not understood is refused, never
    /// replaced: it says which disks have a replica.
    [[nodiscard]] static Result<Registry> open(const std::filesystem::path& dir);

    [[nodiscard]] const Uuid& source_id() const noexcept { return source_id_; }
    [[nodiscard]] const std::vector<ProtectedDisk>& disks() const noexcept { return disks_; }
    [[nodiscard]] bool first_point() const noexcept { return first_point_; }

    /// Adds a disk under a new id and the lowest slot never used before; durable on return.
    [[nodiscard]] Result<ProtectedDisk> add(const DiskIdentity& identity, bool held = false);
    [[nodiscard]] Result<void> remove(const Uuid& disk_id);
    /// Notes the identity as seen now and the sync that is owed; writes only if something changed.
    [[nodiscard]] Result<void> update(const ProtectedDisk& disk);
    [[nodiscard]] Result<void> set_first_point(bool made);

private:
    [[nodiscard]] Result<void> save() const;
    [[nodiscard]] static Result<Registry> parse(const std::string& text, const std::filesystem::path& path);

    std::filesystem::path path_;
    Uuid source_id_;
    std::vector<ProtectedDisk> disks_;
    std::uint16_t next_slot_ = 0;
    bool first_point_ = false;
};

}  // namespace blkferry::agent
