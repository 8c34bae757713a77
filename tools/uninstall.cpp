// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/config.hpp"
#include "tools/ask.hpp"
#include "tools/commands.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"
#include "tools/setup.hpp"

namespace blkferry::tools {

namespace fs = std::filesystem;

namespace {

/// What was done, and what was not, in order.
class Steps {
public:
    explicit Steps(const Global& global) : global_(global) {}
    void done(std::string what) { add(std::move(what), true); }
    void left(std::string what) { add(std::move(what), false); }
    [[nodiscard]] const Json& rows() const { return rows_; }
    [[nodiscard]] bool all_done() const { return complete_; }

private:
    void add(std::string what, bool done) {
        complete_ = complete_ && done;
        if (!global_.json)
            print_text(fmt::format("{}: {}\n", done ? "done" : "NOT DONE", printable(what)));
        rows_.push_back({{"step", std::move(what)}, {"done", done}});
    }
    const Global& global_;
    Json rows_ = Json::array();
    bool complete_ = true;
};

/// Nothing but what the agent and `enroll` make: a folder that holds something else stays.
void remove_state(const config::AgentConfig& config, const fs::path& file, Steps& steps) {
    std::error_code err;
    std::vector<fs::path> files = {config.cert, config.key};
    for (const char* name : {"source.json", "verify.json"})
        files.push_back(config.state_dir / name);
    const fs::path own = config.cert.parent_path();
    // /etc/blkferry/ca.pem may be the server's of the same machine.
    if (own.filename() == "tls")
        for (const char* name : {"ca.pem", "source.pending"})
            files.push_back(own / name);
    files.push_back(file);
    for (const fs::path& path : files) {
        fs::remove(path, err);
        if (err)
            steps.left(fmt::format("remove {}: {}", path.string(), err.message()));
    }
    for (const fs::path& dir : {own.filename() == "tls" ? own : fs::path(), config.state_dir})
        if (!dir.empty())
            fs::remove(dir, err);  // only if it is empty
    steps.done("key, certificate, state and configuration removed");
}

}  // namespace

Exit run(const Global& global, const UninstallOptions& options) {
    const auto config = config::load_agent(options.config);
    if (!config)
        return report(global, config.error());
    Steps steps(global);
    const auto answer = ask(global.agent_socket, Json{{"cmd", "retire"}, {"tell_server", !options.local}});
    if (!answer && !options.force)
        return report(global, Error(answer.error().error).with("nothing was removed: start the agent, or use --force (disks stay tracked until the next "
                                                               "boot, and the server goes on waiting for this source)"),
                      answer.error().exit);
    if (!answer)
        steps.left(fmt::format("release the disks: {}", answer.error().error.text));
    else
        steps.done(fmt::format("{} disks released", number(*answer, "disks")));
    if (answer && !options.local && !flag(*answer, "told"))
        steps.left(fmt::format("tell the server: {}; run 'blkferry server revoke {}' there", text(*answer, "reason"), config->source));
    else if (answer && !options.local)
        steps.done("the server knows that this source is gone; it keeps the recovery points");
    const bool system = governs_system(options.config, config::agent_file);
    const auto system_step = [&](const std::vector<std::string>& words, const char* what) {
        if (const auto r = run_program(words); r)
            steps.done(what);
        else
            steps.left(fmt::format("{}: {}", what, r.error().text));
    };
    if (system)
        system_step({"systemctl", "stop", "blkferry-agent.service"}, "the agent stopped");
    if (std::error_code err; system && fs::exists("/sys/module/blkferry", err))
        system_step({"modprobe", "-r", "blkferry"}, "the module unloaded");
    remove_state(*config, options.config, steps);
    if (options.packages && system)
        system_step({"apt-get", "-y", "purge", "blkferry-agent", "blkferry-dkms"}, "packages removed (the command line program 'blkferry' stays)");
    else if (options.packages)
        steps.left("packages are removed by root, where systemd runs");
    if (global.json)
        print_json({{"ok", true}, {"complete", steps.all_done()}, {"steps", steps.rows()}});
    return steps.all_done() || options.force ? Exit::ok : Exit::failed;
}

}  // namespace blkferry::tools
