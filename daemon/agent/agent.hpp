// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/compare.hpp"
#include "agent/disk.hpp"
#include "agent/freeze_cut.hpp"
#include "agent/points.hpp"
#include "agent/quiet_mark.hpp"
#include "agent/rates.hpp"
#include "agent/read_pool.hpp"
#include "agent/registry.hpp"
#include "agent/renewal.hpp"
#include "agent/resync.hpp"
#include "agent/self_check.hpp"
#include "agent/session.hpp"
#include "agent/shipper.hpp"
#include "agent/state.hpp"
#include "agent/sync_progress.hpp"
#include "agent/verify.hpp"
#include "agent/stamp_ages.hpp"
#include "agent/verify_state.hpp"
#include "agent/workers.hpp"
#include "capture/tracker.hpp"
#include "config/config.hpp"
#include "control/server.hpp"
#include "loop/loop.hpp"
#include "service/log.hpp"
#include "tls/context.hpp"

namespace blkferry::agent {

struct AgentOptions {
    std::filesystem::path config_file;
    std::filesystem::path tracker_socket;  ///< of a producer; empty: as `capture` says
    std::optional<config::Capture> capture = {};  ///< instead of the configuration's
    std::filesystem::path opener = {};            ///< socket of the opener; empty: this process talks to the module itself
};

/// The daemon: its disks, its session, and what its operator asks. One thread (the loop's) but for the pool.
class Agent final : public SessionHost, public ShipperObserver {
public:
    Agent(loop::Loop& loop, AgentOptions options, config::AgentConfig config, service::Log& log);
    Agent(const Agent&) = delete;
    Agent& operator=(const Agent&) = delete;
    ~Agent() override;

    /// Opens tracker, registry, certificates and control socket, attaches the protected disks and begins to connect.
    [[nodiscard]] Result<void> start();
    /// Reads the configuration again. Errors leave everything as it was.
    [[nodiscard]] Result<config::Changes> reload();
    /// What systemd shows as the status text.
    [[nodiscard]] std::string status_line() const;
    [[nodiscard]] SourceState state() const noexcept { return state_; }
    /// It stopped the loop itself, because it cannot go on.
    [[nodiscard]] bool failed() const noexcept { return failed_; }

private:
    /// A protected disk that is attached, with the one who closes its gaps.
    struct Member {
        Disk disk;
        std::unique_ptr<Resync> resync;
        loop::Watch wake;
        std::uint64_t gap_since_ns = 0;  ///< monotonic; 0: no gap
        SelfCheck self_check;
        std::uint64_t memory_bytes = 0;     ///< reserved for it by the tracker
        std::uint64_t untracked_bytes = 0;  ///< found by the self-check since it was attached here
        std::vector<capture::LatencySet> latency;  ///< as last read; empty: not measured
    };
    /// A protected disk that is not.
    struct Missing {
        ProtectedDisk record;
        std::string why;
    };

    // agent_disks.cpp
    void attach_all();
    [[nodiscard]] Result<void> attach(const ProtectedDisk& record, const std::vector<BlockDevice>& devices);
    [[nodiscard]] Result<capture::DiskInfo> attach_device(std::uint64_t dev, const std::string& path, std::uint64_t sectors);
    [[nodiscard]] Result<capture::Ring> open_ring(capture::DiskInfo& info, const std::string& path);
    void detach(std::uint16_t slot, bool from_module);
    [[nodiscard]] Result<void> reattach_all();
    [[nodiscard]] std::vector<BlockDevice> devices() const;
    [[nodiscard]] Result<BlockDevice> device(const std::string& path) const;
    [[nodiscard]] Member* member(std::uint16_t slot) noexcept;
    [[nodiscard]] ResyncParts resync_parts();
    void tracker_events();
    void resized(std::uint16_t slot);

    // SessionHost
    Result<proto::Hello> make_hello() override;
    Result<void> on_welcome(const proto::Welcome& welcome) override;
    Result<void> on_frame(proto::FrameType type, std::span<const std::byte> body) override;
    void on_heartbeat(const proto::Heartbeat& heartbeat) override;
    proto::Heartbeat make_heartbeat() override;
    void on_lost(const Error& why) override;

    // ShipperObserver
    bool wants_batch() override;
    void batch_opens() override;
    void marker(const capture::CapturedOp& op) override;
    void batch_closes(std::uint64_t mark, bool consistent) override;
    void batch_wrote(const fold::Folded& folded) override;
    void batch_durable(const OutBatch& batch) override;
    void tracking_broken(const Error& why) override;
    bool fence(capture::Merger& merger) override;

    // agent.cpp
    [[nodiscard]] Result<std::unique_ptr<capture::Tracker>> open_tracker();
    [[nodiscard]] static Result<std::unique_ptr<capture::Tracker>> second_tracker(const AgentOptions& options);
    void take_resync_options();
    void work();
    void work_soon();
    void tick();
    void update_state();
    void first_point();
    [[nodiscard]] Result<void> lose_tracking(const std::string& why);
    [[nodiscard]] StateFacts facts() const;
    [[nodiscard]] std::string stall_cause() const;

    // agent_status.cpp
    [[nodiscard]] control::Json status() const;
    [[nodiscard]] control::Json disk_status(const Member& m) const;
    [[nodiscard]] control::Json missing_status(const Missing& m) const;
    [[nodiscard]] control::Json capture_status() const;
    [[nodiscard]] SourceState phase_of(const Member& m) const;
    [[nodiscard]] std::uint64_t backlog_bytes(const Member& m) const;
    [[nodiscard]] std::uint64_t backlog_bytes() const;
    [[nodiscard]] std::optional<std::uint64_t> lag_ms() const;
    [[nodiscard]] std::uint64_t oldest_stamp_ns() const;
    void feed_ages(std::uint64_t now_ns);
    void feed_progress();

