// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"
#include "store/applier.hpp"
#include "store/catalogue.hpp"
#include "store/journal.hpp"
#include "store/point.hpp"
#include "store/receiver.hpp"

namespace blkferry::store {

/// What is durable of a source.
struct Durable {
    std::uint64_t batch = 0;
    std::uint64_t mark = 0;
    std::uint64_t time_ns = 0;     ///< source's wall time at the mark
    Position position = 0;         ///< apply_some() may go up to here
    bool consistent = false;       ///< what BATCH_END said: the mark lies in no gap
    bool operator==(const Durable&) const = default;
};

struct SourceOptions {
    JournalOptions journal;
    Applier::Options applier;
    std::uint64_t journal_keep_bytes = 256U << 20;  ///< applied journal kept for replay to any mark
    std::size_t hand_off_bytes = 7U << 20;          ///< received entries that wait in memory for the worker
    std::uint64_t quota_bytes = 0;                  ///< 0: none. A new batch is refused above it, a new epoch where its maps
                                                    ///< could go above it; the journal kept is at most a quarter of it
    std::uint64_t disks_bytes_max = 1ULL << 44;     ///< of all disks that a source announces together
};

struct SourceStatus {
    Durable durable;
    std::uint64_t applied_batch = 0;
    std::uint64_t applied_mark = 0;
    std::uint64_t applied_time_ns = 0;
    std::uint64_t backlog_bytes = 0;       ///< journal durable, not applied
    std::uint64_t used_bytes = 0;          ///< journal and staging on disk
    std::uint64_t points = 0;
    std::uint64_t newest_point_mark = 0;
    bool settled = false;                  ///< every disk is synced and no epoch is open (as applied)
};

/// Everything of one source in `<store>/sources/<name>/`. Two threads use it, each its own half:
///
///     loop    connect → take → take_writes ⇒ end_write … begin_commit ⇒ end_commit → ACK(durable())     request_point()
///     worker  apply_some(), compare(), checkpoint(), collect(), remove_point()
///
/// status() and points() are for any thread. No call of one half waits for the other but for a short lock. After an error
/// of the journal or the applier the half refuses everything: drop the object and open() it again (redo repairs).
class SourceStore {
public:
    /// What all sources of a store share; everything outlives the SourceStore. `catalogue` and `signer` may be null.
    struct Context {
        FileSystem& files;
        const Clock& clock;
        const SnapshotEngine& engine;
        Uuid store;
        const Signer* signer = nullptr;
        Catalogue* catalogue = nullptr;
    };

    /// Opens or makes the folder: reads the checkpoint, verifies the journal behind it, voids a torn tail or an unfinished
    /// batch, and is ready for redo by apply_some(). Damage to what was durable ends in a comparison of all disks: see damage() and
    /// checkpoint_damage().
    [[nodiscard]] static Result<std::unique_ptr<SourceStore>> open(Context context, std::filesystem::path dir,
                                                                   std::string name, SourceOptions options);
    ~SourceStore();

    // ---- loop ----

    /// An agent said HELLO (its name was checked against its certificate). Refuses another machine (Errc::denied), slots
    /// that change their disk (Errc::conflict) and disks that are larger than allowed (Errc::no_space). Journals the session durably (blocking, one fdatasync) and voids an
    /// unfinished batch. Returns WELCOME with session, durable batch and mark, load_id and disks filled in.
    [[nodiscard]] Result<proto::Welcome> connect(const proto::Hello& hello);

    /// The connection ended. An unfinished batch will never be finished: it is voided in the journal (appended, not committed), so
    /// that a recovery point at the mark before it need not wait for the next connection.
    [[nodiscard]] Result<void> disconnect();
    [[nodiscard]] bool in_batch() const noexcept { return receiver_->in_batch(); }

    /// One frame of a batch as received: verifies header, order and body, then appends it to the journal. After an error the
    /// connection must end; connect() starts anew. Errc::no_space: disk full or quota.
    [[nodiscard]] Result<Receiver::Step> take(const proto::FrameReader::View& frame);

    /// Blocks of the journal to be written now, by io_uring; each comes back by end_write(). Call after take() and
    /// begin_commit().
    [[nodiscard]] std::vector<WriteTicket> take_writes();
    [[nodiscard]] Result<void> end_write(std::uint64_t number, int sys_result);
    [[nodiscard]] std::uint64_t in_flight_bytes() const noexcept;

    /// Group commit; several batches may be covered by one ticket. Sync its files when is_written().
    [[nodiscard]] Result<std::optional<SyncTicket>> begin_commit();
    [[nodiscard]] bool is_written(const SyncTicket& ticket) const noexcept;
    [[nodiscard]] Result<Durable> end_commit(const SyncTicket& ticket, int sys_result);
    /// The blocking form.
    [[nodiscard]] Result<Durable> commit();
    [[nodiscard]] Durable durable() const;
    /// Bytes of batches that are in the journal's hands and not durable yet.
    [[nodiscard]] std::uint64_t uncommitted_bytes() const noexcept;
    /// The journal is written around the page cache; false where the file system cannot.
    [[nodiscard]] bool journal_direct() const noexcept;
    /// Gives back memory that an idle source does not need.
    void trim();

