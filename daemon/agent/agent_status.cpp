// SPDX-License-Identifier: Apache-2.0
// What the agent tells about itself: docs/control.md, `status`.
#include "agent/agent.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace blkferry::agent {

using control::Json;

namespace {

std::uint64_t realtime_ns() {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
}

Json progress_json(const SyncProgress::Sum& p) {
    return {{"done_bytes", p.done_bytes}, {"total_bytes", p.total_bytes}};
}

Json latency_json(const capture::LatencySet& set) {
    Json buckets = Json::array();
    for (const auto& [upper_ns, samples] : set.buckets())
        buckets.push_back({upper_ns, samples});
    return {{"p50_ns", set.quantile_ns(500)},
            {"p99_ns", set.quantile_ns(990)},
            {"max_ns", set.max_ns()},
            {"samples", set.samples()},
            {"buckets", std::move(buckets)}};
}

/// By name; null if the module does not measure.
Json latency_json(const std::vector<capture::LatencySet>& sets) {
    if (sets.empty())
        return nullptr;
    constexpr std::pair<const char*, blkferry_latency_set> names[] = {
        {"submit", BLKFERRY_L_SUBMIT}, {"submit_bitmap", BLKFERRY_L_SUBMIT_BITMAP}, {"end", BLKFERRY_L_END}};
    Json j = Json::object();
    for (const auto& [name, which] : names)
        if (which < sets.size())
            j[name] = latency_json(sets[which]);
    return j;
}

/// Average bytes of a captured operation, for what is in the ring and was not looked at yet.
std::uint64_t mean_op_bytes(const capture::Ring& ring) noexcept {
    const std::uint64_t ops = ring.counter(BLKFERRY_C_OPS);
    return ops == 0 ? 0 : ring.counter(BLKFERRY_C_SECTORS) * sector_bytes / ops;
}

}  // namespace

std::uint64_t Agent::backlog_bytes(const Member& m) const {
    const auto st = m.disk.ring->status();
    const std::uint64_t dirty = (st.active_blocks + st.snap_blocks) * m.disk.block_bytes();
    const std::uint64_t size = m.disk.geometry().nr_sectors * sector_bytes;
    const std::uint64_t ring_ops = st.head - std::min(st.head, m.disk.ring->tail());
    return std::min(dirty, size) + ring_ops * mean_op_bytes(*m.disk.ring);
}

std::uint64_t Agent::backlog_bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& m : members_)
        bytes += backlog_bytes(*m);
    return bytes;
}

/// Stamp of the oldest write that is not durable, 0 if there is none: what the shipper took is older than what it did not.
std::uint64_t Agent::oldest_stamp_ns() const {
    if (const std::uint64_t taken = shipper_.oldest_time_ns(); taken != 0)
        return taken;
    capture::CapturedOp oldest;
    for (const auto& m : members_) {
        capture::CapturedOp op;
        if (m->disk.ring->refresh() && m->disk.ring->peek(op) == capture::Ring::Peek::ready && op.time_ns != 0 &&
            (oldest.time_ns == 0 || op.seq < oldest.seq))
            oldest = op;
    }
    return oldest.time_ns;
}

void Agent::feed_ages(std::uint64_t now_ns) {
    ages_.feed(realtime_ns(), now_ns);
    if (const std::uint64_t stamp = oldest_stamp_ns(); stamp != 0)
        (void)ages_.oldest_ns(stamp, now_ns);
    else
        ages_.settled(now_ns);
}

/// Age of the oldest write that is not durable; nothing before the first sync is over.
std::optional<std::uint64_t> Agent::lag_ms() const {
    if (shipper_.durable_mark() == 0 && acked_mark_ == 0)
        return std::nullopt;
    std::uint64_t gap_ms = 0;
    const std::uint64_t now_mono = loop::Loop::now_ns();
    for (const auto& m : members_) {
        const auto p = m->resync->progress();
        if (p.whole)
            return std::nullopt;  // there is no complete replica yet
        if (m->gap_since_ns != 0)
            gap_ms = std::max(gap_ms, (now_mono - m->gap_since_ns) / 1'000'000);
    }
    const std::uint64_t stamp = oldest_stamp_ns();
    return std::max(stamp == 0 ? 0 : ages_.age_ns(stamp, now_mono) / 1'000'000, gap_ms);
}

