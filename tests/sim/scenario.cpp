// SPDX-License-Identifier: Apache-2.0
#include "scenario.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <unistd.h>

#include "agent/agent.hpp"
#include "server/server.hpp"
#include "source.hpp"
#include "store/export.hpp"
#include "world.hpp"

namespace blkferry::sim {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t recovery_ns_max = 180 * second;

class Folder {
public:
    Folder() {
        std::string name = fs::is_directory("/dev/shm") ? "/dev/shm/blkferry-sim-XXXXXX" : "/tmp/blkferry-sim-XXXXXX";
        BLKFERRY_ASSERT(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    fs::path path;
};

/// Paths of the run are left out of the trace: they differ from run to run.
class SimLog final : public service::Log {
public:
    SimLog(const char* who, std::string cut) : who_(who), cut_(std::move(cut)) { set_level(service::Level::debug); }
    void write(service::Level, std::string_view text) override {
        std::string line(text);
        for (std::size_t at = line.find(cut_); at != std::string::npos; at = line.find(cut_))
            line.replace(at, cut_.size(), "~");
        world->note(fmt::format("{}: {}", who_, line));
        if (on_line)
            on_line(line);
    }
    std::function<void(const std::string&)> on_line;

private:
    const char* who_;
    std::string cut_;
};

class Scenario {
public:
    Scenario(std::uint64_t seed, bool trace, Mutation mutation);
    ~Scenario();
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;
    Outcome run();

private:
    void start_agent();
    void start_server();
    void crash_agent();
    void crash_server();
    void plan_faults();
    void one_fault();
    void heal();
    void watch();
    void run_until(std::uint64_t when_ns);
    [[nodiscard]] bool recovered();
    void check_points();
    void problem(std::string text) {
        if (out_.problem.empty())
            out_.problem = std::move(text);
    }

    Folder dir_;
    World world_;
    SimLog agent_log_;
    SimLog server_log_;
    std::unique_ptr<Source> source_;
    config::AgentConfig agent_config_;
    server::ServerOptions server_options_;
    std::unique_ptr<loop::Loop> agent_loop_;
    std::unique_ptr<agent::Agent> agent_;
    std::unique_ptr<loop::Loop> server_loop_;
    std::unique_ptr<server::Server> server_;
    std::uint64_t durable_ = 0;              ///< highest mark that was durable
    std::map<std::string, std::uint64_t> points_;  ///< published, with their marks
    std::uint64_t faults_ = 0;               ///< kinds of this seed, bits
    std::uint64_t fault_gap_ms_ = 0;
    bool faulty_ = false;
    Outcome out_;
};

Scenario::Scenario(std::uint64_t seed, bool trace, Mutation mutation)
    : world_(seed), agent_log_("agent", dir_.path.string()), server_log_("server", dir_.path.string()) {
    world_.tracing = trace;
    world_.mutation = mutation;
    world_.disk.descriptors = true;
    world_.disk.reflinks = world_.below(2) == 0;
    world_.machine = std::make_unique<producer::Machine>();
    world_.ring_bytes = (64ULL << 10) << world_.below(3);
    source_ = std::make_unique<Source>(world_, dir_.path);
    agent_config_.server = {{"sim", 1500}};
    agent_config_.source = "src";
    agent_config_.state_dir = dir_.path / "agent";
    agent_config_.compression = world_.below(2) == 0 ? config::Compression::none : config::Compression::lz4;
    agent_config_.compression_level = 1;
    agent_config_.batch_interval_ms = world_.between(10, 300);
    agent_config_.batch_bytes = (1ULL << 16) << world_.below(6);
    agent_config_.ring_bytes = 1U << 20;
    agent_config_.resync_queue_depth = world_.between(1, 8);
    agent_config_.resync_block_bytes = 4096ULL << world_.below(5);
    agent_config_.workers = world_.between(1, 3);
    server_options_.store_dir = dir_.path / "store";
    server_options_.disk_reserve_bytes = 0;
    server_options_.workers = static_cast<unsigned>(world_.between(1, 2));
    server_options_.point_interval_ns = world_.between(200, 3000) * ms;
    server_options_.apply_turn_bytes = (64ULL << 10) << world_.below(6);
    server_options_.store.engine = world_.disk.reflinks ? "reflink" : "copy";
    server_options_.store.source.journal.segment_bytes = 4U << 20;
    server_options_.store.source.applier.chunk_bytes = 512U << 10;
    server_options_.store.source.applier.direct_bytes_min = 4096ULL << world_.below(6);
    server_log_.on_line = [this](const std::string& line) {
        const std::size_t at = line.find("event=point point=");
        const std::size_t mark = line.find(" mark=");
        if (at != std::string::npos && mark != std::string::npos)
            points_[line.substr(at + 18, mark - at - 18)] = std::strtoull(line.c_str() + mark + 6, nullptr, 10);
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

Scenario::~Scenario() {
    agent_.reset();
    agent_loop_.reset();
    server_.reset();
    server_loop_.reset();
}

void Scenario::start_agent() {
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

void Scenario::plan_faults() {
    if (!faulty_)
        return;
    world_.in(world_.between(1, 2 * fault_gap_ms_) * ms, [this] {
        if (!faulty_)
            return;
        one_fault();
        plan_faults();
    });
}

void Scenario::one_fault() {
    const std::uint64_t kind = world_.below(8);
    if ((faults_ >> kind & 1) == 0)
        return;
    switch (kind) {
        case 0:
            if (agent_)
                crash_agent();
            break;
        case 1:
            if (server_)
                crash_server();
            break;
        case 2:  // at the n-th operation of the store's disk from here
            if (server_ && !world_.disk.dead())
                world_.disk.die_at(world_.between(1, 200));
            break;
        case 3:
            world_.note("--- link: reset");
            for (const auto& [fd, end] : world_.ends)
                end->reset = true;
            break;
        case 4:
            world_.note("--- link: silence");
            for (const auto& [fd, end] : world_.ends)
                end->silent = end->silent || world_.below(2) == 0;
            break;
        case 5:
            world_.weather = {world_.between(1, 50'000) * us, std::uint64_t{10} << world_.below(14), world_.one_in(3)};
            world_.note("--- link: other weather");
            break;
        case 6:
            world_.chances.source_read_error = world_.below(2) == 0 ? 0 : 20;
            world_.chances.short_io = world_.below(2) == 0 ? 0 : 10;
            world_.chances.journal_error = world_.below(2) == 0 ? 0 : 30;
            break;
        default:
            world_.wall_offset += world_.below(2) == 0 ? 3600 * second : 0 - 7200 * second;
            world_.note("--- wall clock jumps");
            break;
    }
}

void Scenario::heal() {
    world_.note("--- faults end");
    faulty_ = false;
    world_.weather = {};
    world_.chances = {};
}

/// Looks at what is durable: it never goes back.
void Scenario::watch() {
    if (agent_ && !agent_loop_->run_once(0))
        crash_agent();
    if (server_ && world_.disk.dead())
        crash_server();
    if (!server_)
        return;
    const auto& replicas = server_->replicas();
    if (const auto it = replicas.find("src"); it != replicas.end())
        if (const auto store = it->second->store()) {
            const std::uint64_t mark = store->status().durable.mark;
            if (mark < durable_)
                problem(fmt::format("O2: mark {} was durable, now it is {}", durable_, mark));
            durable_ = std::max(durable_, mark);
        }
}

void Scenario::run_until(std::uint64_t when_ns) {
    while (out_.problem.empty() && world_.now < when_ns) {
        if (!world_.step())
            return problem("nothing is left to happen");
        watch();
    }
}

bool Scenario::recovered() {
    if (!source_->idle() || !agent_ || agent_->state() != agent::SourceState::continuous)
        return false;
    // A server that died between making a point and saying so left it behind.
    if (server_)
        if (const auto it = server_->replicas().find("src"); it != server_->replicas().end())
            if (const auto store = it->second->store())
                for (const store::Manifest& m : store->points().list())
                    points_[m.name] = m.mark;
    return std::ranges::any_of(points_, [&](const auto& p) { return p.second >= source_->last_seq(); });
}

/// O1: every recovery point that was published is there and equals the source at its mark.
void Scenario::check_points() {
    const auto files = store::make_posix_file_system();
    std::vector<std::pair<std::uint64_t, std::string>> by_mark;
    for (const auto& [name, mark] : points_)
        by_mark.emplace_back(mark, name);
    std::ranges::sort(by_mark);
    for (std::size_t i = 0; i < source_->disks(); ++i) {
        Source::Replay replay(*source_, i);
        std::vector<std::byte> got(source_->bytes(i));
        for (const auto& [mark, name] : by_mark) {
            const auto reader = store::PointReader::open_in(*files, store::Store::source_dir(server_options_.store_dir, "src"),
                                                            name, static_cast<std::uint16_t>(i), nullptr);
            if (!reader)
                return problem(fmt::format("O1: point {} disk {}: {}", name, i, reader.error().text));
            if (const auto r = (*reader)->read(0, got); !r)
                return problem(fmt::format("O1: point {} disk {}: {}", name, i, r.error().text));
            const auto& want = replay.at(mark);
            if (std::memcmp(got.data(), want.data(), got.size()) == 0)
                continue;
            const auto bad = std::ranges::mismatch(got, want);
            return problem(fmt::format("O1: point {} (mark {}) differs from the source on disk {} at sector {}", name, mark, i,
                                       (bad.in1 - got.begin()) / 512));
        }
        if (out_.problem.empty() && replay.at(UINT64_MAX) != source_->medium(i))
            return problem("the simulation's own history is wrong");
    }
}

Outcome Scenario::run() {
    start_server();
    start_agent();
    source_->start();
    run_until(world_.now + world_.between(0, 2000) * ms);
    faulty_ = true;
    plan_faults();
    run_until(world_.now + world_.between(1, 6) * second);
    heal();
    run_until(world_.now + world_.between(0, 500) * ms);
    source_->stop();
    const std::uint64_t end = world_.now + recovery_ns_max;
    while (out_.problem.empty() && !recovered() && world_.now < end)
        run_until(world_.now + 100 * ms);
    if (out_.problem.empty() && !recovered())
        problem(fmt::format("O3: no recovery within {} s: agent {}, durable {}, last write {}", recovery_ns_max / second,
                            agent_ ? agent_->status_line() : "down", durable_, source_->last_seq()));
    if (out_.problem.empty())
        check_points();
    out_.digest = world_.digest;
    out_.virtual_ns = world_.now;
    out_.writes = source_->writes();
    out_.points = points_.size();
    return out_;
}

}  // namespace

Outcome run_seed(std::uint64_t seed, bool trace, Mutation mutation) { return Scenario(seed, trace, mutation).run(); }

}  // namespace blkferry::sim
