// SPDX-License-Identifier: Apache-2.0
#include "agent/agent.hpp"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>
#include <poll.h>

#include "capture/ebpf_tracker.hpp"
#include "capture/netlink_tracker.hpp"
#include "capture/socket_tracker.hpp"

namespace blkferry::agent {

namespace {

constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t tick_ns = 100 * ms;
constexpr std::uint64_t stall_ns = 10'000 * ms;
constexpr std::uint64_t point_retry_ns = 5'000 * ms;
/// Buffers of all resync reads together.
constexpr std::size_t read_budget_bytes = 16U << 20;

unsigned worker_count(std::uint64_t configured) {
    const auto cores = static_cast<std::uint64_t>(std::max(1U, std::thread::hardware_concurrency()));
    return static_cast<unsigned>(std::clamp<std::uint64_t>(configured == 0 ? std::min<std::uint64_t>(cores, 4) : configured, 1, 32));
}

Compression compression_of(const config::AgentConfig& c) {
    Compression out;
    switch (c.compression) {
        case config::Compression::none: out.codec = Codec::none; break;
        case config::Compression::lz4: out.codec = Codec::lz4; break;
        case config::Compression::zstd: out.codec = Codec::zstd; break;
    }
    out.level = static_cast<int>(c.compression_level);
    return out;
}

BatchLimits limits_of(const config::AgentConfig& c) {
    return {c.batch_interval_ms * ms, c.batch_bytes};
}

}  // namespace

Agent::Agent(loop::Loop& loop, AgentOptions options, config::AgentConfig config, service::Log& log)
    : loop_(loop),
      options_(std::move(options)),
      config_(std::move(config)),
      log_(log),
      pool_(loop, worker_count(config_.workers)),
      bucket_(config_.bandwidth, loop::Loop::now_ns()),
      read_pool_(read_budget_bytes),
      shipper_(pool_, limits_of(config_)),
      hashes_(shipper_, pool_),
      verify_bucket_(config_.verify_bandwidth, loop::Loop::now_ns()),
      started_ns_(loop::Loop::now_ns()) {
    shipper_.set_observer(this);
    shipper_.set_compression(compression_of(config_));
    shipper_.set_room([this] { work_soon(); });
    take_resync_options();
}

void Agent::take_resync_options() {
    resync_options_.queue_depth = std::max<std::size_t>(config_.resync_queue_depth, 1);
    resync_options_.read_bytes = std::max<std::size_t>(config_.resync_block_bytes, 4096);
    resync_options_.cycle_ns = tracker_ && tracker_->only_marks() ? std::max<std::uint64_t>(config_.cycle_interval_ms, 1) * ms : 0;
}

Agent::~Agent() {
    if (verifying())
        save_verify_state();
    control_.reset();
    session_.reset();
    shipper_.set_observer(nullptr);
}

/// A connection of its own to the same tracker, for a thread of its own; where writes are only marked there is none.
Result<std::unique_ptr<capture::Tracker>> Agent::second_tracker(const AgentOptions& options) {
    if (options.tracker_socket.empty())
        return capture::NetlinkTracker::open(options.opener.string());
    return capture::SocketTracker::connect(options.tracker_socket);
}

Result<std::unique_ptr<capture::Tracker>> Agent::open_tracker() {
    if (!options_.tracker_socket.empty())
        return capture::SocketTracker::connect(options_.tracker_socket);
    const config::Capture how = options_.capture.value_or(config_.capture);
    if (how != config::Capture::ebpf) {
        auto module = capture::NetlinkTracker::open(options_.opener.string());
        // Only its absence leads to the fallback: a module that does not answer, or of another release, is to be put right.
        if (module || how == config::Capture::module || module.error().sys_errno != ENOENT)
            return module;
        no_module_ = module.error().text;
    }
    auto ebpf = capture::EbpfTracker::open();
    if (!ebpf && !no_module_.empty())
        return std::unexpected(Error(ebpf.error()).with(no_module_));
    if (ebpf)
        log_.warn("source={} event=capture kind=ebpf cycle_interval_ms={} reason={} limits={}", config_.source, config_.cycle_interval_ms,
                  service::quote(no_module_.empty() ? "capture = \"ebpf\"" : no_module_),
                  service::quote("no recovery to any mark: recovery points only where nothing was written during a round; after each start "
                                 "of the agent all blocks are compared"));
    return ebpf;
}

Result<void> Agent::start() {
    BLKFERRY_TRY_ASSIGN(tracker_, open_tracker());
    take_resync_options();
    BLKFERRY_TRY_ASSIGN(const auto info, tracker_->info());
    load_id_ = info.load_id;
    BLKFERRY_TRY_ASSIGN(auto registry, Registry::open(config_.state_dir));
    registry_.emplace(std::move(registry));
    open_verify_state();
    BLKFERRY_TRY_ASSIGN(auto tls, tls::TlsContext::make_client({config_.cert, config_.key, config_.ca, {}}, config_.server_name));
    tls_.emplace(std::move(tls));
    points_.emplace(*tracker_, shipper_);
    freeze_cut_.emplace(loop_, [options = options_] { return second_tracker(options); });
    BLKFERRY_TRY(tracker_->subscribe());
    if (tracker_->events_fd() >= 0)
        events_ = loop_.watch(tracker_->events_fd(), POLLIN, [this](std::uint32_t) { tracker_events(); });
    session_ = std::make_unique<Session>(loop_, pool_, shipper_, bucket_, *this);
    session_->configure(config_.server, &*tls_);
    session_->configure_proxy(config_.proxy, config_.proxy_password_file);
    if (!config_.control_socket.empty()) {
        BLKFERRY_TRY_ASSIGN(control_, control::ControlServer::create(loop_, config_.control_socket));
        add_commands();
    }
    work_timer_ = loop_.after(0, [this] { work(); });
    work_timer_.stop();
    ticker_ = loop_.every(tick_ns, [this] { tick(); });
    log_.info("source={} event=start version={} source_id={} disks={} module={} load_id={}", config_.source,
              BLKFERRY_VERSION, registry_->source_id().str(), registry_->disks().size(), info.version,
              load_id_.str());
    attach_all();
    update_state();
    return {};
}

Result<config::Changes> Agent::reload() {
    BLKFERRY_TRY_ASSIGN(const auto fresh, config::load_agent(options_.config_file));
    BLKFERRY_TRY(tls_->reload());
    const auto changes = config::compare(config_, fresh);
    config::take_over(config_, fresh);
    bucket_.set_rate(config_.bandwidth, loop::Loop::now_ns());
    verify_bucket_.set_rate(config_.verify_bandwidth, loop::Loop::now_ns());
    shipper_.set_compression(compression_of(config_));
    shipper_.set_limits(limits_of(config_));
    take_resync_options();
    log_.set_level(service::level_of(config_.log_level));
    log_.info("source={} event=reload changed={} bandwidth={}", config_.source, changes.changed.size(),
              config::format_rate(config_.bandwidth));
    work_soon();
    return changes;
}

// ---- Work -----------------------------------------------------------------------------------------------------------

void Agent::work_soon() {
    if (std::exchange(work_posted_, true))
        return;
    loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {
        if (alive.expired())
            return;
        work_posted_ = false;
        work();
    });
}

