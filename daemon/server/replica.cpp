// SPDX-License-Identifier: Apache-2.0
#include "server/replica.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "proto/enrolment.hpp"

#include "server/alarms.hpp"

namespace blkferry::server {

namespace {
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t reopen_ns_min = second_ns / 2;
constexpr std::uint64_t reopen_ns_max = 30 * second_ns;
constexpr std::size_t asks_max = 64;
constexpr std::uint64_t greeting_ns = second_ns / 2;
/// Whatever an agent says of its lag.
constexpr std::uint64_t lag_ms_max = 1ULL << 53;
/// Below this only heartbeats come.
constexpr std::uint64_t idle_bytes_per_s = 64U << 10;
/// A connection that always has more is acknowledged each time that this much waits.
constexpr std::uint64_t commit_bytes = 2U << 20;
/// Of the journal, on their way to the disk; above it the connection waits.
constexpr std::uint64_t writes_bytes_max = 4U << 20;

/// Whether an error of SourceStore::take() is the store's own and not the peer's fault.
bool is_store_error(const Error& e) noexcept {
    return e.code == Errc::io || (e.code == Errc::no_space && e.sys_errno != 0);
}
}  // namespace

std::string_view to_string(Replica::State state) noexcept {
    switch (state) {
        case Replica::State::opening: return "opening";
        case Replica::State::ready: return "ready";
        case Replica::State::failed: return "failed";
    }
    return "unknown";
}

Replica::Replica(Surroundings& around, std::string name) : around_(around), name_(std::move(name)) {}

// ---- the store opens and fails --------------------------------------------------------------------------------------

void Replica::open() {
    state_ = State::opening;
    around_.workers.submit([&loop = around_.loop, store = around_.store, name = name_, weak = weak_from_this()] {
        using Opened = Result<std::shared_ptr<store::SourceStore>>;
        auto made = store->open_source(name);
        Opened result = made ? Opened(std::shared_ptr<store::SourceStore>(
                                   made->release(), [store](store::SourceStore* p) { delete p; }))
                             : Opened(std::unexpected(std::move(made).error()));
        loop.post([weak, result = std::move(result)]() mutable {
            if (const auto self = weak.lock())
                self->opened(std::move(result));
        });
    });
}

void Replica::opened(Result<std::shared_ptr<store::SourceStore>> result) {
    if (shutting_) {
        state_ = State::failed;
        maybe_shut();
        return;
    }
    if (!result) {
        if (error_.text != result.error().text)
            around_.log.error("source={} event=open-failed code={} error={}", name_, to_string(result.error().code),
                              quote(result.error()));
        fail_store(result.error());
        return;
    }
    store_ = std::move(*result);
    state_ = State::ready;
    error_ = {};
    const auto durable = store_->durable();
    complete_batch_ = acked_batch_ = durable.batch;
    complete_mark_ = durable.mark;
    consistent_ = durable.consistent;
    redo_end_ = durable.position;
    const auto points = store_->points().list();
    const std::uint64_t wall = around_.clock.realtime_ns();
    const std::uint64_t age = points.empty() || points.back().made_ns > wall ? 0 : wall - points.back().made_ns;
    const std::uint64_t interval = around_.options.point_interval_ns;
    point_due_ns_ = around_.clock.monotonic_ns() + (points.empty() || age >= interval ? 0 : interval - age);
    for (const Alarm& a : alarms_of(*store_))
        around_.log.error("source={} event=alarm reason={}{} mark={} error={} action={}", name_, a.reason,
                          a.point.empty() ? "" : " point=" + quote(a.point), durable.mark, quote(a.error), quote(a.action));
    around_.log.info("source={} event=opened mark={} batch={} backlog_bytes={} points={} consistent={} journal_io={}", name_,
                     durable.mark, durable.batch, durable.position - store_->applied(), points.size(), durable.consistent,
                     store_->journal_direct() ? "direct" : "buffered");
    if (session_ != nullptr) {
        Session& session = *std::exchange(session_, nullptr);
        if (const auto r = welcome(session, hello_); !r)
            session.refuse(r.error());
    }
    work();
}

void Replica::fail_store(const Error& why) {
    state_ = State::failed;
    error_ = why;
    if (store_)
        last_store_ = store_;
    store_.reset();
    in_batch_ = commit_wanted_ = writes_behind_ = false;
    commit_.reset();
    asks_.clear();
    tasks_.clear();
    point_pending_ = false;
    if (session_ != nullptr) {
        Session& session = *std::exchange(session_, nullptr);
        session.refuse({why.code, 0, fmt::format("the store of source {} failed on the server: {}", name_, why.text)});
    }
    welcomed_ = false;
    if (shutting_) {
        maybe_shut();
        return;
    }
    reopen_delay_ns_ = std::clamp(reopen_delay_ns_ * 2, reopen_ns_min, reopen_ns_max);
    reopen_ = around_.loop.after(reopen_delay_ns_, [this] {
        if (quiet() && last_store_.expired())
            open();
        else
            reopen_.restart(reopen_ns_min);  // somebody still uses the failed one
    });
}

// ---- the connection -------------------------------------------------------------------------------------------------

/// The newest connection is the source; whatever an older one still sends is not read any more.
void Replica::fence(const Session& by) {
    if (session_ == nullptr || session_ == &by)
        return;
    Session& old = *std::exchange(session_, nullptr);
    around_.log.warn("source={} event=fenced address={} by={}", name_, old.peer(), by.peer());
    old.refuse({Errc::closed, 0, fmt::format("a newer connection of source {} came from {}", name_, by.peer())});
}

Result<void> Replica::refuse_without_store() const {
    return fail(error_.code, fmt::format("the store of source {} failed on the server: {}", name_, error_.text));
}

/// Each HELLO is a durable entry in the journal, written while all other sources wait: no source gets more than its share.
Result<void> Replica::greet() {
    const std::uint64_t now = around_.clock.monotonic_ns();
    const std::uint64_t passed = (now - greeted_ns_) / greeting_ns;
    if (passed > 0) {
        greetings_ -= std::min(greetings_, passed);
        greeted_ns_ = now;
    }
    if (greetings_ >= around_.options.greetings_max)
        return fail(Errc::busy, fmt::format("source {} connects too often: one connection in {} ms is allowed, and {} at once", name_,
                                            greeting_ns / 1'000'000, around_.options.greetings_max));
    ++greetings_;
    return {};
}

Result<void> Replica::attach(Session& session, const proto::Hello& hello) {
    if (shutting_)
        return fail(Errc::closed, "the server shuts down");
    BLKFERRY_TRY(greet());
    if (state_ == State::failed)
        return refuse_without_store();
    if (state_ == State::ready)
        return welcome(session, hello);
    fence(session);
    session_ = &session;
    hello_ = hello;
    session.ready();
    session.hold(true);
    return {};
}

Result<void> Replica::welcome(Session& session, const proto::Hello& hello) {
    auto answer = store_->connect(hello);
    if (!answer) {
        const Error why = answer.error();
        if (why.code == Errc::denied)
            around_.log.error("source={} event=alarm reason=identity address={} source_id={} error={}", name_,
                              session.peer(), hello.source_id.str(), quote(why));
        if (is_store_error(why))
            journal_failed(why);
        return std::unexpected(why);
    }
    fence(session);
    session_ = &session;
    hello_ = hello;
    asks_.clear();
    in_batch_ = false;
    agent_ = {};
    answer->protocol = proto::protocol_version;
    answer->server_version = BLKFERRY_VERSION;
    answer->features.emplace_back(proto::feature_retire);
    if (!around_.options.pki.empty())
        answer->features.emplace_back(proto::feature_renew);
    answer->window_bytes = window();
    session_number_ = answer->session;
    complete_batch_ = acked_batch_ = answer->durable_batch;
    complete_mark_ = answer->durable_mark;
    consistent_ = store_->durable().consistent;
    welcomed_ = true;
    session.ready();
    session.hold(false);
    drained_ = true;
    session.send_message(proto::FrameType::welcome, *answer);
    for (const auto& [slot, result] : epoch_results_)
        session.send_message(proto::FrameType::epoch_result, result);
    for (const proto::PointResult& result : point_results_)
        session.send_message(proto::FrameType::point_result, result);
    around_.log.info("source={} event=connected address={} session={} mark={} batch={} disks={} agent_version={}", name_,
                     session.peer(), session_number_, answer->durable_mark, answer->durable_batch, hello.disks.size(),
                     quote(hello.agent_version));
    update_hold();
    work();
    return {};
}

void Replica::detach(const Session& session) {
    if (session_ != &session)
        return;
    session_ = nullptr;
    welcomed_ = false;
    in_batch_ = false;
    asks_.clear();
    if (!store_)
        return;
    if (const auto r = store_->disconnect(); !r)
        journal_failed(r.error());
}

Result<void> Replica::receive(const proto::FrameReader::View& view) {
    using proto::FrameType;
    if (!store_)
        return fail(Errc::busy, "the store is not open");
    bytes_in_ += view.whole.size();
    if (is_batch_frame(view.header.type))
        return receive_batch_frame(view);
    if (view.header.type != FrameType::hash_ask && view.header.type != FrameType::heartbeat &&
        view.header.type != FrameType::error)
        return fail(Errc::invalid, fmt::format("frame refused: {} is not for the server now", to_string(view.header.type)));
    BLKFERRY_TRY_ASSIGN(const auto body, decode_body(view.header, view.wire, around_.decompressor, around_.scratch));
    if (view.header.type == FrameType::hash_ask)
        return receive_ask(body);
    if (view.header.type == FrameType::heartbeat) {
        BLKFERRY_TRY_ASSIGN(agent_, proto::decode_heartbeat(body));
        told_lag_ = {std::min(agent_.lag_ms, lag_ms_max), around_.clock.monotonic_ns()};
        return {};
    }
    BLKFERRY_TRY_ASSIGN(const auto error, proto::decode_peer_error(body));
    return fail(Errc::closed, fmt::format("the agent closed: {}: {}", error.code, error.text));
}

Result<void> Replica::receive_batch_frame(const proto::FrameReader::View& view) {
    const auto step = store_->take(view);
    if (!step) {
        const Error why = step.error();
        if (is_store_error(why)) {
            // The session is refused by it; this connection needs no second reason.
            journal_failed(why);
            return {};
        }
        return std::unexpected(why);
    }
    if (step->batch_begin) {
        in_batch_ = true;
        BLKFERRY_TRY_ASSIGN(const auto body, decode_body(view.header, view.wire, around_.decompressor, around_.scratch));
        BLKFERRY_TRY_ASSIGN(const auto begin, proto::decode_batch_begin(body));
        begun_mark_ = begin.mark;
    }
    if (step->batch_end) {
        in_batch_ = false;
        complete_mark_ = begun_mark_;
        consistent_ = step->consistent;
        complete_batch_ = view.header.batch;
        commit_wanted_ = true;
        maybe_point();
    }
    return {};
}

Result<void> Replica::receive_ask(std::span<const std::byte> body) {
    if (asks_.size() >= asks_max)
        return fail(Errc::conflict, fmt::format("HASH_ASK refused: {} questions are open", asks_max));
    BLKFERRY_TRY_ASSIGN(auto ask, proto::decode_hash_ask(body));
    asks_.push_back({std::move(ask), complete_batch_});
    return {};
}

void Replica::drained() {
    drained_ = session_ == nullptr || !session_->more_waits();
    commit();
    if (!asks_.empty())
        work();
}

// ---- commit -----------------------------------------------------------------------------------------------------------

void Replica::journal_failed(const Error& why) {
    around_.log.error("source={} event=journal-failed error={}", name_, quote(why));
    fail_store(why);
}

/// Writes what fills blocks, and begins a commit if one is wanted: at once when the connection has nothing more, else when
/// a good deal waits, so that a busy source does not sync for each batch.
void Replica::commit() {
    if (!store_)
        return;
    write_out();
    if (!commit_wanted_ || commit_ || (!drained_ && store_->uncommitted_bytes() < commit_bytes))
        return;
    commit_wanted_ = false;
    auto ticket = store_->begin_commit();
    if (!ticket) {
        journal_failed(ticket.error());
        return;
    }
    if (!*ticket)
        return;
    commit_ = std::move(**ticket);
    write_out();
    sync();
}

void Replica::write_out() {
    for (store::WriteTicket& ticket : store_->take_writes()) {
        ++writes_;
        submit_write(store_, std::move(ticket));
    }
    hold_by_writes();
}

void Replica::submit_write(std::shared_ptr<store::SourceStore> store, store::WriteTicket ticket) {
    const int fd = ticket.file->fd();
    const auto data = ticket.data;
    const std::uint64_t offset = ticket.offset;
    // The callback owns file and memory until the kernel is done with them.
    around_.loop
        .write(fd, data, offset,
               [weak = weak_from_this(), store = std::move(store), ticket = std::move(ticket)](std::int32_t result) mutable {
                   if (const auto self = weak.lock())
                       self->wrote(store, std::move(ticket), result);
               })
        .detach();
}

void Replica::wrote(const std::shared_ptr<store::SourceStore>& store, store::WriteTicket ticket, int sys_result) {
    const auto done = static_cast<std::size_t>(std::max(sys_result, 0)) / store::block_bytes * store::block_bytes;
    if (store == store_ && (sys_result == -EINTR || sys_result == -EAGAIN || (done > 0 && done < ticket.data.size()))) {
        ticket.data = ticket.data.subspan(done);
        ticket.offset += done;
        submit_write(store, std::move(ticket));
        return;
    }
    --writes_;
    if (store != store_) {
        maybe_shut();
        return;  // it failed meanwhile
    }
    if (done != ticket.data.size() && sys_result >= 0)
        sys_result = -ENOSPC;  // less than a block: no room for more
    if (const auto r = store_->end_write(ticket.number, sys_result < 0 ? sys_result : 0); !r) {
        journal_failed(r.error());
        return;
    }
    hold_by_writes();
    sync();
    maybe_shut();
}

void Replica::sync() {
    if (!commit_ || syncs_ > 0 || !store_->is_written(*commit_))
        return;
    sync_result_ = 0;
    const auto files = commit_->files;
    syncs_ = static_cast<unsigned>(files.size());
    for (const auto& file : files)
        around_.loop
            .fdatasync(file->fd(),
                       [weak = weak_from_this(), store = store_, file](std::int32_t result) {
                           if (const auto self = weak.lock())
                               self->synced(store, result);
                       })
            .detach();
}

void Replica::synced(const std::shared_ptr<store::SourceStore>& store, int sys_result) {
    sync_result_ = std::min(sync_result_, sys_result);
    if (--syncs_ > 0)
        return;
    if (store != store_) {
        maybe_shut();
        return;  // it failed meanwhile
    }
    const store::SyncTicket ticket = std::move(*commit_);
    commit_.reset();
    const auto durable = store->end_commit(ticket, sync_result_);
    if (!durable) {
        journal_failed(durable.error());
        return;
    }
    reopen_delay_ns_ = 0;
    acknowledge(*durable);
    update_hold();
    work();
    commit();
    maybe_shut();
}

/// Memory is bounded: a connection that is faster than the disk waits.
void Replica::hold_by_writes() {
    const std::uint64_t limit = writes_behind_ ? writes_bytes_max / 2 : writes_bytes_max;
    const bool behind = store_ && store_->in_flight_bytes() > limit;
    if (behind == writes_behind_)
        return;
    writes_behind_ = behind;
    if (welcomed_)
        session_->hold(behind || !cause_.empty());
}

void Replica::acknowledge(const store::Durable& durable) {
    if (!welcomed_ || durable.batch <= acked_batch_)
        return;
    acked_batch_ = durable.batch;
    session_->send_message(proto::FrameType::ack, proto::Ack{durable.batch, durable.mark, window()});
}

/// The window shrinks as the backlog comes near its limit, down to a sixteenth: an agent that keeps to it never meets the
/// hard stop of update_hold().
std::uint64_t Replica::window() const {
    const auto& o = around_.options;
    const std::uint64_t behind = store_->durable().position - store_->applied();
    const std::uint64_t room = behind >= o.backlog_bytes_max ? 0 : o.backlog_bytes_max - behind;
    return std::max(std::min(o.window_bytes, room / 2), o.window_bytes / 16);
}

Result<void> Replica::submit(WorkerTask task) {
    if (!store_ || shutting_)
        return fail(Errc::busy, fmt::format("the store of source {} is not open", name_));
    tasks_.push_back(std::move(task));
    collect_wanted_ = true;
    work();
    return {};
}

// ---- time -------------------------------------------------------------------------------------------------------------

void Replica::update_hold() {
    std::string cause;
    if (store_) {
        const auto& o = around_.options;
        const std::uint64_t behind = store_->durable().position - store_->applied();
        const std::uint64_t limit = cause_ == proto::held_by_apply ? o.backlog_bytes_max / 8 * 7 : o.backlog_bytes_max;
        if (around_.disk_low)
            cause = proto::held_by_disk;
        else if (behind > limit)
            cause = proto::held_by_apply;
    }
    if (cause != cause_) {
        if (!cause.empty())
            around_.log.warn("source={} event=held cause={}", name_, quote(cause));
        else
            around_.log.info("source={} event=released cause={}", name_, quote(cause_));
        cause_ = cause;
        if (welcomed_)
            send_heartbeat();
    }
    if (welcomed_)
        session_->hold(writes_behind_ || !cause_.empty());
}

void Replica::send_heartbeat() {
    const auto status = store_->status();
    proto::Heartbeat h;
    h.cause = cause_;
    h.backlog_bytes = status.backlog_bytes;
    const std::uint64_t wall = around_.clock.realtime_ns();
    h.lag_ms = status.applied_time_ns == 0 || status.applied_time_ns > wall ? 0 : (wall - status.applied_time_ns) / 1'000'000;
    h.applied_mark = status.applied_mark;
    h.points = status.points;
    h.newest_point_mark = status.newest_point_mark;
    session_->send_message(proto::FrameType::heartbeat, h);
}

void Replica::tick() {
    const std::uint64_t now = around_.clock.monotonic_ns();
    if (ticked_ns_ != 0 && now > ticked_ns_) {
        const double s = static_cast<double>(now - ticked_ns_) / 1e9;
        bytes_in_per_s_ = static_cast<std::uint64_t>(static_cast<double>(bytes_in_ - bytes_in_before_) / s);
        applied_bytes_per_s_ = static_cast<std::uint64_t>(static_cast<double>(applied_bytes_ - applied_before_) / s);
    }
    ticked_ns_ = now;
    bytes_in_before_ = bytes_in_;
    applied_before_ = applied_bytes_;
    if (!store_)
        return;
    maybe_point();
    update_hold();
    drained_ = true;
    commit();
    if (!store_)
        return;
    work();  // a checkpoint may be due
    if (!welcomed_)
        return;
    if (session_->unsent() == 0)
        send_heartbeat();
    if (bytes_in_per_s_ < idle_bytes_per_s) {
        session_->trim();
        store_->trim();
    }
    if (!session_->held() && loop::Loop::now_ns() > session_->heard_ns() + around_.options.silence_ns) {
        Session& session = *session_;
        detach(session);
        session.refuse({Errc::timeout, 0, fmt::format("nothing came from the agent for {} s",
                                                      around_.options.silence_ns / second_ns)});
    } else if (!session_->held() && loop::Loop::now_ns() > session_->framed_ns() + around_.options.frame_ns) {
        Session& session = *session_;
        detach(session);
        session.refuse({Errc::timeout, 0, fmt::format("no whole frame came from the agent for {} s", around_.options.frame_ns / second_ns)});
    }
}

void Replica::shut(std::move_only_function<void()> done) {
    shutting_ = true;
    reopen_.reset();
    if (session_ != nullptr) {
        Session& session = *session_;
        detach(session);
        session.refuse({Errc::closed, 0, "the server shuts down"});
    }
    shut_ = std::move(done);
    maybe_shut();
}

/// The last job: a checkpoint, so that the next start has nothing to apply again.
void Replica::maybe_shut() {
    if (!shut_ || !quiet() || state_ == State::opening)
        return;
    auto done = std::exchange(shut_, {});
    if (!store_) {
        done();
        return;
    }
    around_.workers.submit([&loop = around_.loop, &log = around_.log, name = name_, store = std::exchange(store_, {}),
                            done = std::move(done)]() mutable {
        if (const auto r = store->checkpoint(); !r)
            log.warn("source={} event=checkpoint-failed error={}", name, quote(r.error()));
        store.reset();
        loop.post(std::move(done));
    });
}

Replica::Report Replica::report() const {
    Report r;
    r.state = state_;
    r.error = error_.text;
    r.connected = welcomed_;
    if (welcomed_) {
        r.address = session_->peer();
        r.agent = agent_;
    }
    r.agent_version = hello_.agent_version;
    r.disks = hello_.disks;
    r.session = session_number_;
    r.cause = cause_;
    r.bytes_in = bytes_in_;
    r.bytes_in_per_s = bytes_in_per_s_;
    r.applied_bytes_per_s = applied_bytes_per_s_;
    if (store_) {
        r.store = store_->status();
        r.lag_ms = lag_ms(r.store.durable.time_ns);
    }
    return r;
}

/// What the agent told of it, and the time since it should have told again: two machines' clocks need not agree, and either may be set. By
/// these clocks only until an agent was heard.
std::uint64_t Replica::lag_ms(std::uint64_t durable_time_ns) const {
    constexpr std::uint64_t ms = 1'000'000;
    if (told_lag_.ns != 0) {
        const std::uint64_t since = (around_.clock.monotonic_ns() - told_lag_.ns) / ms;
        return told_lag_.ms + (since > 2 * proto::heartbeat_interval_ms ? since : 0);
    }
    const std::uint64_t wall = around_.clock.realtime_ns();
    return durable_time_ns == 0 || durable_time_ns > wall ? 0 : (wall - durable_time_ns) / ms;
}

}  // namespace blkferry::server
