// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <optional>

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "config/config.hpp"
#include "config/units.hpp"
#include "control/client.hpp"
#include "loop/loop.hpp"
#include "loop/signals.hpp"
#include "server/configure.hpp"
#include "server/server.hpp"
#include "service/log.hpp"
#include "service/notify.hpp"

/// blkferry-server: reads its configuration, runs the server until SIGTERM or SIGINT, reloads on SIGHUP.
/// Exit status: 0 stopped as asked, 1 could not start or go on, 2 bad command line or configuration.
namespace blkferry::server {
namespace {

namespace notify = service::notify;

constexpr int exit_failed = 1;
constexpr int exit_usage = 2;
constexpr rlim_t descriptors_wanted = 65536;

/// Descriptors: as many as the system lets us have, up to what thousands of connections and chunk files need.
void raise_limits(Log& log) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = std::min(limit.rlim_max, descriptors_wanted);
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < 4096)
        log.warn("server=- event=few-descriptors limit={} text=\"set LimitNOFILE higher\"", limit.rlim_cur);
}

class Daemon {
public:
    Daemon(std::filesystem::path file, config::ServerConfig config, Log& log)
        : file_(std::move(file)), config_(std::move(config)), log_(log) {}

    Result<void> run();

private:
    void on_signal(int signal);
    void stop(const char* why);
    Result<std::pair<std::vector<std::string>, std::vector<std::string>>> reload();

    const std::filesystem::path file_;
    config::ServerConfig config_;
    Log& log_;
    SystemClock clock_;
    std::unique_ptr<loop::Loop> loop_;
    std::unique_ptr<Server> server_;
    loop::Timer watchdog_;
    bool stopping_ = false;
};

Result<void> Daemon::run() {
    BLKFERRY_TRY_ASSIGN(loop_, loop::Loop::create());
    BLKFERRY_TRY_ASSIGN(const auto signals,
                        loop::Signals::create(*loop_, {SIGTERM, SIGINT, SIGHUP}, [this](int s) { on_signal(s); }));
    raise_limits(log_);
    BLKFERRY_TRY_ASSIGN(server_, Server::create(*loop_, clock_, log_, options_of(config_)));
    server_->on_reload = [this] { return reload(); };
    if (const std::uint64_t interval = notify::watchdog_interval_ns(); interval > 0)
        watchdog_ = loop_->every(interval, [] { notify::watchdog(); });
    notify::ready(fmt::format("{} sources", server_->replicas().size()));
    auto result = loop_->run();
    server_.reset();
    return result;
}

void Daemon::on_signal(int signal) {
    if (signal != SIGHUP) {
        stop(signal == SIGTERM ? "SIGTERM" : "SIGINT");
        return;
    }
    notify::reloading();
    if (const auto r = reload(); !r)
        log_.error("server=- event=reload-failed error={}", quote(r.error()));
    notify::ready(fmt::format("{} sources", server_->replicas().size()));
}

void Daemon::stop(const char* why) {
    if (stopping_) {
        log_.warn("server=- event=stopped signal={} text=\"without a checkpoint, the next start resumes\"", why);
        loop_->stop();
        return;
    }
    stopping_ = true;
    notify::stopping();
    log_.info("server=- event=stopping signal={}", why);
    server_->stop([this] {
        log_.info("server=- event=stopped");
        loop_->stop();
    });
}

/// Takes over what can change while running. An unsound file or certificate changes nothing.
Result<std::pair<std::vector<std::string>, std::vector<std::string>>> Daemon::reload() {
    BLKFERRY_TRY_ASSIGN(const auto fresh, config::load_server(file_));
    auto changes = config::compare(config_, fresh);
    // What needs a restart stays as it runs, so that the next reload tells it again.
    config::ServerConfig next = config_;
    config::take_over(next, fresh);
    BLKFERRY_TRY(server_->reconfigure(options_of(next)));
    config_ = std::move(next);
    log_.set_level(service::level_of(config_.log_level));
    log_.info("server=- event=reloaded changed={} needs_restart={}", quote(fmt::format("{}", fmt::join(changes.changed, ","))),
              quote(fmt::format("{}", fmt::join(changes.needs_restart, ","))));
    return std::pair(std::move(changes.changed), std::move(changes.needs_restart));
}