    /// Asks for a recovery point at the next batch boundary (now if no batch is open). The outcome comes out of
    /// apply_some() with this request number and from_server set.
    [[nodiscard]] Result<void> request_point(std::uint64_t request, proto::PointKind kind, std::string name);

    // ---- worker ----

    /// Applies durable batches, about `budget_bytes` of journal; checkpoints and drops old journal when due.
    [[nodiscard]] Result<ApplyReport> apply_some(std::uint64_t budget_bytes);
    /// Answers HASH_ASK from staging as applied so far: call it when applied() >= the durable position at which it came.
    [[nodiscard]] Result<proto::HashReply> compare(const proto::HashAsk& ask);
    [[nodiscard]] Result<void> checkpoint();
    [[nodiscard]] Result<std::size_t> collect();
    [[nodiscard]] Result<void> remove_point(std::string_view name);

    // ---- any thread ----

    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    /// Journal position up to which staging is current.
    [[nodiscard]] Position applied() const noexcept { return applied_.load(std::memory_order_acquire); }
    [[nodiscard]] SourceStatus status() const;
    /// What of the journal could not be read when it was opened. Everything from there on was dropped, and every disk has to be
    /// compared with its source. Any thread.
    [[nodiscard]] const std::optional<Error>& damage() const noexcept { return damage_; }
    /// Why the checkpoint could not be used when it was opened: redo began at the end of the journal, and every disk has to be
    /// compared with its source. Any thread.
    [[nodiscard]] const std::optional<Error>& checkpoint_damage() const noexcept { return checkpoint_damage_; }
    /// Why the recovery points found at open are not all that were made and not removed. Not asked for while one is damaged. Any
    /// thread.
    [[nodiscard]] const std::optional<Error>& chain_damage() const noexcept { return chain_damage_; }
    [[nodiscard]] PointStore& points() noexcept { return *points_; }

private:
    struct Mark {
        Position end;
        std::uint64_t batch, mark, time_ns;
        bool consistent;
    };
    SourceStore(Context context, std::filesystem::path dir, std::string name, SourceOptions options);
    [[nodiscard]] Result<void> recover();
    [[nodiscard]] Result<void> distrust();
    [[nodiscard]] Result<void> replay(const EntryView& entry);
    [[nodiscard]] Session own_session(std::string_view why) const;
    [[nodiscard]] Result<void> append_session(const Session& session);
    [[nodiscard]] Result<Position> append_text(EntryType type, const std::string& text);
    void hand_over(JournalEntry entry);
    [[nodiscard]] Result<void> append_point(const PointEntry& entry);
    [[nodiscard]] Result<void> append_wanted_points();
    [[nodiscard]] Durable advance(Position committed);
    void push_mark();
    void resolve(Disk& disk);
    void publish_state();
    [[nodiscard]] std::uint64_t used_bytes() const;
    [[nodiscard]] Result<void> check_sizes(const proto::Hello& hello) const;
    [[nodiscard]] Result<void> check_quota(const proto::FrameHeader& header) const;
    [[nodiscard]] Result<void> after_checkpoint();

    Context context_;
    const std::filesystem::path dir_;
    const std::string name_;
    const SourceOptions options_;

    // loop
    DiskTable table_;                      ///< as of the end of the journal
    std::unique_ptr<Receiver> receiver_;
    std::unique_ptr<Journal> journal_;
    Decompressor decompressor_;
    std::vector<std::byte> scratch_;
    BufferPool raw_pool_;
    BodyArena arena_;                      ///< bodies that travelled compressed
    Position batch_begin_ = 0;             ///< of the open batch
    std::deque<Mark> marks_;               ///< complete batches and entries, not committed yet
    std::vector<PointEntry> wanted_points_;
    std::optional<Error> damage_;          ///< fixed when it is open
    std::optional<Error> checkpoint_damage_;  ///< fixed when it is open
    std::optional<Error> chain_damage_;    ///< fixed when it is open
    Position complete_end_ = 0;            ///< behind the last complete batch or entry

    // both, by itself thread-safe
    HandOff hand_off_;

    // worker
    std::unique_ptr<PointStore> points_;
    std::unique_ptr<Applier> applier_;
    bool catalogue_behind_ = false;        ///< it missed a removal: the next checkpoint tells it all points

    // shared
    mutable std::mutex lock_;
    Durable durable_;
    DiskTable applied_table_;
    SourceStatus applied_status_;
    std::atomic<Position> applied_{0};
    std::atomic<std::uint64_t> staging_bytes_{0};
};

}  // namespace blkferry::store