void Agent::feed_progress() {
    std::vector<DiskProgress> disks;
    for (const auto& m : members_) {
        const auto p = m->resync->progress();
        const auto st = m->disk.ring->status();
        const std::uint64_t size = m->disk.geometry().nr_sectors * sector_bytes;
        disks.push_back({.slot = m->disk.slot(),
                         .active = p.active,
                         .whole = p.whole,
                         .kind = p.kind,
                         .left_bytes = std::min((st.active_blocks + st.snap_blocks) * m->disk.block_bytes(), size),
                         .size_bytes = size,
                         .all_marked = st.active_blocks >= m->disk.geometry().blocks()});
    }
    sync_.feed(disks, backlog_bytes());
}

SourceState Agent::phase_of(const Member& m) const {
    StateFacts f;
    f.disks = 1;
    f.paused = paused_;
    f.connected_once = session_->tried();
    f.session = session_->established();
    f.stalled = f.session && (!m.resync->cause().empty() || m.disk.ring->bad());
    const auto p = m.resync->progress();
    f.initial = p.whole && p.kind == SyncKind::initial;
    f.rescan = p.whole && p.kind == SyncKind::rescan;
    f.gap = p.active;
    f.flushed = flushed_;
    f.first_point = registry_->first_point();
    return derive_state(f);
}

Json Agent::disk_status(const Member& m) const {
    const auto st = m.disk.ring->status();
    const auto& g = m.disk.geometry();
    Json j = {{"slot", m.disk.slot()},
              {"disk_id", m.disk.record.disk_id.str()},
              {"name", m.disk.name},
              {"device", m.disk.path},
              {"identity", m.disk.record.identity.str()},
              {"state", capture::to_string(st.state)},
              {"phase", to_string(phase_of(m))},
              {"size_bytes", g.nr_sectors * sector_bytes},
              {"backlog_bytes", backlog_bytes(m)},
              {"memory_bytes", m.memory_bytes},
              {"untracked_bytes", m.untracked_bytes},
              {"dirty_bytes", (st.active_blocks + st.snap_blocks) * m.disk.block_bytes()},
              {"ring", {{"used_bytes", std::min(g.data_bytes, (st.head - std::min(st.head, m.disk.ring->tail())) *
                                                                  mean_op_bytes(*m.disk.ring))},
                        {"total_bytes", g.data_bytes}}},
              {"error", m.disk.ring->bad() ? m.disk.ring->error().text : m.resync->cause()}};
    if (const auto p = sync_.disk(m.disk.slot()))
        j["progress"] = progress_json(*p);
    Json counters = Json::object();
    constexpr std::pair<const char*, blkferry_counter> names[] = {
        {"ops", BLKFERRY_C_OPS},
        {"sectors", BLKFERRY_C_SECTORS},
        {"cancelled", BLKFERRY_C_CANCELLED},
        {"failed", BLKFERRY_C_FAILED},
        {"dirty_ops", BLKFERRY_C_DIRTY_OPS},
        {"overflows", BLKFERRY_C_OVERFLOWS},
        {"oversize", BLKFERRY_C_OVERSIZE},
        {"overlaps", BLKFERRY_C_OVERLAPS},
        {"unknown", BLKFERRY_C_UNKNOWN},
        {"watchdog", BLKFERRY_C_WATCHDOG},
        {"passthrough", BLKFERRY_C_PASSTHROUGH},
        {"bad_consumer", BLKFERRY_C_BAD_CONSUMER},
    };
    for (const auto& [name, which] : names)
        counters[name] = m.disk.ring->counter(which);
    j["counters"] = std::move(counters);
    j["latency"] = latency_json(m.latency);
    return j;
}