void Agent::work() {
    if (std::exchange(working_, true))
        return;
    tracker_->observe();
    std::uint64_t delay = shipper_.pump();
    bool busy = false;
    for (const auto& m : members_) {
        m->resync->step();
        busy = busy || !m->resync->settled();
    }
    if (busy) {
        const std::uint64_t batches = shipper_.counters().batches;
        delay = shipper_.pump();
        if (shipper_.counters().batches != batches)
            work_soon();  // a batch closed: there is room for what the resyncs have read
    }
    quiet_mark_step();
    busy = busy || quiet_mark_.has_value();
    working_ = false;
    if (busy)
        delay = std::min<std::uint64_t>(delay == 0 ? 20 * ms : delay, 20 * ms);
    if (delay == 0)
        work_timer_.stop();
    else
        work_timer_.restart(delay);
    if (tracking_lost_ && session_->established()) {
        reattach_ = std::exchange(reattach_, false) && !reattach_all();
        session_->restart("tracking was lost; every disk is compared with the replica");
    }
}

void Agent::tick() {
    const std::uint64_t now = loop::Loop::now_ns();
    const ShipperCounters& c = shipper_.counters();
    std::uint64_t captured = 0;
    for (const auto& m : members_) {
        // Where writes are only marked none has a descriptor.
        captured += m->disk.ring->counter(tracker_->only_marks() ? BLKFERRY_C_DIRTY_SECTORS : BLKFERRY_C_SECTORS) * sector_bytes;
        const auto st = m->disk.ring->status();
        const bool gap = st.state != capture::DiskState::ring || st.gap_seq != 0;
        m->gap_since_ns = gap ? (m->gap_since_ns == 0 ? now : m->gap_since_ns) : 0;
    }
    rates_.feed(now, {captured, c.payload_durable, session_->wire_bytes(), c.resync_bytes, c.payload_durable},
                shipper_.unsent_bytes() > 0);
    shipper_.set_drain_rate(config_.bandwidth == 0 ? rates_.drain() : std::min(rates_.drain(), bucket_.rate()));
    // Bytes of batches, not of the wire: heartbeats fit into buffers of which nobody takes anything any more.
    const std::uint64_t moved = c.batch_bytes + shipper_.durable_mark() + c.batches;
    if (moved != moved_ || shipper_.drained())
        progress_ns_ = now;
    moved_ = moved;
    feed_ages(now);
    points_->expire(now);
    self_check(now);
    verify_tick(now);
    renewal_tick(now);
    if (!missing_.empty() && now >= attach_retry_ns_)
        attach_all();
    update_state();
    work();
}

