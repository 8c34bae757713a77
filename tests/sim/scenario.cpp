// SPDX-License-Identifier: Apache-2.0
#include "scenario_impl.hpp"

#include <algorithm>
#include <cstdlib>
#include <unistd.h>

namespace blkferry::sim {

namespace fs = std::filesystem;

namespace {
constexpr std::uint64_t recovery_ns_max = 180 * second;
constexpr std::uint64_t stop_ns_max = 60 * second;

/// The number behind `key` in a log line.
std::uint64_t number_in(const std::string& line, std::string_view key) {
    const std::size_t at = line.find(key);
    return at == std::string::npos ? 0 : std::strtoull(line.c_str() + at + key.size(), nullptr, 10);
}
}  // namespace

Folder::Folder() {
    std::string name = fs::is_directory("/dev/shm") ? "/dev/shm/blkferry-sim-XXXXXX" : "/tmp/blkferry-sim-XXXXXX";
    BLKFERRY_ASSERT(::mkdtemp(name.data()) != nullptr);
    path = name;
}
Folder::~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
}

void SimLog::write(service::Level, std::string_view text) {
    std::string line(text);
    for (std::size_t at = line.find(cut_); at != std::string::npos; at = line.find(cut_))
        line.replace(at, cut_.size(), "~");
    world->note(fmt::format("{}: {}", who_, line));
    if (on_line)
        on_line(line);
}

Scenario::Scenario(std::uint64_t seed, bool trace, const Plan& plan)
    : world_(seed), agent_log_("agent", dir_.path.string()), server_log_("server", dir_.path.string()), plan_(plan) {
    world_.tracing = trace;
    world_.mutation = plan.mutation;
    world_.disk.descriptors = true;
    world_.disk.lie_about_names = plan.mutation == Mutation::lose_names;
    world_.disk.reflinks = world_.below(2) == 0;
    world_.disk.trouble = [this](std::string_view what, const std::string& path) { return store_trouble(what, path); };
    world_.machine = std::make_unique<producer::Machine>();
    world_.ring_bytes = (64ULL << 10) << world_.below(3);
    source_ = std::make_unique<Source>(world_, dir_.path);
    world_.source = source_.get();
    configure();
    agent_log_.on_line = [this](const std::string& line) {
        if (line.find("event=session ") != std::string::npos)
            source_->session_began(number_in(line, " durable_mark="));
    };
    server_log_.on_line = [this](const std::string& line) {
        const std::size_t at = line.find("event=point point=");
        const std::size_t mark = line.find(" mark=");
        if (at != std::string::npos && mark != std::string::npos)
            points_[line.substr(at + 18, mark - at - 18)] = number_in(line, " mark=");
    };
    auto registry = agent::Registry::open(agent_config_.state_dir);
    BLKFERRY_ASSERT(registry.has_value());
    for (std::size_t i = 0; i < source_->disks(); ++i) {
        agent::DiskIdentity id;
        id.name = source_->path(i);
        id.mapper = "file:" + id.name;
        id.sectors = source_->bytes(i) / sector_bytes;
        BLKFERRY_ASSERT(registry->add(id).has_value());
    }
    faults_ = world_.random();
    fault_gap_ms_ = std::uint64_t{50} << world_.below(6);
}

void Scenario::configure() {
    agent_config_.server = {{"sim", 1500}};
    agent_config_.source = "src";
    agent_config_.state_dir = dir_.path / "agent";
    agent_config_.control_socket = "agent";
    agent_config_.compression = world_.below(2) == 0 ? config::Compression::none : config::Compression::lz4;
    agent_config_.compression_level = 1;
    agent_config_.batch_interval_ms = world_.between(10, 300);
    agent_config_.batch_bytes = (1ULL << 16) << world_.below(6);
    agent_config_.ring_bytes = 1U << 20;
    agent_config_.resync_queue_depth = world_.between(1, 8);
    agent_config_.resync_block_bytes = 4096ULL << world_.below(5);
    agent_config_.workers = world_.between(1, 3);
    server_options_.store_dir = dir_.path / "store";
    source_dir_ = store::Store::source_dir(server_options_.store_dir, "src");
    server_options_.control_socket = "server";
    server_options_.disk_reserve_bytes = 0;
    server_options_.workers = static_cast<unsigned>(world_.between(1, 2));
    server_options_.point_interval_ns = world_.between(200, 3000) * ms;
    server_options_.apply_turn_bytes = (64ULL << 10) << world_.below(6);
    server_options_.store.engine = world_.disk.reflinks ? "reflink" : "copy";
    server_options_.store.source.journal.segment_bytes = 4U << 20;
    server_options_.store.source.applier.chunk_bytes = 512U << 10;
    server_options_.store.source.applier.direct_bytes_min = 4096ULL << world_.below(6);
}

Scenario::~Scenario() {
    agent_.reset();
    agent_loop_.reset();
    server_.reset();
    server_loop_.reset();
    world_.pools.clear();
    world_.source = nullptr;
}

