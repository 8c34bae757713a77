// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/file.hpp"
#include "store/journal_format.hpp"
#include "store/segment.hpp"

namespace blkferry::store {

/// What journal_scan() found.
struct JournalScan {
    SegmentList segments;                         ///< none live: a new journal
    Position from = 0;                            ///< where it began
    Position end = 0;                                        ///< behind the last good entry
    bool torn = false;                            ///< an incomplete tail follows `end` (written, never durable)
};

/// Reads every entry from `from` on, in order. An incomplete tail ends it without an error; damage to anything that was
/// durable is Errc::corrupt naming segment and byte. `visit` may stop it with an error.
[[nodiscard]] Result<JournalScan> journal_scan(FileSystem& files, const std::filesystem::path& dir, const Uuid& store,
                                               Position from,
                                               const std::function<Result<void>(const EntryView&)>& visit);

struct JournalOptions {
    std::uint64_t segment_bytes = 64U << 20;  ///< size of new segment files
    std::size_t spares_max = 2;               ///< recycled files kept for the next segments
    std::size_t buffer_bytes = 256U << 10;    ///< small entries gather here until flush or commit
};

/// What to sync: give `fd` to an io_uring fdatasync (or call file->sync()), then Journal::end_commit(). Holds the file open.
struct SyncTicket {
    std::shared_ptr<File> file;
    int fd = -1;
    Position position = 0;  ///< durable up to here if the sync succeeds
};

/// The append side of a source's journal. One thread (the network loop) owns it; committed() and drop_below() may be
/// called from any thread. After a failed write or sync it refuses everything: reopen it.
class Journal {
public:
    /// Goes on behind a scan, at `cut` <= scan.end: entries from `cut` on are void for ever. What the scan read is durable
    /// afterwards: a process may have died, or a sync failed, between writing and syncing it. Starts a new segment.
    [[nodiscard]] static Result<std::unique_ptr<Journal>> resume(FileSystem& files, std::filesystem::path dir,
                                                                 const Uuid& store, JournalOptions options,
                                                                 const JournalScan& scan, Position cut);
    ~Journal();
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    /// Appends one entry (buffered if small) and returns the position behind it. Not durable before a commit.
    [[nodiscard]] Result<Position> append(EntryType type, std::span<const std::byte> body);

    /// Writes out what is buffered and says what has to be synced; nothing if all is committed.
    [[nodiscard]] Result<std::optional<SyncTicket>> begin_commit();
    /// `sys_result` is 0 or -errno of the fdatasync. An error is sticky. Returns the committed position.
    [[nodiscard]] Result<Position> end_commit(const SyncTicket& ticket, int sys_result);
    /// begin_commit, sync and end_commit in one, blocking.
    [[nodiscard]] Result<Position> commit();

    /// Behind the last appended entry.
    [[nodiscard]] Position end() const noexcept { return end_; }
    /// Everything below is durable. Any thread.
    [[nodiscard]] Position committed() const noexcept { return committed_.load(std::memory_order_acquire); }
    /// First position still held. Any thread.
    [[nodiscard]] Position begin() const;
    /// Bytes of all segment files and spares. Any thread.
    [[nodiscard]] std::uint64_t file_bytes() const;
    [[nodiscard]] bool failed() const noexcept { return failed_; }

    /// Recycles or removes segments that lie wholly below `position`. Any thread.
    [[nodiscard]] Result<void> drop_below(Position position);

private:
    Journal(FileSystem& files, std::filesystem::path dir, const Uuid& store, JournalOptions options);
    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Result<void> settle_tail(const JournalScan& scan);
    [[nodiscard]] Result<void> start_segment(Position first);
    [[nodiscard]] Result<void> write_out(std::span<const std::byte> header, std::span<const std::byte> body);
    [[nodiscard]] Result<std::filesystem::path> spare();
    [[nodiscard]] std::uint64_t tail_offset() const noexcept { return segment_.offset_of(end_); }
    [[nodiscard]] std::unexpected<Error> stick(Error error);

    FileSystem& files_;
    const std::filesystem::path dir_;
    const Uuid store_;
    const JournalOptions options_;
    std::shared_ptr<File> file_;
    Segment segment_;                   ///< the current one
    std::uint64_t writeback_ = 0;       ///< file offset up to which writing out was started
    std::vector<std::byte> buffer_;     ///< entries [end_ - buffer_.size(), end_) not yet written
    Position end_ = 0;
    std::atomic<Position> committed_{0};
    bool failed_ = false;
    std::string failure_;
    std::uint64_t next_number_ = 1;

    mutable std::mutex lock_;           ///< segments_, spares_
    std::vector<Segment> segments_;
    std::vector<std::filesystem::path> spares_;
};

}  // namespace blkferry::store
