// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "extent/extent_set.hpp"
#include "proto/batch.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"

/// A source and its agent in memory: disks with contents, captured writes, gaps, resync epochs, points; it encodes real
/// frames. Contents that the resync ships for sectors captured since the epoch began are garbage on purpose: a captured
/// write always wins, so they must never show.
namespace blkferry::test {

using Bytes = std::vector<std::byte>;

/// One encoded batch and what the source held at its mark.
struct ModelBatch {
    std::uint64_t number = 0;
    std::uint64_t mark = 0;
    bool consistent = false;
    std::vector<Bytes> frames;
    std::vector<Bytes> images;                      ///< of all disks at the mark; empty if not consistent
    std::vector<std::string> points;                ///< asked for in it
    std::vector<std::uint16_t> ended_epochs;        ///< slots
};

class Model {
public:
    Model(std::uint64_t seed, std::size_t disks, std::uint64_t disk_sectors);

    [[nodiscard]] proto::Hello hello() const;
    /// Writes, and maybe an epoch's begin, data and end, since the last batch.
    ModelBatch next_batch();
    /// Writes on the source that no batch will hold: the disk has a gap until its next epoch ended.
    void open_gap();
    /// The agent found that tracking was lost on one disk: new attach id, a rescan follows.
    void lose_tracking(std::size_t disk);
    /// The result of the last epoch of a disk came.
    void epoch_result(std::uint16_t slot, std::uint64_t seq0, bool ok);
    /// seq0 of an epoch that ended and whose result has not come.
    [[nodiscard]] std::optional<std::uint64_t> awaited_epoch(std::uint16_t slot) const;
    [[nodiscard]] bool settled() const;
    [[nodiscard]] std::uint64_t random(std::uint64_t below) { return random_() % below; }
    [[nodiscard]] const Bytes& image(std::size_t disk) const { return disks_[disk].content; }
    [[nodiscard]] std::size_t disks() const noexcept { return disks_.size(); }
    void ask_for_point(std::string name) { wanted_points_.push_back(std::move(name)); }

private:
    enum class State : std::uint8_t { gap, epoch, ending, ring };
    struct Disk {
        proto::DiskInfo info;
        Bytes content;
        ExtentSet dirty;          ///< not captured, not shipped
        ExtentSet captured;       ///< since the open epoch began
        ExtentSet left;           ///< of the open epoch, not shipped
        proto::EpochBegin epoch;
        State state = State::gap;
        proto::EpochKind kind = proto::EpochKind::initial;
        bool fresh_gap = false;   ///< a gap opened while an epoch was open
    };
    struct Entry {
        proto::ExtentEntry entry;
        Bytes data;
    };
    [[nodiscard]] Extent some_extent(std::uint64_t max);
    void fill(Disk& d, Extent e);
    void capture(Disk& d, std::vector<Entry>& out, ExtentSet& taken);
    void ship_resync(Disk& d, std::vector<Entry>& out);
    void add_frame(ModelBatch& b, proto::FrameType type, const Bytes& body);
    void add_extents(ModelBatch& b, std::vector<Entry>& entries);

    std::mt19937_64 random_;
    Compressor lz4_{Codec::lz4, 1};
    Uuid source_id_;
    Uuid load_id_;
    std::uint64_t disk_sectors_;
    std::vector<Disk> disks_;
    std::uint64_t seq_ = 0;
    std::uint64_t mark_ = 0;
    std::uint64_t number_ = 0;
    std::vector<std::string> wanted_points_;
};

}  // namespace blkferry::test