void Scenario::start_agent() {
    if (source_down_ || agent_held_)
        return;
    auto loop = loop::Loop::create();
    agent_loop_ = std::move(*loop);
    agent_ = std::make_unique<agent::Agent>(*agent_loop_, agent::AgentOptions{.config_file = {}, .tracker_socket = "sim"}, agent_config_, agent_log_);
    if (const auto r = agent_->start(); !r) {
        world_.trace("agent cannot start: {}", r.error().text);
        crash_agent();
    }
}

void Scenario::crash_agent() {
    world_.note("--- agent dies");
    ++out_.agent_crashes;
    agent_.reset();
    agent_loop_.reset();
    world_.in(faulty_ ? world_.between(1, 2000) * ms : 10 * ms, [this] {
        if (!agent_)
            start_agent();
    });
}

void Scenario::start_server() {
    auto loop = loop::Loop::create();
    server_loop_ = std::move(*loop);
    auto r = server::Server::create(*server_loop_, world_, server_log_, server_options_);
    if (r) {
        server_ = std::move(*r);
        return;
    }
    world_.trace("server cannot start: {}", r.error().text);
    crash_server();
}

void Scenario::crash_server() {
    const bool power = world_.below(2) == 0;
    world_.trace("--- server dies, {}", power ? "power cut" : "process killed");
    ++out_.server_crashes;
    server_.reset();
    server_loop_.reset();
    if (power)
        world_.disk.power_cut(world_.random);
    else
        world_.disk.process_kill();
    world_.in(faulty_ ? world_.between(1, 2000) * ms : 10 * ms, [this] {
        if (!server_)
            start_server();
    });
}

std::shared_ptr<store::SourceStore> Scenario::open_store() const {
    if (!server_)
        return nullptr;
    const auto it = server_->replicas().find("src");
    return it == server_->replicas().end() ? nullptr : it->second->store();
}

/// Looks at what is durable: it never goes back, but where the disk has lost what was durable.
void Scenario::watch() {
    if (agent_ && !agent_loop_->run_once(0))
        crash_agent();
    if (server_ && world_.disk.dead())
        crash_server();
    if (const auto store = open_store()) {
        const std::uint64_t mark = store->status().durable.mark;
        if (mark < durable_ && !journal_rotten_)
            problem(fmt::format("O2: mark {} was durable, now it is {}", durable_, mark));
        durable_ = mark;
    }
}

void Scenario::run_until(std::uint64_t when_ns) {
    while (out_.problem.empty() && world_.now < when_ns) {
        if (!world_.step())
            return problem("nothing is left to happen");
        watch();
    }
}

void Scenario::run_until(const char* what, std::uint64_t limit_ns, const std::function<bool()>& reached) {
    const std::uint64_t end = world_.now + limit_ns;
    while (out_.problem.empty() && !reached()) {
        if (world_.now >= end)
            return problem(fmt::format("O3: {} did not come within {} s: agent {}, durable {}, last write {}", what, limit_ns / second,
                                       agent_ ? agent_->status_line() : "down", durable_, source_->last_seq()));
        run_until(world_.now + 100 * ms);
    }
}

/// In order, as systemd stops it.
void Scenario::stop_server() {
    agent_held_ = true;
    agent_.reset();
    agent_loop_.reset();
    bool stopped = false;
    server_->stop([&] { stopped = true; });
    const std::uint64_t end = world_.now + stop_ns_max;
    while (!stopped && out_.problem.empty())
        if (world_.now >= end || !world_.step())
            problem(fmt::format("O3: the server did not stop within {} s", stop_ns_max / second));
    server_.reset();
    server_loop_.reset();
}

Outcome Scenario::run() {
    start_server();
    start_agent();
    source_->start();
    if (plan_.die_at != 0)
        world_.disk.die_at(plan_.die_at);
    run_until(world_.now + world_.between(0, 2000) * ms);
    faulty_ = plan_.die_at == 0;
    plan_faults();
    run_until(world_.now + world_.between(1, 6) * second);
    heal();
    run_until(world_.now + world_.between(0, 500) * ms);
    check_alone();
    source_->stop();
    run_until("recovery", recovery_ns_max, [this] { return recovered(); });
    verify();
    if (out_.problem.empty())
        check_points();
    check_store();
    out_.digest = world_.digest;
    out_.virtual_ns = world_.now;
    out_.writes = source_->writes();
    out_.points = points_.size();
    out_.freezes = world_.frozen.size();
    out_.operations = world_.disk.operations();
    return out_;
}

void Outcome::add(const Outcome& o) {
    virtual_ns += o.virtual_ns;
    writes += o.writes;
    points += o.points;
    agent_crashes += o.agent_crashes;
    server_crashes += o.server_crashes;
    reboots += o.reboots;
    rots += o.rots;
    freezes += o.freezes;
    deletions += o.deletions;
    store_errors += o.store_errors;
    operations += o.operations;
}

Outcome run_seed(std::uint64_t seed, bool trace, const Plan& plan) { return Scenario(seed, trace, plan).run(); }

}  // namespace blkferry::sim
