// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "loop/loop.hpp"
#include "proto/control.hpp"
#include "proto/handshake.hpp"
#include "proto/hashing.hpp"
#include "server/options.hpp"
#include "server/session.hpp"
#include "server/worker_pool.hpp"
#include "store/store.hpp"

namespace blkferry::server {

/// What all replicas share; everything outlives them.
struct Surroundings {
    loop::Loop& loop;
    const Clock& clock;
    Log& log;
    WorkerPool& workers;
    std::shared_ptr<store::Store> store;  ///< lives as long as any source of it
    const ServerOptions& options;
    Decompressor decompressor{};
    std::vector<std::byte> scratch{};
    bool disk_low = false;  ///< the store's file system is below its reserve
};

/// One source on this server: its store, the connection that feeds it, its turns in the worker pool.
///
///     opening ──ok──> ready ──error of journal or apply──> failed ──after a while──> opening
///
/// Loop side: frames → journal → io_uring writes → fdatasync → ACK. Worker side, one job at a time: apply → results back to the loop.
/// All members are called in the loop's thread; only Job::run() is a worker's.
class Replica : public std::enable_shared_from_this<Replica> {
public:
    enum class State : std::uint8_t { opening, ready, failed };
    /// Something for the worker half of the store, and what to do in the loop afterwards.
    using WorkerTask = std::move_only_function<void(store::SourceStore&)>;

    Replica(Surroundings& around, std::string name);

    /// Opens the store (in a worker) and then applies what the journal holds.
    void open();
    /// A connection said HELLO: if the store accepts it, it becomes the one live connection, WELCOME is sent (once the store
    /// is open) and an older connection is told to close. The error refuses the newcomer and changes nothing.
    [[nodiscard]] Result<void> attach(Session& session, const proto::Hello& hello);
    /// The connection ended.
    void detach(const Session& session);
    /// A frame behind HELLO.
    [[nodiscard]] Result<void> receive(const proto::FrameReader::View& view);
    /// A turn of reading is over.
    void drained();
    /// Each heartbeat interval.
    void tick();
    /// Runs a task in the worker half, in turn with applying; Errc::busy if the store is not open. The task is dropped without
    /// a call if the store fails first.
    [[nodiscard]] Result<void> submit(WorkerTask task);
    /// No new connections or points; `done` when no job runs any more and staging is checkpointed.
    void shut(std::move_only_function<void()> done);

    struct Report {
        State state = State::opening;
        std::string error;             ///< of state failed
        bool connected = false;
        std::string address;
        std::string agent_version;
        std::uint64_t session = 0;
        std::string cause;             ///< why the source is held, empty if it is not
        proto::Heartbeat agent;        ///< last word of the agent
        std::uint64_t lag_ms = 0;      ///< age of the source's oldest write that is not durable here, as far as it is known
        std::uint64_t bytes_in = 0;    ///< received since start of the server
        std::uint64_t bytes_in_per_s = 0;
        std::uint64_t applied_bytes_per_s = 0;
        std::vector<proto::DiskInfo> disks;
        store::SourceStatus store;
    };
    [[nodiscard]] Report report() const;
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] State state() const noexcept { return state_; }
    /// The open store or nullptr. points() and status() of it are for any thread.
    [[nodiscard]] std::shared_ptr<store::SourceStore> store() const noexcept { return store_; }

private:
    struct Ask {
        proto::HashAsk ask;
        std::uint64_t after_batch = 0;  ///< last complete batch before it in the stream
    };
    struct Job;
    struct JobResult;

