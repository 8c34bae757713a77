// SPDX-License-Identifier: Apache-2.0
// blkferry-agent: ships what the module captures to the server.
//
// Exit codes: 0 ended by a signal, 1 it cannot run (the log says why), 2 wrong usage or configuration.
#include <cstdio>
#include <string>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "agent/agent.hpp"
#include "loop/signals.hpp"
#include "service/log.hpp"
#include "service/notify.hpp"

namespace {

using namespace blkferry;

constexpr int exit_failure = 1;
constexpr int exit_usage = 2;
constexpr const char* opener_socket = "/run/blkferry/opener.sock";

int usage_error(const Error& error) {
    std::fprintf(stderr, "blkferry-agent: %s\n", error.text.c_str());
    return exit_usage;
}

void handle_signal(int signal, agent::Agent& agent, loop::Loop& loop, service::Log& log) {
    if (signal != SIGHUP) {
        log.info("event=stop signal={}", signal);
        service::notify::stopping();
        loop.stop();
        return;
    }
    service::notify::reloading();
    if (auto r = agent.reload(); !r)
        log.error("event=reload error={}", service::quote(r.error().text));
    service::notify::ready();
}

/// Runs until a signal ends it. What is in the rings stays there: there is nothing to flush.
int run(agent::AgentOptions options, const config::AgentConfig& config, service::Log& log) {
    const auto failed = [&](const Error& error) {
        log.error("event=start error={}", service::quote(error.text));
        return exit_failure;
    };
    auto loop = loop::Loop::create({.single_thread = true});
    if (!loop)
        return failed(loop.error());
    agent::Agent* running = nullptr;
    // Before the pool starts, so that its threads inherit the mask.
    auto signals = loop::Signals::create(**loop, {SIGTERM, SIGINT, SIGHUP}, [&](int signal) {
        if (running != nullptr)
            handle_signal(signal, *running, **loop, log);
    });
    if (!signals)
        return failed(signals.error());
    agent::Agent agent(**loop, std::move(options), config, log);
    if (auto r = agent.start(); !r)
        return failed(r.error());
    running = &agent;
    service::notify::ready();
    loop::Timer watchdog;
    if (const std::uint64_t interval = service::notify::watchdog_interval_ns(); interval != 0)
        watchdog = (*loop)->every(interval, [] { service::notify::watchdog(); });
    const loop::Timer status = (*loop)->every(2'000'000'000, [&] { service::notify::status(agent.status_line()); });
    if (auto r = (*loop)->run(); !r)
        return failed(r.error());
    running = nullptr;
    return agent.failed() ? exit_failure : 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::string config_file = config::agent_file;
    std::string tracker;
    std::string opener;
    bool check = false;
    CLI::App app("Ships the writes of protected disks to a blkferry server.", "blkferry-agent");
    app.add_option("--config", config_file, "Configuration file")->capture_default_str();
    app.add_option("--tracker", tracker, "How writes are seen, instead of `capture` in the configuration: 'module', 'ebpf', or 'socket:PATH' of a producer "
                                   "(tests)");
    app.add_option("--opener", opener, "Socket of the opener, which opens rings and asks the module for this process. Without it " +
                                           std::string(opener_socket) + ", if that is there and the agent is not root");
    app.add_flag("--check", check, "Check the configuration and exit");
    app.set_version_flag("--version", "blkferry-agent " BLKFERRY_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : exit_usage;
    }
    agent::AgentOptions options;
    options.config_file = config_file;
    options.opener = opener;
    if (opener.empty() && ::geteuid() != 0 && ::access(opener_socket, F_OK) == 0)
        options.opener = opener_socket;
    if (tracker.starts_with("socket:"))
        options.tracker_socket = tracker.substr(7);
    else if (tracker == "module")
        options.capture = config::Capture::module;
    else if (tracker == "ebpf")
        options.capture = config::Capture::ebpf;
    else if (!tracker.empty())
        return usage_error({Errc::invalid, 0, "--tracker must be 'module', 'ebpf' or 'socket:PATH'"});
    const auto config = config::load_agent(config_file);
    if (!config)
        return usage_error(config.error());
    if (check)
        return 0;
    const auto log = service::make_stderr_log("blkferry-agent");
    log->set_level(service::level_of(config->log_level));
    return run(std::move(options), *config, *log);
}