// ---- State ----------------------------------------------------------------------------------------------------------

namespace {

/// Why `server` takes nothing, by the cause of its last heartbeat (docs/protocol.md).
std::string held_cause(const std::string& server, const std::string& said) {
    return fmt::format("{}{}: {} takes no data meanwhile", said, said == proto::held_by_disk ? ", too little free space" : "", server);
}

}  // namespace

std::string Agent::stall_cause() const {
    for (const Missing& m : missing_)
        return fmt::format("disk {}: {}", m.record.identity.name, m.why);
    for (const auto& m : members_) {
        if (m->disk.ring->bad())
            return fmt::format("disk {}: {}", m->disk.name, m->disk.ring->error().text);
        if (!m->resync->cause().empty())
            return fmt::format("disk {}: {}", m->disk.name, m->resync->cause());
    }
    const std::uint64_t now = loop::Loop::now_ns();
    if (!session_->established() || now - progress_ns_ < stall_ns)
        return {};
    if (!server_.cause.empty())
        return held_cause(config::to_string(config_.server), server_.cause);
    const Link* link = session_->link();
    if (link != nullptr && link->throttled())
        return fmt::format("bandwidth limit of {}", config::format_rate(bucket_.rate()));
    if (link != nullptr && link->blocked())
        return fmt::format("network: the connection to {} takes no data", config::to_string(config_.server));
    if (shipper_.window_full() || shipper_.waits_for_server())
        return "server: batches are not acknowledged";
    return fmt::format("nothing was shipped for {} s", (now - progress_ns_) / (1000 * ms));
}

StateFacts Agent::facts() const {
    StateFacts f;
    f.disks = static_cast<std::size_t>(std::ranges::count(registry_->disks(), false, &ProtectedDisk::held));
    f.paused = paused_;
    f.connected_once = session_->tried();
    f.session = session_->established();
    f.stalled = f.session && !stall_cause().empty();
    f.flushed = flushed_;
    for (const auto& m : members_) {
        const auto p = m->resync->progress();
        f.initial = f.initial || (p.whole && p.kind == SyncKind::initial);
        f.rescan = f.rescan || (p.whole && p.kind == SyncKind::rescan);
        f.gap = f.gap || p.active;
    }
    f.first_point = registry_->first_point();
    return f;
}

void Agent::update_state() {
    feed_progress();
    const StateFacts f = facts();
    SourceState next = derive_state(f);
    // A sync ends by flushing, also when nothing is left to flush: the phases come in their order for whoever looks on.
    if (next == SourceState::creating_snapshot && (state_ == SourceState::initial_sync || state_ == SourceState::rescan))
        next = SourceState::flushing_backlog;
    std::string cause;
    if (next == SourceState::disconnected)
        cause = session_->cause();
    else if (next == SourceState::stalled)
        cause = stall_cause();
    // Rounds come and go.
    const bool routine = resync_options_.cycle_ns != 0 && (state_ == SourceState::continuous || state_ == SourceState::backlog) &&
                         (next == SourceState::continuous || next == SourceState::backlog);
    if ((next != state_ && !routine) || (next == SourceState::stalled && cause != cause_))
        log_.info("source={} event=state state={} before={}{}", config_.source, to_string(next), to_string(state_),
                  cause.empty() ? "" : " cause=" + service::quote(cause));
    state_ = next;
    cause_ = std::move(cause);
    if (state_ == SourceState::creating_snapshot)
        first_point();
}

void Agent::first_point() {
    const std::uint64_t now = loop::Loop::now_ns();
    if (point_asked_ || now < point_retry_ns_)
        return;
    point_asked_ = true;
    points_->ask({}, [this](Result<PointOutcome> r) {
        point_asked_ = false;
        point_retry_ns_ = loop::Loop::now_ns() + point_retry_ns;
        if (!r) {
            log_.warn("source={} event=first_point error={}", config_.source, service::quote(r.error().text));
            return;
        }
        log_.info("source={} event=first_point point={} mark={}", config_.source, r->name, r->mark);
        if (auto saved = registry_->set_first_point(true); !saved)
            log_.error("source={} event=registry error={}", config_.source, service::quote(saved.error().text));
        update_state();
    });
    work_soon();
}