    void opened(Result<std::shared_ptr<store::SourceStore>> result);
    void fail_store(const Error& why);
    [[nodiscard]] Result<void> greet();
    void fence(const Session& by);
    [[nodiscard]] Result<void> welcome(Session& session, const proto::Hello& hello);
    void maybe_shut();
    [[nodiscard]] Result<void> refuse_without_store() const;
    void commit();
    void write_out();
    void submit_write(std::shared_ptr<store::SourceStore> store, store::WriteTicket ticket);
    void wrote(const std::shared_ptr<store::SourceStore>& store, store::WriteTicket ticket, int sys_result);
    void sync();
    void synced(const std::shared_ptr<store::SourceStore>& store, int sys_result);
    void journal_failed(const Error& why);
    void hold_by_writes();
    void acknowledge(const store::Durable& durable);
    void work();
    void worked(JobResult result);
    void on_epoch(const proto::EpochResult& result);
    void on_point(const store::PointOutcome& outcome);
    void maybe_point();
    void prune_points();
    [[nodiscard]] std::uint64_t lag_ms(std::uint64_t durable_time_ns) const;
    void update_hold();
    void send_heartbeat();
    [[nodiscard]] Result<void> receive_batch_frame(const proto::FrameReader::View& view);
    [[nodiscard]] Result<void> receive_ask(std::span<const std::byte> body);
    [[nodiscard]] std::uint64_t window() const;
    [[nodiscard]] bool quiet() const noexcept { return !working_ && writes_ == 0 && syncs_ == 0; }

    Surroundings& around_;
    const std::string name_;
    State state_ = State::opening;
    Error error_;
    std::uint64_t reopen_delay_ns_ = 0;
    std::uint64_t greetings_ = 0;          ///< HELLOs of the last seconds, see greet()
    std::uint64_t greeted_ns_ = 0;
    loop::Timer reopen_;
    std::shared_ptr<store::SourceStore> store_;
    std::weak_ptr<store::SourceStore> last_store_;  ///< the failed one, as long as a job or a sync uses it

    Session* session_ = nullptr;      ///< the live connection
    bool welcomed_ = false;           ///< it got WELCOME (the store was open)
    proto::Hello hello_;
    std::uint64_t session_number_ = 0;
    proto::Heartbeat agent_;
    struct {
        std::uint64_t ms = 0;
        std::uint64_t ns = 0;         ///< monotonic, when it was told; 0: never
    } told_lag_;                      ///< of the newest heartbeat of any session
    std::string cause_;

    bool in_batch_ = false;
    bool consistent_ = false;         ///< the last complete batch is
    std::uint64_t complete_batch_ = 0;
    std::uint64_t begun_mark_ = 0;    ///< of the batch that began last
    std::uint64_t complete_mark_ = 0;
    std::uint64_t acked_batch_ = 0;
    bool commit_wanted_ = false;
    bool drained_ = true;             ///< the connection has nothing more for now
    unsigned writes_ = 0;             ///< in the kernel's hands
    bool writes_behind_ = false;      ///< the connection is held until the disk has taken more
    std::optional<store::SyncTicket> commit_;  ///< the one under way
    unsigned syncs_ = 0;              ///< of its files, in the kernel's hands
    int sync_result_ = 0;

    bool working_ = false;
    bool unstored_ = false;           ///< something was applied since the last checkpoint
    unsigned idle_turns_ = 0;
    bool collect_wanted_ = true;
    std::deque<Ask> asks_;
    std::vector<WorkerTask> tasks_;

    std::map<std::uint16_t, proto::EpochResult> epoch_results_;  ///< the last of each disk
    std::deque<proto::PointResult> point_results_;               ///< the last asked for by agents
    std::uint64_t point_request_ = 0;                            ///< the server's own requests
    store::Position redo_end_ = 0;                               ///< of the journal when the store was opened
    bool point_pending_ = false;
    std::uint64_t point_due_ns_ = 0;

    std::uint64_t bytes_in_ = 0;
    std::uint64_t bytes_in_before_ = 0;
    std::uint64_t bytes_in_per_s_ = 0;
    std::uint64_t applied_bytes_ = 0;
    std::uint64_t applied_before_ = 0;
    std::uint64_t applied_bytes_per_s_ = 0;
    std::uint64_t ticked_ns_ = 0;
    std::move_only_function<void()> shut_;
    bool shutting_ = false;
};

[[nodiscard]] std::string_view to_string(Replica::State state) noexcept;

}  // namespace blkferry::server