    // agent_commands.cpp
    void add_commands();
    void command_disks(control::Reply reply);
    [[nodiscard]] Result<ProtectedDisk> register_disk(const BlockDevice& device, bool held);
    [[nodiscard]] bool is_held(const BlockDevice& device) const;
    void command_protect(const control::Json& request, control::Reply reply);
    void command_unprotect(const control::Json& request, control::Reply reply);
    void command_mark(const control::Json& request, control::Reply reply);
    void command_throttle(const control::Json& request, control::Reply reply);
    void command_pause(bool paused, control::Reply reply);
    [[nodiscard]] Result<std::vector<std::uint16_t>> slots_of(const std::vector<std::string>& devices) const;

    // agent_quiet_mark.cpp
    void quiet_mark(Points::Request request, std::vector<std::uint64_t> freeze, Points::Done done);
    void quiet_mark_step();
    void quiet_mark_frozen(Result<void> r);
    void quiet_mark_end(Result<void> r);
    [[nodiscard]] bool all_quiet() const;

    // agent_renewal.cpp
    void renewal_tick(std::uint64_t now);
    void certificate_reply(proto::CertReply reply);
    void renewal_failed(const Error& why);
    [[nodiscard]] Renewal::Files certificate_files() const;
    [[nodiscard]] control::Json certificate_status() const;

    // agent_retire.cpp
    void command_retire(const control::Json& request, control::Reply reply);
    void retire_answered(const std::string& why_not);
    void release_disks();

    // agent_self_check.cpp
    void self_check(std::uint64_t now);

    // agent_verify.cpp
    void command_verify(const control::Json& request, control::Reply reply);
    void open_verify_state();
    void save_verify_state();
    void begin_verify(VerifyState::Running running);
    void verify_ended(Result<Verify::Outcome> outcome);
    void verify_reports();
    void verify_tick(std::uint64_t now);
    [[nodiscard]] bool verifying() const noexcept;
    [[nodiscard]] control::Json verify_status() const;

    loop::Loop& loop_;
    AgentOptions options_;
    config::AgentConfig config_;
    service::Log& log_;
    ResyncOptions resync_options_;
    WorkerPool pool_;
    loop::TokenBucket bucket_;
    ReadPool read_pool_;
    Shipper shipper_;
    HashExchange hashes_;
    std::optional<Registry> registry_;
    std::optional<tls::TlsContext> tls_;
    std::unique_ptr<capture::Tracker> tracker_;
    std::string no_module_;           ///< why writes are only marked though the module was to be used; empty: asked for, or it is used
    std::optional<Points> points_;
    std::optional<FreezeCut> freeze_cut_;
    std::optional<QuietMark> quiet_mark_;
    std::vector<std::unique_ptr<Member>> members_;
    std::vector<Missing> missing_;
    std::unique_ptr<Session> session_;
    std::unique_ptr<Verify> verify_;
    loop::Timer verify_progress_;
    loop::TokenBucket verify_bucket_;
    std::optional<VerifyState> verify_state_;
    std::vector<std::shared_ptr<control::Reply>> verify_followers_;  ///< who waits for the end
    bool verify_owned_ = false;            ///< begun by a client of this process: ends when nobody follows any more
    bool verify_abandoned_ = false;
    std::uint64_t verify_before_ = 0;      ///< differing bytes that an earlier life of the running one found
    std::uint64_t verify_differing_ = 0;   ///< found by this process
    std::uint64_t verify_saved_ns_ = 0;
    struct {
        bool offered = false;                ///< the server of this session renews
        bool writing = false;                ///< the pool has the answer
        std::optional<tls::Request> asked;   ///< holds the new key until its certificate is there
        std::uint64_t not_before_ns = 0;     ///< monotonic: no try before
        std::uint64_t count = 0;
        std::string error;                   ///< of the last try
    } renewal_;
    std::unique_ptr<control::Reply> retiring_;  ///< who asked to retire, until the server has answered
    loop::Timer retire_timer_;
    bool can_retire_ = false;                   ///< the server of this session takes RETIRE
    std::unique_ptr<control::ControlServer> control_;

    Uuid load_id_;
    SourceState state_ = SourceState::initiating;
    std::string cause_;
    bool paused_ = false;
    bool failed_ = false;
    bool tracking_lost_ = false;      ///< the next session marks every disk and skips what the rings hold
    bool reattach_ = false;           ///< the rings are of no use any more
    bool flushed_ = false;            ///< the newest durable mark is consistent
    bool point_asked_ = false;
    std::uint64_t point_retry_ns_ = 0;
    std::uint64_t acked_mark_ = 0;    ///< newest mark that a server acknowledged to this process
    Uuid acked_load_;
    proto::Heartbeat server_;         ///< newest of the session
    bool server_heard_ = false;
    std::string lost_text_;           ///< of the last failure that was logged
    std::uint64_t started_ns_ = 0;
    std::uint64_t progress_ns_ = 0;   ///< monotonic, when something moved last
    std::uint64_t moved_ = 0;
    std::uint64_t attach_retry_ns_ = 0;
    std::uint64_t self_check_ns_ = 0;  ///< monotonic, of the last one
    bool can_self_check_ = true;       ///< the tracker tells what is in flight
    std::vector<capture::LatencySet> frozen_;  ///< how long file systems stood frozen, as last read
    StampAges ages_;
    Rates rates_;
    SyncProgress sync_;
    bool work_posted_ = false;
    bool working_ = false;
    loop::Timer work_timer_;
    loop::Timer ticker_;
    loop::Watch events_;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace blkferry::agent
