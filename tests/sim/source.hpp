// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <list>
#include <optional>
#include <vector>

#include "world.hpp"

namespace blkferry::sim {

/// The protected machine: its disks (files), a seeded writer, and the history of what every write did, by seq.
class Source {
public:
    Source(World& w, const std::filesystem::path& dir);
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;

    /// Begins to write, until stop().
    void start();
    void stop() { running_ = false; }
    /// Submits one write that ends by itself, unless its place is taken.
    void write_one();
    [[nodiscard]] bool idle() const noexcept { return !running_ && flying_.empty(); }
    [[nodiscard]] std::size_t disks() const noexcept { return disks_.size(); }
    [[nodiscard]] const std::string& path(std::size_t disk) const { return disks_.at(disk).path; }
    [[nodiscard]] std::uint64_t bytes(std::size_t disk) const { return disks_.at(disk).bytes; }
    /// What a disk held after every write with a number up to a mark: for marks that rise, each write is done once.
    class Replay {
    public:
        Replay(const Source& source, std::size_t disk) : source_(source), disk_(disk), image_(source.disks_.at(disk).begin) {}
        [[nodiscard]] const std::vector<std::byte>& at(std::uint64_t mark);

    private:
        const Source& source_;
        const std::size_t disk_;
        std::vector<std::byte> image_;
        std::size_t next_ = 0;  ///< in the history, whose numbers never fall
    };
    /// What the disk holds now.
    [[nodiscard]] std::vector<std::byte> medium(std::size_t disk) const;
    /// A mark that is at or behind this one has all writes.
    [[nodiscard]] std::uint64_t last_seq() const noexcept { return last_seq_; }
    [[nodiscard]] std::size_t writes() const noexcept { return history_.size(); }

private:
    struct Drive {
        std::string path;
        std::uint64_t dev = 0;
        std::uint64_t bytes = 0;
        std::vector<std::byte> begin;
    };
    struct Done {
        std::uint64_t seq = 0;
        std::size_t disk = 0;
        std::uint64_t sector = 0;
        std::vector<std::byte> data;
    };
    struct Flying {
        producer::Machine::Write write;
        std::vector<std::byte> data;
        std::size_t disk = 0;
        std::size_t record = 0;  ///< in history_
    };
    void next();
    void land(std::list<Flying>::iterator f, producer::End how);
    [[nodiscard]] std::vector<std::byte> read(std::size_t disk, std::uint64_t sector, std::uint64_t sectors) const;

    World& world_;
    std::vector<Drive> disks_;
    std::vector<Done> history_;
    std::list<Flying> flying_;
    std::uint64_t last_seq_ = 0;
    std::uint64_t gap_us_ = 0;
    std::uint64_t sectors_max_ = 0;
    bool running_ = false;
    bool mishaps_ = false;
};

}  // namespace blkferry::sim