Result<void> Agent::lose_tracking(const std::string& why) {
    log_.error("source={} event=tracking_lost reason={}", config_.source, service::quote(why));
    // The maps first: they are what counts if this process ends here.
    for (const auto& m : members_)
        BLKFERRY_TRY(m->resync->demand_rescan(why));
    tracking_lost_ = true;
    return {};
}

// ---- SessionHost ----------------------------------------------------------------------------------------------------

Result<proto::Hello> Agent::make_hello() {
    proto::Hello h;
    h.agent_version = BLKFERRY_VERSION;
    h.source = config_.source;
    h.source_id = registry_->source_id();
    h.load_id = load_id_;
    for (const auto& m : members_) {
        const auto& g = m->disk.geometry();
        h.disks.push_back({m->disk.slot(), m->disk.record.disk_id, m->disk.name, m->disk.record.identity.str(), g.nr_sectors,
                           g.logical_block, g.attach_id});
    }
    if (h.disks.empty())
        return fail(Errc::not_found, "no protected disk is attached");
    return h;
}

Result<void> Agent::on_welcome(const proto::Welcome& w) {
    BLKFERRY_TRY_ASSIGN(auto info, tracker_->info());
    if (info.load_id != load_id_)
        return fail(Errc::conflict, "the module was loaded anew; restart the agent");
    const bool same_load = w.load_id == load_id_;
    const bool went_back = tracking_lost_ || (same_load && (w.durable_mark > info.seq ||
                                                            (acked_load_ == load_id_ && w.durable_mark < acked_mark_)));
    if (w.durable_mark > info.seq)
        if (auto r = tracker_->seq_floor(w.durable_mark); !r) {
            if (r.error().code != Errc::busy)
                return r;
            BLKFERRY_TRY(reattach_all());
            BLKFERRY_TRY(tracker_->seq_floor(w.durable_mark));
            return fail(Errc::again, "the disks were attached anew, because the server is ahead of the module's numbers");
        }
    std::vector<std::pair<Resync*, std::pair<DiskPlan, bool>>> plans;
    bool skip = went_back || !same_load;
    for (const auto& m : members_) {
        const auto it = std::ranges::find(w.disks, m->disk.slot(), &proto::DiskState::slot);
        if (it == w.disks.end())
            return fail(Errc::invalid, fmt::format("WELCOME does not tell about disk {}", m->disk.name));
        const DiskPlan plan = plan_disk({it->known, same_load, it->attach_id, m->disk.geometry().attach_id,
                                         it->synced || it->epoch_seq != 0, went_back});
        plans.push_back({m->resync.get(), {plan, it->known}});
        log_.info("disk={} event=plan plan={} known={} synced={} epoch_seq={}", m->disk.name,
                  plan == DiskPlan::carry_on ? "carry-on" : plan == DiskPlan::whole_initial ? "initial" : "rescan",
                  it->known, it->synced, it->epoch_seq);
    }
    std::uint64_t from = w.durable_mark;
    if (skip) {
        // Numbers of another session, or rings that cannot be trusted: the maps hold everything up to here.
        for (const auto& [resync, plan] : plans)
            if (plan.first != DiskPlan::carry_on)
                BLKFERRY_TRY(resync->mark_whole());
        BLKFERRY_TRY_ASSIGN(info, tracker_->info());
        from = std::max(from, info.seq);
    }
    for (const auto& [resync, plan] : plans)
        BLKFERRY_TRY(resync->session_started(plan.first, plan.second, from));
    tracking_lost_ = false;
    server_heard_ = false;
    server_ = {};
    renewal_.offered = std::ranges::find(w.features, proto::feature_renew) != w.features.end();
    can_retire_ = std::ranges::find(w.features, proto::feature_retire) != w.features.end();
    renewal_.asked.reset();
    renewal_.not_before_ns = 0;
    flushed_ = false;
    rates_.forget_drain();
    progress_ns_ = loop::Loop::now_ns();
    shipper_.start({w.durable_batch, w.durable_mark, from, w.window_bytes});
    acked_mark_ = w.durable_mark;
    acked_load_ = load_id_;
    lost_text_.clear();
    log_.info("source={} event=session server={} session={} durable_batch={} durable_mark={} from={}", config_.source,
              service::quote(session_->server_name()), w.session, w.durable_batch, w.durable_mark, from);
    work_soon();
    return {};
}

