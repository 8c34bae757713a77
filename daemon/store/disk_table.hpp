// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/uuid.hpp"
#include "proto/batch.hpp"
#include "proto/handshake.hpp"
#include "store/journal_format.hpp"

/// The disks of a source as the replica knows them, and the two JSON entries of the journal. Pure.
namespace blkferry::store {

/// A resync epoch of one disk that has begun and not ended.
struct Epoch {
    proto::EpochBegin begin;
    Position position = 0;  ///< of the EPOCH_BEGIN in the journal: names the epoch's map files
    bool operator==(const Epoch&) const = default;
};

/// How the last epoch of a disk ended.
struct EpochOutcome {
    std::uint64_t seq0 = 0;
    Position position = 0;  ///< of the EPOCH_END in the journal
    bool known = false;     ///< the sets were compared (apply side only)
    bool ok = false;
    std::string text;
    bool operator==(const EpochOutcome&) const = default;
};

struct Disk {
    proto::DiskInfo info;
    bool present = true;    ///< in the table of the newest session
    bool known = false;     ///< an epoch began once: the replica holds something
    bool synced = false;    ///< an initial sync or rescan ended well since tracking began (apply side)
    bool covering = false;  ///< an initial sync or rescan began since tracking began: the next good end makes it synced
    std::optional<Epoch> epoch;
    std::optional<EpochOutcome> last;
    bool operator==(const Disk&) const = default;
};

/// A SESSION entry: an agent connected.
struct Session {
    std::uint64_t session = 0;  ///< counts connections
    Uuid source_id;
    Uuid load_id;
    std::uint64_t time_ns = 0;  ///< server's wall time
    std::string agent_version;
    std::vector<proto::DiskInfo> disks;
    bool operator==(const Session&) const = default;
};
[[nodiscard]] std::string encode(const Session& m);
[[nodiscard]] Result<Session> decode_session(std::span<const std::byte> body);

/// A POINT entry: the server asks for a recovery point at the mark of the batch before it.
struct PointEntry {
    std::uint64_t request = 0;  ///< the server's number, comes back in the outcome
    proto::PointKind kind = proto::PointKind::crash;
    std::string name;           ///< empty: named by the mark
    std::uint64_t time_ns = 0;
    bool operator==(const PointEntry&) const = default;
};
[[nodiscard]] std::string encode(const PointEntry& m);
[[nodiscard]] Result<PointEntry> decode_point_entry(std::span<const std::byte> body);

/// The receive side and the apply side each hold one, at their own place in the journal.
class DiskTable {
public:
    /// A new agent session takes effect: new and grown disks, changed attach ids. A slot never changes its disk:
    /// Errc::conflict; another machine under the same name: Errc::denied. A disk whose attach_id changed, and every disk
    /// when load_id changed, is not synced and has no epoch.
    [[nodiscard]] Result<void> begin_session(const Session& session);
    /// Whether begin_session() would succeed.
    [[nodiscard]] Result<void> check_session(const Session& session) const;
    /// A disk of the newest session, or nullptr.
    [[nodiscard]] const Disk* find(std::uint16_t slot) const noexcept;
    [[nodiscard]] Disk* find(std::uint16_t slot) noexcept;
    /// Every disk ever seen, by slot.
    [[nodiscard]] const std::map<std::uint16_t, Disk>& disks() const noexcept { return disks_; }
    /// No epoch is open and every present disk is synced (there is at least one).
    [[nodiscard]] bool settled() const noexcept;
    void begin_epoch(Disk& disk, const proto::EpochBegin& begin, Position position);
    /// Ends the open epoch. An outcome that is known decides whether the disk is synced.
    void end_epoch(Disk& disk, EpochOutcome outcome);

    std::uint64_t session = 0;
    Uuid source_id;
    Uuid load_id;
    /// Puts a disk back as a checkpoint holds it.
    void restore(Disk disk) { disks_[disk.info.slot] = std::move(disk); }
    bool operator==(const DiskTable&) const = default;

private:
    std::map<std::uint16_t, Disk> disks_;
};

}  // namespace blkferry::store
