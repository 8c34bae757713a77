// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/agent.hpp"
#include "scenario.hpp"
#include "server/server.hpp"
#include "source.hpp"
#include "world.hpp"

namespace blkferry::sim {

class Folder {
public:
    Folder();
    ~Folder();
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    std::filesystem::path path;
};

/// Paths of the run are left out of the trace: they differ from run to run.
class SimLog final : public service::Log {
public:
    SimLog(const char* who, std::string cut) : who_(who), cut_(std::move(cut)) { set_level(service::Level::debug); }
    void write(service::Level, std::string_view text) override;
    std::function<void(const std::string&)> on_line;

private:
    const char* who_;
    std::string cut_;
};

/// One seed: its machines, its faults, and what has to hold.
class Scenario {
public:
    Scenario(std::uint64_t seed, bool trace, const Plan& plan);
    ~Scenario();
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;
    Outcome run();

private:
    /// A sector whose copy in the store was damaged: points with marks below `fixed` may show it.
    struct Rot {
        std::size_t disk = 0;
        std::uint64_t sector = 0;
        std::uint64_t fixed = UINT64_MAX;
    };

    // scenario.cpp
    void configure();
    void start_agent();
    void start_server();
    void crash_agent();
    void crash_server();
    void watch();
    void run_until(std::uint64_t when_ns);
    void run_until(const char* what, std::uint64_t limit_ns, const std::function<bool()>& reached);
    void stop_server();
    [[nodiscard]] std::shared_ptr<store::SourceStore> open_store() const;
    void problem(std::string text) {
        if (out_.problem.empty())
            out_.problem = std::move(text);
    }

    // faults.cpp
    void plan_faults();
    void one_fault();
    void crash_source();
    void cut_streams();
    void stall_streams();
    void trouble_store();
    [[nodiscard]] int store_trouble(std::string_view what, const std::string& path);
    void rot();
    void rot_chunk(const std::string& path, std::vector<std::byte>& bytes);
    void ask_for_mark();
    void ask_to_delete();
    void heal();

    // oracle.cpp
    void note_points();
    [[nodiscard]] bool recovered();
    void verify();
    void check_alone();
    void check_points();
    void check_point(Source::Replay& replay, std::size_t disk, std::uint64_t mark, const std::string& name);
    void check_frozen(std::size_t disk, std::uint64_t mark, const std::string& name, std::span<const std::byte> got);
    void check_store();
    void check_chunks(const std::string& folder, const std::vector<std::string>& names, std::uint16_t slot);

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
    Plan plan_;
    std::filesystem::path source_dir_;
    std::uint64_t durable_ = 0;                    ///< highest mark that was durable
    std::map<std::string, std::uint64_t> points_;  ///< published and not given up, with their marks
    std::set<std::string> deleted_;                ///< of which the user was told that they are
    std::set<std::string> asked_;                  ///< to be deleted, and no clear answer came: there or not
    std::set<std::string> rotten_points_;          ///< their manifest was damaged
    std::vector<Rot> rots_;
    bool journal_rotten_ = false;
    bool source_down_ = false;
    bool agent_held_ = false;                      ///< it does not come back by itself
    std::uint64_t faults_ = 0;                     ///< kinds of this seed, bits
    std::uint64_t fault_gap_ms_ = 0;
    std::uint64_t marks_asked_ = 0;
    bool faulty_ = false;
    Outcome out_;
};

}  // namespace blkferry::sim