/// What --check looks at beyond the file: certificates, and that the store's folder is there or can be made.
Result<void> check(const config::ServerConfig& config) {
    ServerOptions options = options_of(config);
    std::error_code error;
    // With pki the server makes the list at its first start.
    if (!options.pki.empty() && !std::filesystem::exists(options.tls.crl, error))
        options.tls.crl.clear();
    BLKFERRY_TRY(tls::TlsContext::make_server(options.tls));
    const auto parent = std::filesystem::exists(options.store_dir, error) ? options.store_dir : options.store_dir.parent_path();
    if (!std::filesystem::is_directory(parent, error))
        return fail(Errc::not_found, fmt::format("store {}: {} is not a folder", options.store_dir.string(), parent.string()));
    return {};
}

/// `blkferry-server enroll-token`: asks the running server, found by the configuration, as `blkferry server enroll-token` does.
int enroll_token(const config::ServerConfig& config, const std::string& source, const std::string& expires, bool json) {
    const auto failed = [&](const Error& e, int exit) {
        if (json)
            fmt::print("{}", control::to_line(control::error_message(e)));
        else
            fmt::print(stderr, "blkferry-server: {}\n", e.text);
        return exit;
    };
    const auto life = config::parse_duration_ms(expires);
    if (!life)
        return failed(life.error(), exit_usage);
    auto client = control::Client::connect(config.control_socket);
    if (!client)
        return failed(client.error(), exit_failed);
    const auto answer = client->call({{"cmd", "enroll_token"}, {"source", source}, {"life_ms", *life}});
    if (!answer)
        return failed(answer.error(), exit_failed);
    if (json)
        fmt::print("{}", control::to_line(*answer));
    else
        fmt::print("{}\n", control::need_string(*answer, "token").value_or(""));
    return 0;
}

int run(int argc, char** argv) {
    CLI::App app{"blkferry-server: receives, journals and applies the writes of protected machines", "blkferry-server"};
    std::string file = config::server_file;
    bool only_check = false;
    app.add_option("-c,--config", file, "configuration file")->capture_default_str();
    app.add_flag("--check", only_check, "check the configuration and the certificates, then exit");
    CLI::App* token = app.add_subcommand("enroll-token", "ask the running server for a one-time token with which a source enrols; print it");
    std::string source;
    std::string expires = "24h";
    bool json = false;
    token->add_option("--source", source, "only for this name, which may be known already");
    token->add_option("--expires", expires, "how long it is good: 30min, 24h, 7d")->capture_default_str();
    token->add_flag("--json", json, "print JSON");
    app.set_version_flag("-V,--version", std::string("blkferry-server " BLKFERRY_VERSION));
    app.footer("Exit status: 0 stopped as asked, 1 could not start or go on, 2 bad command line or configuration.");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : exit_usage;
    }
    const auto config = config::load_server(file);
    if (!config) {
        fmt::print(stderr, "blkferry-server: {}\n", config.error().text);
        return exit_usage;
    }
    if (token->parsed())
        return enroll_token(*config, source, expires, json);
    if (only_check) {
        const auto r = check(*config);
        if (r)
            fmt::print("{}: ok\n", file);
        else
            fmt::print(stderr, "blkferry-server: {}\n", r.error().text);
        return r ? 0 : exit_usage;
    }
    (void)std::signal(SIGPIPE, SIG_IGN);
    const auto log = service::make_stderr_log("blkferry-server");
    log->set_level(service::level_of(config->log_level));
    Daemon daemon(file, *config, *log);
    if (const auto r = daemon.run(); !r) {
        log->error("server=- event=failed code={} error={}", to_string(r.error().code), quote(r.error()));
        return exit_failed;
    }
    return 0;
}

}  // namespace
}  // namespace blkferry::server

int main(int argc, char** argv) {
    return blkferry::server::run(argc, argv);
}
