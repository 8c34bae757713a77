// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "config/config.hpp"
#include "tls/pki.hpp"
#include "tools/commands.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"
#include "tools/setup.hpp"
#include "tools/toml_edit.hpp"

namespace blkferry::tools {

namespace fs = std::filesystem;
namespace pki = tls::pki;

namespace {

constexpr const char* server_user = "blkferry";
/// The server renews it by itself.
constexpr unsigned server_days = 365;

Result<std::string> filled_in(const ServerInitOptions& options, const std::string& name) {
    std::string text = config::default_server_file();
    std::error_code err;
    if (fs::exists(options.config, err)) {
        BLKFERRY_TRY_ASSIGN(text, read_text_file(options.config, 1U << 20));
        BLKFERRY_TRY_ASSIGN(const auto now, config::parse_server(text, options.config.string()));
        if (!now.pki.empty())
            return fail(Errc::exists, fmt::format("{} names a CA already ({}); nothing was changed", options.config.string(), now.pki.string()));
    }
    const std::string stem = (options.pki / fmt::format("server-{}", name)).string();
    const std::string out = set_keys(text, {{"cert", toml_string(stem + ".pem")}, {"key", toml_string(stem + ".key")},
                                            {"ca", toml_string((options.pki / "ca.pem").string())}, {"pki", toml_string(options.pki.string())}});
    if (const auto parsed = config::parse_server(out, options.config.string()); !parsed)
        return std::unexpected(Error(parsed.error()).with("this file cannot be filled in: correct it, or move it away"));
    return out;
}

Result<void> make_ca(const ServerInitOptions& options, const std::string& name) {
    BLKFERRY_TRY(make_folder(options.pki, server_user));
    BLKFERRY_TRY(pki::init(options.pki, name));
    BLKFERRY_TRY(pki::issue(options.pki, tls::Role::server, name, server_days, options.pki));
    BLKFERRY_TRY(pki::refresh_crl(options.pki));
    // The server signs, so all of it is the server's.
    std::error_code err;
    for (const auto& entry : fs::recursive_directory_iterator(options.pki, err))
        BLKFERRY_TRY(hand_over(entry.path(), server_user));
    return {};
}

}  // namespace

Exit run(const Global& global, const ServerInitOptions& options) {
    Result<std::string> name = options.name;
    if (options.name.empty())
        name = host_name();
    else if (const auto checked = tls::check_name(options.name); !checked)
        name = std::unexpected(checked.error());
    if (!name)
        return report(global, name.error(), Exit::usage);
    const auto text = filled_in(options, *name);
    if (!text)
        return report(global, text.error());
    if (const auto made = make_ca(options, *name); !made)
        return report(global, made.error());
    std::error_code ignored;
    fs::create_directories(options.config.parent_path(), ignored);
    if (const auto written = write_file_durable(options.config, *text, 0644); !written)
        return report(global, written.error());
    const bool start = !options.no_start && governs_system(options.config, config::server_file);
    if (start)
        if (const auto started = run_program({"systemctl", "restart", "blkferry-server.service"}); !started)
            return report(global, started.error());
    const auto fingerprint = pki::ca_fingerprint(options.pki);
    if (global.json)
        print_json({{"ok", true}, {"server", *name}, {"pki", options.pki.string()}, {"config", options.config.string()},
                    {"ca_fingerprint", fingerprint.value_or("")}, {"started", start}});
    else
        print_text(fmt::format("server '{}': CA in {} (keep a copy of it safe), {} filled in\n{}", *name, options.pki.string(), options.config.string(),
                               start ? "the server runs; next: blkferry-server enroll-token\n"
                                     : "next: start the server (systemctl restart blkferry-server), then blkferry-server enroll-token\n"));
    return Exit::ok;
}

}  // namespace blkferry::tools
