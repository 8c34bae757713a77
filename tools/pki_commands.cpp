// SPDX-License-Identifier: Apache-2.0
#include <cerrno>

#include <fcntl.h>
#include <pwd.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/fd.hpp"
#include "tls/pki.hpp"
#include "tools/commands.hpp"
#include "tools/human.hpp"
#include "tools/output.hpp"

namespace blkferry::tools {

namespace pki = tls::pki;
using Json = nlohmann::json;

namespace {

std::uint64_t to_ms(std::int64_t seconds) { return seconds > 0 ? static_cast<std::uint64_t>(seconds) * 1000 : 0; }

Json to_json(const pki::Listed& l) {
    return Json{{"role", tls::to_string(l.identity.role)}, {"name", l.identity.name}, {"serial", l.serial},
                {"not_before_ms", to_ms(l.not_before)}, {"not_after_ms", to_ms(l.not_after)}, {"revoked", l.revoked}};
}

Exit print_certificates(const Global& global, const std::vector<pki::Listed>& list) {
    if (global.json) {
        Json certificates = Json::array();
        for (const auto& l : list)
            certificates.push_back(to_json(l));
        print_json(Json{{"ok", true}, {"certificates", certificates}});
        return Exit::ok;
    }
    std::vector<std::vector<std::string>> rows = {{"ROLE", "NAME", "VALID UNTIL (UTC)", "REVOKED", "SERIAL"}};
    for (const auto& l : list)
        rows.push_back({std::string(tls::to_string(l.identity.role)), l.identity.name, human_time(to_ms(l.not_after)),
                        l.revoked ? "yes" : "no", l.serial});
    print_text(rows.size() == 1 ? "no certificates\n" : table(rows));
    return Exit::ok;
}

/// A key that root makes belongs to the daemon that will read it, where its user exists: the packages make these users.
Result<void> hand_over(const std::filesystem::path& key, tls::Role role) {
    if (key.empty() || ::geteuid() != 0)
        return {};
    const passwd* user = ::getpwnam(role == tls::Role::server ? "blkferry" : "blkferry-agent");
    if (user == nullptr)
        return {};
    BLKFERRY_TRY_ASSIGN(const Fd file, open_file(key, O_RDONLY | O_NOFOLLOW));
    if (::fchown(file.get(), user->pw_uid, user->pw_gid) != 0)
        return fail_errno(errno, fmt::format("give {} to {}", key.string(), user->pw_name));
    return {};
}

}  // namespace

Exit run(const Global& global, const PkiInitOptions& options) {
    const std::string name = options.name.empty() ? "blkferry" : options.name;
    if (const auto made = pki::init(options.dir, name, options.days); !made)
        return report(global, made.error());
    const auto cert = options.dir / "ca.pem";
    if (global.json)
        print_json(Json{{"ok", true}, {"ca", cert.string()}, {"key", (options.dir / "ca.key").string()}});
    else
        print_text(fmt::format("CA '{}' made: {} goes to every source and to the server; {} stays here, keep it safe\n", name,
                               cert.string(), (options.dir / "ca.key").string()));
    return Exit::ok;
}

Exit run(const Global& global, const PkiIssueOptions& options) {
    const auto role = tls::parse_role(options.role);
    if (!role)
        return report(global, role.error(), Exit::usage);
    if (const auto checked = tls::check_name(options.name); !checked)
        return report(global, checked.error(), Exit::usage);
    const auto issued = options.request.empty()
                            ? pki::issue(options.dir, *role, options.name, options.days, options.out)
                            : pki::sign_request(options.dir, options.request, *role, options.name, options.days, options.out);
    if (!issued)
        return report(global, issued.error());
    if (const auto handed = hand_over(issued->key, *role); !handed)
        return report(global, handed.error());
    if (global.json) {
        print_json(Json{{"ok", true}, {"cert", issued->cert.string()}, {"key", issued->key.string()},
                        {"serial", issued->serial}, {"not_after_ms", to_ms(issued->not_after)}});
        return Exit::ok;
    }
    print_text(fmt::format("certificate {}{}{}, valid until {} UTC\n", issued->cert.string(), issued->key.empty() ? "" : ", key ",
                           issued->key.string(), human_time(to_ms(issued->not_after))));
    return Exit::ok;
}

Exit run(const Global& global, const PkiRevokeOptions& options) {
    std::vector<pki::Listed> revoked;
    if (!options.serial.empty()) {
        auto one = pki::revoke(options.dir, options.serial);
        if (!one)
            return report(global, one.error());
        revoked.push_back(std::move(*one));
    } else {
        const auto role = tls::parse_role(options.role);
        if (!role)
            return report(global, role.error(), Exit::usage);
        auto all = pki::revoke(options.dir, tls::Identity{*role, options.name});
        if (!all)
            return report(global, all.error());
        revoked = std::move(*all);
    }
    const Exit exit = print_certificates(global, revoked);
    if (!global.json)
        print_text(fmt::format("copy {} to the server (key crl) and reload it\n", (options.dir / "ca.crl").string()));
    return exit;
}

Exit run(const Global& global, const PkiListOptions& options) {
    const auto list = pki::list(options.dir);
    if (!list)
        return report(global, list.error());
    return print_certificates(global, *list);
}

}  // namespace blkferry::tools