Result<void> Agent::on_frame(proto::FrameType type, std::span<const std::byte> body) {
    if (type == proto::FrameType::ack) {
        BLKFERRY_TRY_ASSIGN(const auto ack, proto::decode_ack(body));
        BLKFERRY_TRY(shipper_.on_ack(ack));
        acked_mark_ = shipper_.durable_mark();
    } else if (type == proto::FrameType::epoch_result) {
        BLKFERRY_TRY_ASSIGN(const auto r, proto::decode_epoch_result(body));
        if (Member* m = member(r.slot); m != nullptr)
            m->resync->epoch_result(r);
    } else if (type == proto::FrameType::point_result) {
        BLKFERRY_TRY_ASSIGN(const auto r, proto::decode_point_result(body));
        points_->result(r);
    } else if (type == proto::FrameType::cert_reply) {
        BLKFERRY_TRY_ASSIGN(auto r, proto::decode_cert_reply(body));
        certificate_reply(std::move(r));
    } else if (type == proto::FrameType::retire) {
        loop_.post([this, alive = std::weak_ptr<bool>(alive_)] {  // it ends the session that is on the stack
            if (!alive.expired())
                retire_answered({});
        });
    } else if (type == proto::FrameType::hash_reply) {
        BLKFERRY_TRY_ASSIGN(auto r, proto::decode_hash_reply(body));
        BLKFERRY_TRY(hashes_.on_reply(std::move(r)));
    }
    work_soon();
    return {};
}

void Agent::on_heartbeat(const proto::Heartbeat& heartbeat) {
    server_ = heartbeat;
    server_heard_ = true;
    if (auto r = registry_->set_first_point(heartbeat.points > 0); !r)
        log_.error("source={} event=registry error={}", config_.source, service::quote(r.error().text));
}

proto::Heartbeat Agent::make_heartbeat() {
    proto::Heartbeat h;
    h.state = to_string(state_);
    h.cause = cause_.substr(0, proto::text_bytes_max);
    h.backlog_bytes = backlog_bytes();
    h.lag_ms = lag_ms().value_or(0);
    if (const auto p = sync_.sum(); p && p->total_bytes > 0)
        h.progress_permille = std::min<std::uint64_t>(1000, p->done_bytes * 1000 / p->total_bytes);
    return h;
}

void Agent::on_lost(const Error& why) {
    shipper_.stop();
    hashes_.reset();
    for (const auto& m : members_)
        m->resync->session_ended();
    if (verify_)
        verify_->session_ended();
    flushed_ = false;
    if (why.text != lost_text_)
        log_.warn("source={} event=disconnected server={} code={} error={}", config_.source,
                  service::quote(config::to_string(config_.server)),
                  to_string(why.code), service::quote(why.text));
    lost_text_ = why.text;
    if (retiring_)
        loop_.post([this, text = why.text, alive = std::weak_ptr<bool>(alive_)] {
            if (!alive.expired())
                retire_answered(text);
        });
    update_state();
}

// ---- ShipperObserver ------------------------------------------------------------------------------------------------

bool Agent::wants_batch() {
    return std::ranges::any_of(members_, [](const auto& m) { return m->resync->wants_batch(); });
}

void Agent::batch_opens() {
    for (const auto& m : members_)
        m->resync->batch_opens();
}

void Agent::marker(const capture::CapturedOp& op) {
    if (op.op == capture::OpKind::epoch_switch)
        if (Member* m = member(op.slot); m != nullptr)
            m->resync->switch_seen(op.seq);
}

void Agent::batch_closes(std::uint64_t mark, bool consistent) {
    points_->closes(mark, consistent);
}

void Agent::batch_wrote(const fold::Folded& folded) {
    if (verify_)
        verify_->batch_wrote(folded);
}

void Agent::batch_durable(const OutBatch& batch) {
    flushed_ = batch.consistent();
    for (const auto& m : members_)
        m->resync->batch_durable(batch);
}

void Agent::tracking_broken(const Error& why) {
    if (tracking_lost_)
        return;
    for (const auto& m : members_)
        reattach_ = reattach_ || m->disk.ring->bad();
    if (auto r = lose_tracking(why.text); !r)
        log_.error("source={} event=mark_dirty error={}", config_.source, service::quote(r.error().text));
    tracking_lost_ = true;
}

bool Agent::fence(capture::Merger& merger) {
    const auto info = tracker_->info();
    if (!info || !tracker_->list())
        return false;
    merger.fence(info->void_seq);
    return true;
}

}  // namespace blkferry::agent
