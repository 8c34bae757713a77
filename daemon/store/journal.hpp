// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "store/block_writer.hpp"
#include "store/file.hpp"
#include "store/journal_format.hpp"
#include "store/journal_scan.hpp"
#include "store/segment.hpp"

namespace blkferry::store {

struct JournalOptions {
    std::uint64_t segment_bytes = 64U << 20;  ///< size of new segment files, whole blocks
    std::size_t spares_max = 2;               ///< recycled files kept for the next segments
};

/// What to sync once all writes up to `last_write` are done: give each file's fd to an io_uring fdatasync (or call
/// file->sync()), then Journal::end_commit(). Holds the files open.
struct SyncTicket {
    std::vector<std::shared_ptr<File>> files;
    std::uint64_t last_write = 0;
    Position position = 0;  ///< durable up to here if all succeed
};

/// The append side of a source's journal. One thread (the network loop) owns it; committed(), begin(), file_bytes(),
/// drop_below() and prepare_next() may be called from any thread. After a failed write or sync it refuses everything:
/// reopen it.
///
///     append → take_writes() ⇒ written by io_uring ⇒ end_write()
///     begin_commit ⇒ (its writes end) ⇒ fdatasync ⇒ end_commit → committed()
///
/// commit() is all of it, blocking. No block is written twice but by commit() while the same bytes are on their way.
class Journal {
public:
    /// Where append() put an entry, and its body as it will be written.
    struct Appended {
        Position position = 0;
        Position end = 0;
        std::span<const std::byte> body;
        std::shared_ptr<const IoBuffer> owner;
    };

    /// Goes on behind a scan, at `cut` <= scan.end: entries from `cut` on are void for ever. What the scan read is durable
    /// afterwards: a process may have died, or a sync failed, between writing and syncing it. Starts a new segment.
    [[nodiscard]] static Result<std::unique_ptr<Journal>> resume(FileSystem& files, std::filesystem::path dir,
                                                                 const Uuid& store, JournalOptions options,
                                                                 const JournalScan& scan, Position cut);
    ~Journal();
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    /// Makes room for an entry in the segment (blocking only if no next segment was prepared) and returns the position that
    /// it will have if it is the next one appended.
    [[nodiscard]] Result<Position> reserve(std::size_t body_bytes);
    /// Appends one entry, in memory. Not durable before a commit.
    [[nodiscard]] Result<Appended> append(EntryType type, std::span<const std::byte> body);

    /// Full blocks to be written now; every ticket has to come back by end_write().
    [[nodiscard]] std::vector<WriteTicket> take_writes();
    /// `sys_result` is 0 or -errno. An error is sticky.
    [[nodiscard]] Result<void> end_write(std::uint64_t number, int sys_result);
    /// Bytes taken by take_writes() that did not come back yet.
    [[nodiscard]] std::uint64_t in_flight_bytes() const noexcept { return in_flight_bytes_; }

    /// Fills up the last block, so that all can be written, and says what has to be synced; nothing if all is committed.
    [[nodiscard]] Result<std::optional<SyncTicket>> begin_commit();
    /// All writes that the ticket needs came back.
    [[nodiscard]] bool is_written(const SyncTicket& ticket) const noexcept;
    /// `sys_result` is 0 or -errno of the fdatasyncs. An error is sticky. Returns the committed position.
    [[nodiscard]] Result<Position> end_commit(const SyncTicket& ticket, int sys_result);
    /// Writes and syncs everything appended, blocking; what is in flight is written once more.
    [[nodiscard]] Result<Position> commit();

    /// Behind the last appended entry.
    [[nodiscard]] Position end() const noexcept { return end_.load(std::memory_order_relaxed); }
    /// Everything below is durable. Any thread.
    [[nodiscard]] Position committed() const noexcept { return committed_.load(std::memory_order_acquire); }
    /// First position still held. Any thread.
    [[nodiscard]] Position begin() const;
    /// Bytes of all segment files and spares. Any thread.
    [[nodiscard]] std::uint64_t file_bytes() const;
    [[nodiscard]] bool failed() const noexcept { return failed_; }
    /// Writes go around the page cache.
    [[nodiscard]] bool direct() const noexcept { return file_->direct(); }

    /// Recycles or removes segments that lie wholly below `position`. Any thread.
    [[nodiscard]] Result<void> drop_below(Position position);
    /// Makes the segment behind the current one when that is half full, so that append() need not. Any thread, blocking; an
    /// error is none of the journal: append() will meet it if it lasts.
    void prepare_next();
    /// Gives back memory that an idle source does not need.
    void trim() noexcept;

private:
    struct Live {
        Segment segment;
        std::weak_ptr<File> file;  ///< alive while writes to it may be on their way
    };
    struct Made {
        std::shared_ptr<File> file;
        Segment segment;
    };
    Journal(FileSystem& files, std::filesystem::path dir, const Uuid& store, JournalOptions options);
    [[nodiscard]] Result<void> check() const;
    [[nodiscard]] Result<void> settle_tail(const JournalScan& scan);
    [[nodiscard]] Result<void> set_aside(const std::filesystem::path& path);
    [[nodiscard]] Result<void> remove_void(const JournalScan& scan, Position cut);
    [[nodiscard]] Result<Made> make_segment(std::uint64_t number, Position first, std::uint64_t allocate_bytes);
    void enter(Made made);
    [[nodiscard]] Result<void> next_segment();
    [[nodiscard]] Result<std::filesystem::path> spare(std::uint64_t number);
    void put_header(EntryType type, std::span<std::byte> to, std::uint32_t length, std::uint32_t body_crc);
    void pad(std::uint64_t whole_bytes);
    void emit();
    [[nodiscard]] std::uint64_t room() const noexcept;
    [[nodiscard]] std::unexpected<Error> stick(Error error);

    FileSystem& files_;
    const std::filesystem::path dir_;
    const Uuid store_;
    const JournalOptions options_;
    std::shared_ptr<File> file_;
    Segment segment_;                   ///< the current one
    std::uint64_t allocated_ = 0;       ///< bytes of its file that have blocks
    BufferPool pool_;
    BlockWriter writer_;
    std::vector<WriteTicket> queue_;    ///< not taken yet
    std::map<std::uint64_t, WriteTicket> in_flight_;
    std::uint64_t in_flight_bytes_ = 0;
    struct Left {
        std::shared_ptr<File> file;
        std::uint64_t last_write = 0;  ///< into it
    };
    std::vector<Left> unsynced_;  ///< earlier segments with writes that no commit has covered
    std::atomic<Position> end_{0};
    std::atomic<Position> committed_{0};
    bool failed_ = false;
    std::string failure_;

    std::mutex making_;                 ///< one segment is made at a time; taken before lock_
    std::optional<Made> prepared_;      ///< under making_
    mutable std::mutex lock_;           ///< live_, spares_
    std::vector<Live> live_;            ///< ascending, a prepared one too
    std::vector<std::filesystem::path> spares_;
};

}  // namespace blkferry::store
