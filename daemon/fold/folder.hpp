// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "capture/ring.hpp"
#include "extent/extent.hpp"
#include "extent/extent_set.hpp"
#include "proto/batch.hpp"
#include "proto/limits.hpp"

namespace blkferry::fold {

/// A run of sectors of one disk with one source of contents. `data` points into ring memory (or a resync buffer) that
/// the caller keeps until the batch is encoded; null for kinds without payload.
struct Piece {
    std::uint64_t sector = 0;
    const std::byte* data = nullptr;
    std::uint32_t sectors = 0;
    std::uint16_t slot = 0;
    proto::ExtentKind kind = proto::ExtentKind::data;

    [[nodiscard]] Extent extent() const noexcept { return {sector, sectors}; }
    [[nodiscard]] std::size_t payload_bytes() const noexcept {
        return proto::has_payload(kind) ? std::size_t{sectors} * sector_bytes : 0;
    }
    [[nodiscard]] std::span<const std::byte> payload() const noexcept { return {data, payload_bytes()}; }
    /// Whether `next` continues this piece on the disk with the same kind (they may share an entry).
    [[nodiscard]] bool continued_by(const Piece& next) const noexcept {
        return next.slot == slot && next.kind == kind && next.sector == sector + sectors;
    }
};

/// The captured operations of one batch, folded: last write wins at sector granularity.
struct Folded {
    std::vector<Piece> pieces;        ///< disjoint, ascending by (slot, sector); neighbours may touch
    std::uint64_t payload_bytes = 0;  ///< sum over pieces
    std::uint64_t sectors = 0;        ///< in the union over all disks: BATCH_END.sectors
    std::uint64_t digest = 0;         ///< SetDigest of the union: BATCH_END.digest

    /// The canonical union of one disk.
    [[nodiscard]] ExtentSet set_of(std::uint16_t slot) const;
};

/// What a folded batch may hold at most. The defaults leave a quarter of the protocol's limits to resync extents.
struct FoldLimits {
    std::size_t extents_max = proto::batch_extents_max / 4 * 3;
    std::uint64_t payload_bytes_max = proto::batch_payload_bytes_max / 4 * 3;
};

/// Collects the operations of one batch in the order of their numbers and folds them. Reusable: finish() leaves it empty
/// with its memory kept. Holds no payload. One thread.
class Folder {
public:
    explicit Folder(FoldLimits limits = {}) noexcept : limits_(limits) {}

    /// Whether the operation still fits: false means "close the batch in front of this operation". Never false while
    /// the batch is empty. May fold what it has to find out, so the cost is amortised.
    [[nodiscard]] bool fits(const capture::CapturedOp& op);
    /// Adds an operation. Markers and operations that are not done (cancelled, failed, dirty) change nothing.
    void add(const capture::CapturedOp& op);

    /// Operations added that count (done, not markers), their sectors and payload, before folding.
    [[nodiscard]] std::uint64_t ops() const noexcept { return ops_; }
    [[nodiscard]] std::uint64_t sectors_in() const noexcept { return sectors_in_; }
    [[nodiscard]] std::uint64_t payload_in() const noexcept { return payload_in_; }
    [[nodiscard]] bool empty() const noexcept { return ops_ == 0; }

    /// Folds and gives the result; the folder is empty afterwards.
    [[nodiscard]] Folded finish();
    /// Forgets everything (the batch is built anew after a reconnect).
    void clear() noexcept;

private:
    struct Key {
        std::uint64_t key = 0;    ///< slot << 54 | sector: all disks in one line, none reaches into the next
        std::uint32_t index = 0;  ///< into list_; a higher index is a later operation and wins
    };
    void consolidate();
    void sort_new();
    void merge_folded();
    void sweep();
    [[nodiscard]] std::size_t sweep_overlap(std::size_t i);
    void emit(const Piece& op, std::uint64_t from, std::uint64_t to);
    [[nodiscard]] bool room_for(std::size_t entries, std::uint64_t payload_bytes, std::size_t spare_div) const noexcept;

    FoldLimits limits_;
    std::vector<Piece> list_;       ///< folded pieces first (ascending), then new operations in order
    std::size_t folded_ = 0;        ///< how many of list_ are folded already
    std::size_t folded_entries_ = 0;  ///< entries they need
    std::uint64_t folded_payload_ = 0;
    std::uint64_t new_payload_ = 0;
    bool full_ = false;
    std::vector<Key> keys_;
    std::vector<Key> keys_tmp_;
    std::vector<std::uint32_t> heap_;
    std::vector<Piece> out_;
    std::uint64_t ops_ = 0;
    std::uint64_t sectors_in_ = 0;
    std::uint64_t payload_in_ = 0;
};

}  // namespace blkferry::fold
