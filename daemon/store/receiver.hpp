// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "extent/extent.hpp"
#include "proto/batch.hpp"
#include "proto/frame.hpp"
#include "store/disk_table.hpp"

namespace blkferry::store {

/// Checks the frames of batches in the order they come: batch numbers without a hole, frame indices, marks, epoch rules,
/// disk bounds, counts and set digest. Pure. A refused frame leaves it unusable until reset(): the connection ends.
class Receiver {
public:
    struct Step {
        bool batch_begin = false;
        bool batch_end = false;   ///< the batch is complete: it counts once it is durable
        bool consistent = false;  ///< with batch_end: what BATCH_END says
        std::uint64_t points = 0; ///< with batch_end: POINT_REQUESTs in it
    };

    /// Goes on behind a complete batch.
    Receiver(DiskTable& table, std::uint64_t batch, std::uint64_t mark, std::uint64_t time_ns, bool consistent = false)
        : table_(table), batch_(batch), mark_(mark), time_ns_(time_ns), consistent_(consistent) {}

    /// One frame with its body verified and decompressed. `position` is where the journal will hold it.
    [[nodiscard]] Result<Step> take(const proto::FrameHeader& header, std::span<const std::byte> body, Position position);
    /// Forgets an unfinished batch (the agent connected anew) together with the epochs it began or ended.
    void reset();

    /// Last complete batch and its mark; prev_mark of the next one must equal it.
    [[nodiscard]] std::uint64_t batch() const noexcept { return batch_; }
    [[nodiscard]] std::uint64_t mark() const noexcept { return mark_; }
    [[nodiscard]] bool in_batch() const noexcept { return open_; }
    [[nodiscard]] std::uint64_t time_ns() const noexcept { return time_ns_; }
    /// What BATCH_END of the last complete batch said.
    [[nodiscard]] bool consistent() const noexcept { return consistent_; }

private:
    struct Captured {
        std::uint16_t slot;
        Extent extent;
        auto operator<=>(const Captured&) const = default;
    };
    [[nodiscard]] Result<void> begin(std::span<const std::byte> body);
    [[nodiscard]] Result<void> extents(std::span<const std::byte> body);
    [[nodiscard]] Result<void> name(const proto::ExtentEntry& entry, const Disk& disk);
    [[nodiscard]] Result<Disk*> disk(std::uint16_t slot, std::string_view what);
    [[nodiscard]] Result<void> dispatch(const proto::FrameHeader& header, std::span<const std::byte> body,
                                        Position position, Step& step);
    [[nodiscard]] Result<void> epoch_begin(std::span<const std::byte> body, Position position);
    [[nodiscard]] Result<void> epoch_end(std::span<const std::byte> body, Position position);
    [[nodiscard]] Result<void> point_request(std::span<const std::byte> body);
    [[nodiscard]] Result<void> end(std::span<const std::byte> body, Step& step);
    [[nodiscard]] Result<void> compare_set(const proto::BatchEnd& m);

    DiskTable& table_;
    std::optional<DiskTable> saved_;  ///< the table before the open batch's first epoch frame
    std::uint64_t batch_;
    std::uint64_t mark_;
    std::uint64_t time_ns_;
    bool consistent_;
    bool open_ = false;
    bool bad_ = false;
    proto::BatchBegin begin_;
    std::uint32_t next_index_ = 0;
    std::uint64_t entries_ = 0;
    std::uint64_t payload_bytes_ = 0;
    std::uint64_t points_ = 0;
    std::array<std::array<std::uint64_t, 2>, proto::disks_max> named_{};  ///< sectors of extents in the open batch: captured, resync
    std::array<bool, proto::disks_max> touched_{};  ///< slots with extents in the open batch
    std::vector<Captured> captured_;
};

}  // namespace blkferry::store
