// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "store/file.hpp"

namespace blkferry::test {

/// A file system in memory that knows what is durable. power_cut() keeps, of everything that was not synced, a random
/// part: single sectors of file contents, and a prefix of the changes of names (as a journalling file system does).
/// Every changing operation has a number; one of them can be made to fail, alone or with all that follow.
class CrashFs final : public store::FileSystem {
public:
    using Sector = std::array<std::byte, 512>;
    struct Inode {
        std::vector<std::byte> now;
        std::map<std::uint64_t, Sector> old;  ///< durable contents of sectors changed since the last sync
        std::map<std::uint64_t, Sector> lost;  ///< the same of sectors whose sync failed: clean in memory, old on disk
        std::uint64_t durable_bytes = 0;
    };

    using FileSystem::open;
    Result<std::unique_ptr<store::File>> open(const std::filesystem::path& path, store::OpenMode mode,
                                              store::Caching caching) override;
    Result<void> rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
    Result<void> remove(const std::filesystem::path& path) override;
    Result<void> make_dir(const std::filesystem::path& path) override;
    Result<std::vector<std::string>> list(const std::filesystem::path& dir) override;
    Result<void> sync_dir(const std::filesystem::path& dir) override;
    Result<void> sync_all(const std::filesystem::path& dir) override;

    /// From operation number `n` (1 is the next) on everything fails, as after a power cut.
    void die_at(std::uint64_t n) { die_at_ = operations_ + n; }
    /// Operation number `n` from now fails once with this errno. A sync that fails leaves contents that look clean and are
    /// not durable, as Linux does.
    void fail_at(std::uint64_t n, int err) {
        fail_at_ = operations_ + n;
        fail_errno_ = err;
    }
    [[nodiscard]] bool dead() const noexcept { return die_at_ != 0 && operations_ >= die_at_; }
    [[nodiscard]] bool failed() const noexcept { return fail_at_ != 0 && operations_ >= fail_at_; }
    [[nodiscard]] std::uint64_t operations() const noexcept { return operations_; }
    /// Power cut and restart: open files are gone, faults are off.
    void power_cut(std::mt19937_64& random);
    /// The process dies and starts again, the machine goes on: what was written is there, and no more durable than before.
    void process_kill() {
        die_at_ = 0;
        fail_at_ = 0;
        ++life_;
    }

    /// Asked before each operation that changes something ("write", "sync", "rename", …) and each that reads ("read", "open",
    /// "list", "look"): not 0 is the errno with which it fails. A write that fails may have written its first half. `pretend`: it says
    /// that it is done and did nothing, to see that a test notices.
    static constexpr int pretend = -1;
    std::function<int(std::string_view what, const std::string& path)> trouble;
    /// A sync of a folder says that it is done and did nothing, for the same reason.
    bool lie_about_names = false;

    bool reflinks = true;
    bool direct_io = true;  ///< Caching::direct works
    /// Files have a number as descriptor, for a simulated io_uring: file_of() finds the file that has it open.
    bool descriptors = false;
    [[nodiscard]] store::File* file_of(int fd) const {
        const auto it = open_.find(fd);
        return it == open_.end() ? nullptr : it->second;
    }

    /// For damage: a file's contents, or nullptr.
    [[nodiscard]] std::vector<std::byte>* contents(const std::filesystem::path& path);
    [[nodiscard]] std::vector<std::string> paths() const;
    /// Files that are open, if they have descriptors.
    [[nodiscard]] std::size_t open_files() const noexcept { return open_.size(); }

private:
    friend class CrashFile;
    using Names = std::map<std::string, std::shared_ptr<Inode>>;
    struct NameChange {
        std::string dir;
        std::function<void(Names&)> apply;
    };
    [[nodiscard]] Result<void> operation(const char* what, const std::string& path);
    [[nodiscard]] Result<void> ask(const char* what, const std::string& path) const;
    void change(const std::string& dir, std::function<void(Names&)> apply);

    Names now_;
    Names durable_;
    std::vector<NameChange> pending_;
    std::uint64_t operations_ = 0;
    std::uint64_t die_at_ = 0;
    std::uint64_t fail_at_ = 0;
    int fail_errno_ = 0;
    static constexpr int first_descriptor = 1 << 24;  ///< beyond those of the system
    std::map<int, store::File*> open_;
    int next_descriptor_ = first_descriptor;
    std::uint64_t life_ = 0;  ///< counts power cuts: files of an earlier life fail
};

}  // namespace blkferry::test