Json Agent::missing_status(const Missing& m) const {
    return {{"slot", m.record.slot},
            {"disk_id", m.record.disk_id.str()},
            {"name", m.record.identity.name},
            {"device", ""},
            {"identity", m.record.identity.str()},
            {"state", "STOPPED"},
            {"phase", to_string(SourceState::stalled)},
            {"size_bytes", m.record.identity.sectors * sector_bytes},
            {"backlog_bytes", 0},
            {"dirty_bytes", 0},
            {"ring", {{"used_bytes", 0}, {"total_bytes", 0}}},
            {"error", m.why}};
}

/// How writes are seen, and what that means for whoever counts on it.
Json Agent::capture_status() const {
    const bool producer = !options_.tracker_socket.empty();
    Json j = {{"kind", tracker_->only_marks() ? "ebpf" : producer ? "producer" : "module"},
              {"any_mark", !tracker_->only_marks()},
              {"reason", no_module_},
              {"limits", Json::array()}};
    if (tracker_->only_marks()) {
        j["cycle_interval_ms"] = config_.cycle_interval_ms;
        j["limits"] = {"no recovery to any mark: a recovery point needs a round in which nothing is written, or 'blkferry mark --fs'",
                       "after each start of the agent all blocks are compared with the replica",
                       "no verification of source against replica on request"};
    }
    return j;
}

Json Agent::status() const {
    const ShipperCounters& c = shipper_.counters();
    const auto lag = lag_ms();
    Json disks = Json::array();
    std::uint64_t epochs = 0;
    for (const auto& m : members_) {
        disks.push_back(disk_status(*m));
        epochs += m->resync->epochs();
    }
    for (const Missing& m : missing_)
        disks.push_back(missing_status(m));
    std::sort(disks.begin(), disks.end(),
              [](const Json& a, const Json& b) { return a.at("slot").get<unsigned>() < b.at("slot").get<unsigned>(); });
    const std::uint64_t backlog = backlog_bytes();
    Json j = {{"source", config_.source},
              {"source_id", registry_->source_id().str()},
              {"version", BLKFERRY_VERSION},
              {"server", config::to_string(config_.server)},
              {"server_name", session_->server_name()},
              {"connected", session_->established()},
              {"capture", capture_status()},
              {"state", to_string(state_)},
              {"cause", cause_},
              {"backlog_bytes", backlog},
              {"lag_ms", lag ? Json(*lag) : Json(nullptr)},
              {"durable_mark", std::max(acked_mark_, shipper_.durable_mark())},
              {"points", server_.points},
              {"rates",
               {{"capture_bytes", rates_.mean(Rates::capture)},
                {"ship_bytes", rates_.mean(Rates::ship)},
                {"wire_bytes", rates_.mean(Rates::wire)},
                {"resync_bytes", rates_.mean(Rates::resync)},
                {"drain_bytes", rates_.drain()}}},
              {"throttle", {{"rate_bytes", bucket_.rate()}}},
              {"disks", std::move(disks)},
              {"counters",
               {{"ops", c.ops},
                {"captured_bytes", c.payload_in},
                {"folded_bytes", c.payload_folded},
                {"resync_bytes", c.resync_bytes},
                {"resync_shipped_bytes", c.resync_payload},
                {"durable_bytes", c.payload_durable},
                {"batches", c.batches},
                {"wire_bytes", session_->wire_bytes()},
                {"sessions", session_->sessions()},
                {"epochs", epochs},
                {"verify_differing_bytes", verify_differing_}}},
              {"frozen", frozen_.empty() ? Json(nullptr) : latency_json(frozen_.front())},
              {"certificate", certificate_status()},
            {"verify", verify_status()},
              {"uptime_ms", (loop::Loop::now_ns() - started_ns_) / 1'000'000}};
    if (const auto p = sync_.sum()) {
        j["progress"] = progress_json(*p);
        const std::uint64_t rate = rates_.mean(Rates::resync);
        if (rate > 0)
            j["progress"]["eta_ms"] = (p->total_bytes - p->done_bytes) * 1000 / rate;
    }
    return j;
}

std::string Agent::status_line() const {
    const auto lag = lag_ms();
    return fmt::format("{}{}{}, backlog {} bytes{}", row(state_).console, cause_.empty() ? "" : ": ", cause_, backlog_bytes(),
                       lag ? fmt::format(", lag {} ms", *lag) : std::string());
}

}  // namespace blkferry::agent
