// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "store/file.hpp"
#include "store/signer.hpp"

namespace blkferry::store {

/// One removed recovery point, or several with neighbouring serials folded into one: what the chain needs of them. A hash is
/// empty if nobody knows it any more (the manifest was damaged when it was removed).
struct RemovedPoint {
    std::uint64_t first = 0;      ///< == serial, unless several are folded
    std::uint64_t serial = 0;     ///< the last
    std::string name;             ///< of the last
    std::string hash;             ///< of the last
    std::string parent_hash;      ///< of the first
    std::uint64_t removed_ns = 0; ///< of the last
    bool operator==(const RemovedPoint&) const = default;
};

/// `points/removed.log`: that a point was removed is part of the chain. It is appended to, and written anew once most of its
/// lines can be folded, so it grows with the points that are left and not with those that ever were. Not thread-safe.
class RemovedLog {
public:
    static constexpr std::string_view file_name = "removed.log";
    static constexpr std::string_view damaged_prefix = "removed.log.damaged-";  ///< copies of damaged ones

    /// By the first serial. No two of them overlap; neighbours that follow each other are folded.
    using Runs = std::map<std::uint64_t, RemovedPoint>;

    /// `signer` may be null (then nothing is signed or verified) and must outlive it.
    RemovedLog(FileSystem& files, std::filesystem::path path, const Signer* signer);

    /// Reads the file; changes nothing. An append that a crash tore leaves a last line that cannot be read: it never was
    /// durable. Any other line that cannot be read is damage().
    [[nodiscard]] Result<void> load();
    /// Durable when it returns. After an error it is not in the file, or doubtful() and then it may be.
    [[nodiscard]] Result<void> append(const RemovedPoint& point);
    /// Writes the whole file anew, durably: what it holds may have been read from memory that never reached the disk (a
    /// sync failed in an earlier life). A damaged file is kept beside it.
    [[nodiscard]] Result<void> rewrite();
    /// Most of the lines can be folded.
    [[nodiscard]] bool wants_rewrite() const noexcept;
    /// The file may hold something else than runs(): rewrite() makes it what they are.
    [[nodiscard]] bool doubtful() const noexcept { return doubtful_; }

    [[nodiscard]] bool contains(std::uint64_t serial) const noexcept;
    [[nodiscard]] const Runs& runs() const noexcept { return runs_; }
    [[nodiscard]] const std::optional<Error>& damage() const noexcept { return damage_; }

private:
    [[nodiscard]] Result<void> write_all(const Runs& runs);

    FileSystem& files_;
    const std::filesystem::path path_;
    const Signer* signer_;
    Runs runs_;
    std::size_t lines_ = 0;       ///< in the file
    std::uint64_t bytes_ = 0;     ///< of the file
    bool doubtful_ = false;       ///< the file's end is not known: only rewrite() helps
    std::optional<Error> damage_;
    std::string damaged_text_;    ///< the file as it was read, if there is damage
};

}  // namespace blkferry::store
