// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <filesystem>
#include <list>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "world.hpp"

namespace blkferry::sim {

/// The protected machine: its disks (files) with a volatile cache, a seeded writer, and the history of what every write did.
/// It can go down; each start is a **life** with numbers of its own, the contents of the disks at its begin, and its own history.
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
    /// The file systems: while they are frozen no write is submitted.
    void freeze(bool frozen) { frozen_ = frozen; }
    [[nodiscard]] bool quiet() const noexcept { return flying_.empty(); }
    [[nodiscard]] bool idle() const noexcept { return !running_ && quiet(); }

    /// It goes down and comes up at once: what was in flight may have happened in part, what the tracker knew is gone. With a
    /// power cut, of what no flush covered each sector is old or new. No agent may run. May make a disk larger.
    void reboot(bool power_cut);
    /// The first session since the start began behind this mark: higher ones are of this life.
    void session_began(std::uint64_t durable_mark);
    [[nodiscard]] std::size_t lives() const noexcept { return lives_.size(); }
    /// In which of them a mark lies.
    [[nodiscard]] std::size_t life_of(std::uint64_t mark) const noexcept;

    [[nodiscard]] std::size_t disks() const noexcept { return disks_.size(); }
    [[nodiscard]] const std::string& path(std::size_t disk) const { return disks_.at(disk).path; }
    [[nodiscard]] std::uint64_t bytes(std::size_t disk) const { return disks_.at(disk).bytes; }
    [[nodiscard]] std::uint64_t device(std::size_t disk) const { return disks_.at(disk).dev; }

    /// What a disk held after every write up to a mark: for marks that rise, each write is done once.
    class Replay {
    public:
        Replay(const Source& source, std::size_t disk) : source_(source), disk_(disk) { enter(0); }
        [[nodiscard]] const std::vector<std::byte>& at(std::uint64_t mark);
        /// Where `got` is not what at(mark) is, if anywhere.
        [[nodiscard]] std::optional<std::uint64_t> first_difference(std::uint64_t mark, std::span<const std::byte> got);

    private:
        void enter(std::size_t life);
        const Source& source_;
        const std::size_t disk_;
        std::size_t life_ = 0;
        std::vector<std::byte> image_;
        std::size_t next_ = 0;  ///< in the history of the life, whose numbers never fall
    };
    /// What the disk holds now.
    [[nodiscard]] std::vector<std::byte> medium(std::size_t disk) const;
    /// A mark has all writes of this life.
    [[nodiscard]] bool has_all(std::uint64_t mark) const noexcept;
    [[nodiscard]] std::uint64_t last_seq() const noexcept { return last_seq_; }
    [[nodiscard]] std::size_t writes() const noexcept { return writes_; }

private:
    using Sector = std::array<std::byte, 512>;
    struct Drive {
        std::string path;
        std::uint64_t dev = 0;
        std::uint64_t bytes = 0;
        std::map<std::uint64_t, Sector> unflushed;  ///< what a power cut may bring back
    };
    struct Done {
        std::uint64_t seq = 0;
        std::size_t disk = 0;
        std::uint64_t sector = 0;
        std::vector<std::byte> data;
    };
    /// Submitted before the disk was tracked, ended afterwards: up to a mark either content is right.
    struct Vague {
        std::size_t disk = 0;
        std::uint64_t sector = 0;
        std::uint64_t sectors = 0;
        std::uint64_t until = 0;
    };
    struct Life {
        std::vector<std::vector<std::byte>> begin;  ///< of each disk
        std::optional<std::uint64_t> floor;         ///< marks above are of this life; nothing: it had no session
        std::vector<Done> history;
        std::vector<Vague> vague;
    };
    struct Flying {
        producer::Machine::Write write;
        std::vector<std::byte> data;
        std::size_t disk = 0;
        std::size_t record = 0;  ///< in the history
        bool executed = false;
        bool tracked = false;
    };
    void next();
    void execute(Flying& f);
    void land(std::list<Flying>::iterator f, producer::End how);
    void cut_power(std::size_t disk);
    void put(std::size_t disk, std::uint64_t sector, std::span<const std::byte> data);
    void begin_life();
    [[nodiscard]] Life& life() noexcept { return lives_.back(); }
    [[nodiscard]] std::vector<std::byte> read(std::size_t disk, std::uint64_t sector, std::uint64_t sectors) const;

    World& world_;
    std::vector<Drive> disks_;
    std::vector<Life> lives_;
    std::list<Flying> flying_;
    std::uint64_t last_seq_ = 0;
    std::uint64_t gap_us_ = 0;
    std::uint64_t sectors_max_ = 0;
    std::uint64_t flush_one_in_ = 0;  ///< writes; 0: the disks have no volatile cache
    std::size_t writes_ = 0;
    bool running_ = false;
    bool frozen_ = false;
    bool mishaps_ = false;
};

}  // namespace blkferry::sim
