// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cerrno>
#include <cstdio>
#include <termios.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "config/config.hpp"
#include "tls/request.hpp"
#include "tools/commands.hpp"
#include "tools/enroll_client.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"
#include "tools/setup.hpp"
#include "tools/toml_edit.hpp"

namespace blkferry::tools {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr std::size_t token_text_max = 4096;
constexpr std::size_t config_bytes_max = 1U << 20;
constexpr const char* agent_user = "blkferry-agent";

Result<std::string> read_stream(int fd, std::string_view what) {
    std::string text;
    std::array<char, 512> buffer{};
    for (;;) {
        const ssize_t n = ::read(fd, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(errno, what);
        if (n == 0)
            return text;
        text.append(buffer.data(), static_cast<std::size_t>(n));
        // One line is enough: a terminal or a pipe need not end.
        if (text.find('\n') != std::string::npos)
            return text;
        if (text.size() > token_text_max)
            return fail(Errc::invalid, fmt::format("{}: too long for a token", what));
    }
}

/// Without echo: who looks over the shoulder, or scrolls back, learns nothing.
Result<std::string> ask_terminal() {
    termios before{};
    if (::tcgetattr(STDIN_FILENO, &before) != 0)
        return fail(Errc::invalid, "a token is needed: --token-file FILE, or --token-file - to read it from standard input");
    termios quiet = before;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    fmt::print(stderr, "Token: ");
    (void)std::fflush(stderr);
    (void)::tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    auto text = read_stream(STDIN_FILENO, "terminal");
    (void)::tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
    fmt::print(stderr, "\n");
    return text;
}

Result<proto::Token> token_of(const EnrollOptions& options) {
    if (!options.token.empty()) {
        fmt::print(stderr, "blkferry: warning: a token among the arguments can be read by every user of this machine while it runs and stays in the "
                           "shell's history; use --token-file (- reads standard input)\n");
        return proto::Token::parse(options.token);
    }
    Result<std::string> text;
    if (options.token_file.empty())
        text = ask_terminal();
    else if (options.token_file == "-")
        text = read_stream(STDIN_FILENO, "standard input");
    else
        text = read_text_file(options.token_file, token_text_max);
    if (!text)
        return std::unexpected(std::move(text).error());
    return proto::Token::parse(*text);
}

Result<std::string> source_name(const EnrollOptions& options) {
    if (options.source.empty())
        return host_name();
    BLKFERRY_TRY(tls::check_name(options.source));
    return options.source;
}

/// The key of an attempt that did not end: the server answers the same key again, should its first answer have been lost.
Result<tls::Request> request_in(const fs::path& pending, const tls::Identity& identity) {
    std::error_code err;
    if (fs::exists(pending, err)) {
        BLKFERRY_TRY_ASSIGN(const std::string key, tls::read_key_file(pending));
        return tls::make_request(identity, key, pending.string());
    }
    BLKFERRY_TRY_ASSIGN(auto request, tls::make_request(identity));
    BLKFERRY_TRY(write_file_durable(pending, request.key_pem, 0600));
    return request;
}

struct Enrolled {
    fs::path cert;
    fs::path ca;
    std::string server;
};

Result<Enrolled> enrol(const EnrollOptions& options, const config::Endpoint& server, const std::optional<net::Proxy>& proxy,
                       const proto::Token& token, const tls::Identity& identity) {
    BLKFERRY_TRY(make_folder(options.dir, agent_user));
    if (options.dir.filename() == "tls")  // the agent's state folder, not made by a first start yet
        BLKFERRY_TRY(hand_over(options.dir.parent_path(), agent_user));
    const fs::path pending = options.dir / "source.pending";
    BLKFERRY_TRY_ASSIGN(const auto request, request_in(pending, identity));
    BLKFERRY_TRY_ASSIGN(const auto reply, ask_for_certificate(server, proxy, token,
                                                              {.source = identity.name, .csr = request.csr_pem, .token_id = token.id,
                                                               .token_secret = token.secret, .agent_version = BLKFERRY_VERSION}));
    BLKFERRY_TRY(tls::check_certificate(reply.cert, request.key_pem, reply.ca, identity));
    Enrolled out{options.dir / "source.pem", options.dir / "ca.pem", reply.server};
    BLKFERRY_TRY(write_file_durable(out.ca, reply.ca, 0644));
    // Key and certificate in one file: the agent renews both with one rename.
    BLKFERRY_TRY(write_file_durable(out.cert, request.key_pem + reply.cert, 0600));
    BLKFERRY_TRY(hand_over(out.ca, agent_user));
    BLKFERRY_TRY(hand_over(out.cert, agent_user));
    std::error_code ignored;
    fs::remove(pending, ignored);
    return out;
}

/// agent.toml with what is known now; nothing else in it changes.
Result<std::string> new_config(const EnrollOptions& options, const config::Endpoint& server, const std::string& source,
                               const std::string& server_name) {
    std::string text = config::default_agent_file();
    std::error_code err;
    if (fs::exists(options.config, err)) {
        BLKFERRY_TRY_ASSIGN(text, read_text_file(options.config, config_bytes_max));
    }
    const std::string cert = toml_string((options.dir / "source.pem").string());
    std::vector<std::pair<std::string, std::string>> keys = {
        {"server", toml_string(server.str())}, {"source", toml_string(source)}, {"cert", cert}, {"key", cert},
        {"ca", toml_string((options.dir / "ca.pem").string())}};
    if (!server_name.empty())
        keys.emplace_back("server_name", toml_string(server_name));
    if (!options.proxy.empty()) {
        keys.emplace_back("proxy", toml_string(options.proxy));
        if (!options.proxy_password_file.empty())
            keys.emplace_back("proxy_password_file", toml_string(options.proxy_password_file.string()));
    }
    const std::string out = set_keys(text, keys);
    const auto parsed = config::parse_agent(out, options.config.string());
    if (!parsed)
        return std::unexpected(Error(parsed.error()).with("this file cannot be filled in: correct it, or move it away"));
    return out;
}

}  // namespace

Exit run(const Global& global, const EnrollOptions& options) {
    const auto server = config::parse_endpoint(options.server, config::default_port);
    if (!server)
        return report(global, server.error(), Exit::usage);
    const auto source = source_name(options);
    if (!source)
        return report(global, source.error(), Exit::usage);
    std::optional<net::Proxy> proxy;
    if (!options.proxy.empty()) {
        auto made = net::make_proxy(options.proxy, options.proxy_password_file);
        if (!made)
            return report(global, made.error(), Exit::usage);
        proxy = std::move(*made);
    }
    // What can go wrong here goes wrong before the token is used.
    if (const auto possible = new_config(options, *server, *source, {}); !possible)
        return report(global, possible.error());
    const auto token = token_of(options);
    if (!token)
        return report(global, token.error(), Exit::usage);
    const auto enrolled = enrol(options, *server, proxy, *token, {tls::Role::source, *source});
    if (!enrolled)
        return report(global, enrolled.error());
    const auto text = new_config(options, *server, *source, enrolled->server);
    if (!text)
        return report(global, text.error());
    std::error_code ignored;
    fs::create_directories(options.config.parent_path(), ignored);
    if (const auto written = write_file_durable(options.config, *text, 0644); !written)
        return report(global, written.error());
    const bool started = !options.no_start && governs_system(options.config, config::agent_file);
    if (started)
        if (const auto r = run_program({"systemctl", "restart", "blkferry-agent.service"}); !r)
            return report(global, Error(r.error()).with("enrolled, but the agent did not start ('systemctl status blkferry-agent' says why)"));
    if (global.json) {
        print_json(Json{{"ok", true}, {"source", *source}, {"server", enrolled->server}, {"cert", enrolled->cert.string()},
                        {"ca", enrolled->ca.string()}, {"config", options.config.string()}, {"started", started}});
        return Exit::ok;
    }
    print_text(fmt::format("source '{}' is enrolled at server '{}' ({}); {} is filled in\n{}", *source, printable(enrolled->server), server->str(),
                           options.config.string(),
                           started ? "the agent runs; next: blkferry protect --all\n"
                                    : "next: start the agent (systemctl restart blkferry-agent), then blkferry protect --all\n"));
    return Exit::ok;
}

}  // namespace blkferry::tools
