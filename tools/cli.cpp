// SPDX-License-Identifier: Apache-2.0
#include "tools/cli.hpp"

#include <CLI/CLI.hpp>

#include "config/config.hpp"

namespace blkferry::tools {

namespace {

constexpr const char* about = "Continuous block replication: shows and steers the agent of this source, and the server.";
constexpr const char* footer = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 the daemon does not answer, 4 a verification found "
                               "differences.\nEvery command takes --json and --help. The manual is blkferry(1).";

/// Builds the tree of commands over one Parsed; every command's callback puts its options into it.
class Tree {
public:
    explicit Tree(Parsed& parsed) : parsed_(parsed), app_(about, "blkferry") {
        app_.footer(footer);
        app_.set_version_flag("--version", std::string("blkferry ") + BLKFERRY_VERSION);
        app_.require_subcommand(0, 1);
        app_.option_defaults()->always_capture_default(false);
        parsed_.global.agent_socket = config::agent_socket;
        parsed_.global.server_socket = config::server_socket;
        add_agent();
        add_points();
        add_server();
        add_enroll();
        add_uninstall();
        add_pki();
        add_config();
        add_completion();
    }
    CLI::App& app() { return app_; }

private:
    template <class Options>
    CLI::App* add(CLI::App& parent, Options& options, const std::string& name, const std::string& help) {
        CLI::App* command = parent.add_subcommand(name, help);
        command->add_flag("--json", parsed_.global.json, "Print JSON: one object a line");
        command->callback([this, &options] { parsed_.command = options; });
        return command;
    }
    void agent_socket(CLI::App* command) {
        command->add_option("--socket", parsed_.global.agent_socket, "Control socket of the agent")->type_name("PATH");
    }
    void server_socket(CLI::App* command) {
        command->add_option("--socket", parsed_.global.server_socket, "Control socket of the server")->type_name("PATH");
    }

    void add_agent() {
        CLI::App* c = add(app_, status_, "status", "Show source, disks, state, backlog, lag and rates");
        c->add_flag("--watch", status_.watch, "Go on until interrupted");
        c->add_option("--interval", status_.interval_s, "Seconds between two rounds of --watch (1)")
            ->type_name("SECONDS")
            ->check(CLI::Range(0.1, 3600.0));
        agent_socket(c);
        agent_socket(add(app_, disks_, "disks", "Show what can be protected here, and why not"));
        c = add(app_, protect_, "protect", "Protect disks: replicate them from now on");
        CLI::Option* devices = c->add_option("DEVICE", protect_.devices, "Whole disks, for example /dev/vda")->expected(1, 64)->type_name("");
        c->add_flag("--all", protect_.all, "All disks of this machine that can be; shows which, and why not the others")->excludes(devices);
        c->add_flag("--no-replication", protect_.no_replication, "Only register them: nothing is tracked or shipped yet");
        c->add_flag("--dry-run", protect_.dry_run, "Show what --all would do, and do nothing");
        c->parse_complete_callback([this] {
            if (!protect_.all && protect_.devices.empty())
                throw CLI::ValidationError("protect", "a DEVICE, or --all, is needed");
            if (!protect_.all && protect_.dry_run)
                throw CLI::ValidationError("protect", "--dry-run goes with --all");
        });
        agent_socket(c);
        c = add(app_, unprotect_, "unprotect", "Stop replicating disks; the server keeps what it has");
        c->add_option("DEVICE", unprotect_.devices, "Protected disks")->required()->expected(1, 64)->type_name("");
        agent_socket(c);
        c = add(app_, throttle_, "throttle", "Show or set the limit of the wire");
        c->add_option("RATE", throttle_.rate, "20mbit, 512kbit, 2mbyte, ...; 0 = unlimited; nothing: show it")->type_name("");
        agent_socket(c);
    }

    void add_points() {
        CLI::App* c = add(app_, mark_, "mark", "Make a recovery point of this very moment");
        c->add_flag("--fs", mark_.fs, "Freeze the file systems for the moment of the cut");
        c->add_option("--name", mark_.name, "Name of the recovery point")->type_name("NAME");
        agent_socket(c);
        c = add(app_, points_, "points", "List recovery points of the server");
        c->add_option("--source", points_.source, "Only of this source")->type_name("SOURCE");
        server_socket(c);
        c = add(app_, delete_, "delete", "Delete a recovery point of the server; refused while it is locked");
        c->add_option("POINT", delete_.point, "Name of the point, or SOURCE/NAME")->required()->type_name("");
        server_socket(c);
        c = add(app_, verify_, "verify", "Compare a recovery point with its digests, or the source with its replica");
        c->add_option("POINT", verify_.point, "Name of the point, or SOURCE/NAME (asks the server)")->type_name("");
        c->add_flag("--source", verify_.source, "Compare the source's disks with the replica (asks the agent)");
        c->add_option("--agent-socket", parsed_.global.agent_socket, "Control socket of the agent")->type_name("PATH");
        server_socket(c);
        c->parse_complete_callback([this] {
            if (verify_.source != verify_.point.empty())
                throw CLI::ValidationError("verify", "either a POINT or --source is needed");
        });
        c = add(app_, export_, "export", "Write one disk of a recovery point to a new image file");
        c->add_option("POINT", export_.point, "Name of the point, or SOURCE/NAME")->required()->type_name("");
        c->add_option("FILE", export_.file, "Where to; must not exist (a block device may)")->required()->type_name("");
        c->add_option("--slot", export_.slot, "Which disk, if the point has several")->type_name("SLOT")->check(CLI::Range(0, 65535));
        c->add_option("--store", export_.store, "Read this store folder without asking the server; POINT is SOURCE/NAME")->type_name("DIR");
        server_socket(c);
    }

    void add_server() {
        CLI::App* group = app_.add_subcommand("server", "Commands about the server");
        group->require_subcommand(0, 1);
        server_socket(add(*group, server_status_, "status", "Show the server, its store and its sources"));
        CLI::App* c = add(*group, server_init_, "init", "Make this machine a server: CA, certificate, configuration");
        c->add_option("NAME", server_init_.name, "Name of the server (the host's name)")->type_name("");
        c->add_option("--pki", server_init_.pki, "Folder of the CA (/var/lib/blkferry/pki)")->type_name("DIR");
        c->add_option("--config", server_init_.config, "Configuration to fill in (/etc/blkferry/server.toml)")->type_name("FILE");
        c->add_flag("--no-start", server_init_.no_start, "Leave the server as it is");
        c = add(*group, enroll_token_, "enroll-token", "Make a one-time token with which a source enrols");
        c->add_option("--source", enroll_token_.source, "Only for this name, which may be known already")->type_name("NAME");
        c->add_option("--expires", enroll_token_.expires, "How long it is good: 30min, 24h, 7d (24h)")->type_name("TIME");
        server_socket(c);
        server_socket(add(*group, tokens_, "tokens", "List the tokens"));
        c = add(*group, token_revoke_, "revoke-token", "Make a token void");
        c->add_option("ID", token_revoke_.id, "As 'tokens' lists it")->required()->type_name("");
        server_socket(c);
        c = add(*group, revoke_, "revoke", "Revoke a source's certificates and end its connection at once");
        c->add_option("SOURCE", revoke_.source, "Name of the source")->required()->type_name("");
        server_socket(c);
    }

    void add_uninstall() {
        CLI::App* c = add(app_, uninstall_, "uninstall", "Take this machine out: release its disks, tell the server, remove key and state");
        c->add_flag("--local", uninstall_.local, "Say nothing to the server: on a launched machine, whose source goes on");
        c->add_flag("--force", uninstall_.force, "Go on where agent or server cannot be told");
        c->add_flag("--packages", uninstall_.packages, "Remove the packages too (apt-get purge)");
        c->add_option("--config", uninstall_.config, "Configuration of the agent (/etc/blkferry/agent.toml)")->type_name("FILE");
        agent_socket(c);
    }

    void add_enroll() {
        CLI::App* c = add(app_, enroll_, "enroll", "Make this machine a source of a server: key, certificate, configuration");
        c->add_option("SERVER", enroll_.server, "Where the server listens: name or address, with :port if it is not 1500")->required()->type_name("");
        CLI::Option* file = c->add_option("--token-file", enroll_.token_file, "File with the one-time token; -: standard input")->type_name("FILE");
        c->add_option("--token", enroll_.token, "The token itself; other users can see it: better --token-file")->type_name("TOKEN")->excludes(file);
        c->add_option("--source", enroll_.source, "Name of this source (the host's name)")->type_name("NAME");
        c->add_option("--proxy", enroll_.proxy, "HTTP proxy: http://[USER@]HOST[:PORT]")->type_name("URL");
        c->add_option("--proxy-password-file", enroll_.proxy_password_file, "File with the proxy user's password")->type_name("FILE");
        c->add_option("--dir", enroll_.dir, "Folder for key and certificates (/var/lib/blkferry/agent/tls)")->type_name("DIR");
        c->add_option("--config", enroll_.config, "Configuration to fill in (/etc/blkferry/agent.toml)")->type_name("FILE");
        c->add_flag("--no-start", enroll_.no_start, "Leave the agent as it is");
    }

    void add_pki() {
        CLI::App* group = app_.add_subcommand("pki", "A small CA for the certificates of sources and server");
        group->require_subcommand(0, 1);
        const auto directory = [](CLI::App* c, std::filesystem::path& dir) {
            c->add_option("DIR", dir, "Folder of the CA")->required()->type_name("");
        };
        CLI::App* c = add(*group, pki_init_, "init", "Make a CA");
        directory(c, pki_init_.dir);
        c->add_option("--name", pki_init_.name, "Name of the CA (blkferry)")->type_name("NAME");
        c->add_option("--days", pki_init_.days, "Days that it is valid (3650)")->type_name("DAYS")->check(CLI::Range(1U, 3650U));
        c = add(*group, pki_issue_, "issue", "Make a key and a certificate, or sign a request");
        directory(c, pki_issue_.dir);
        c->add_option("ROLE", pki_issue_.role, "source or server")->required()->type_name("")->check(CLI::IsMember({"source", "server"}, CLI::ignore_case).description(""));
        c->add_option("NAME", pki_issue_.name, "Name of the source or server")->required()->type_name("");
        c->add_option("--days", pki_issue_.days, "Days that it is valid (825)")->type_name("DAYS")->check(CLI::Range(1U, 3650U));
        c->add_option("--out", pki_issue_.out, "Folder for the files (.)")->type_name("DIR");
        c->add_option("--request", pki_issue_.request, "Sign the key of this certificate request (PEM)")->type_name("FILE");
        c = add(*group, pki_revoke_, "revoke", "Revoke certificates: write the revocation list ca.crl");
        directory(c, pki_revoke_.dir);
        CLI::Option* serial = c->add_option("--serial", pki_revoke_.serial, "The one with this serial")->type_name("HEX");
        CLI::Option* role = c->add_option("ROLE", pki_revoke_.role, "source or server")->type_name("")->check(CLI::IsMember({"source", "server"}, CLI::ignore_case).description(""));
        CLI::Option* name = c->add_option("NAME", pki_revoke_.name, "All of this source or server")->type_name("");
        serial->excludes(role)->excludes(name);
        c->parse_complete_callback([this] {
            if (pki_revoke_.serial.empty() && pki_revoke_.name.empty())
                throw CLI::ValidationError("revoke", "ROLE and NAME, or --serial, are needed");
        });
        c = add(*group, pki_list_, "list", "List what the CA issued");
        directory(c, pki_list_.dir);
    }

    void add_config() {
        CLI::App* group = app_.add_subcommand("config", "Check configuration files, print their defaults");
        group->require_subcommand(0, 1);
        const auto part = [](CLI::App* c, std::string& target) {
            c->add_option("PART", target, "agent or server")->required()->type_name("")->check(CLI::IsMember({"agent", "server"}).description(""));
        };
        CLI::App* c = add(*group, config_check_, "check", "Check a configuration file");
        part(c, config_check_.part);
        c->add_option("FILE", config_check_.file, "The file (/etc/blkferry/PART.toml)")->type_name("");
        part(add(*group, config_default_, "default", "Print a file with every key and its default"), config_default_.part);
    }

    void add_completion() {
        CLI::App* c = add(app_, completion_, "completion", "Print the completions for a shell");
        c->add_option("SHELL", completion_.shell, "bash, zsh or fish")->required()->type_name("")->check(CLI::IsMember({"bash", "zsh", "fish"}).description(""));
    }

    Parsed& parsed_;
    CLI::App app_;
    StatusOptions status_;
    DisksOptions disks_;
    ProtectOptions protect_;
    UnprotectOptions unprotect_;
    MarkOptions mark_;
    ThrottleOptions throttle_;
    PointsOptions points_;
    DeleteOptions delete_;
    VerifyOptions verify_;
    ExportOptions export_;
    ServerStatusOptions server_status_;
    EnrollTokenOptions enroll_token_;
    TokensOptions tokens_;
    TokenRevokeOptions token_revoke_;
    RevokeOptions revoke_;
    EnrollOptions enroll_;
    UninstallOptions uninstall_;
    ServerInitOptions server_init_;
    PkiInitOptions pki_init_;
    PkiIssueOptions pki_issue_;
    PkiRevokeOptions pki_revoke_;
    PkiListOptions pki_list_;
    ConfigCheckOptions config_check_;
    ConfigDefaultOptions config_default_;
    CompletionOptions completion_;
};

}  // namespace

namespace {

CommandWord describe(const CLI::App& app) {
    CommandWord out{app.get_name(), app.get_description(), {}, {}, {}};
    for (const CLI::Option* option : app.get_options()) {
        if (option->nonpositional())
            out.options.push_back({"--" + option->get_lnames().front(),
                                   option->get_items_expected_max() == 0 ? std::string() : option->get_type_name(),
                                   option->get_description()});
        else
            out.arguments.push_back(option->get_name());
    }
    for (const CLI::App* command : app.get_subcommands({}))
        out.commands.push_back(describe(*command));
    return out;
}

}  // namespace

CommandWord command_tree() {
    Parsed unused;
    return describe(Tree(unused).app());
}

Parsed parse_command_line(int argc, const char* const* argv) {
    Parsed parsed;
    Tree tree(parsed);
    try {
        tree.app().parse(argc, argv);
        // Asked here and not of CLI11, which would not name a word that is no command.
        if (!parsed.command)
            throw CLI::RequiredError("A command");
    } catch (const CLI::ParseError& err) {
        std::ostringstream out;
        std::ostringstream error;
        const int code = tree.app().exit(err, out, error);
        parsed.command.reset();
        parsed.text = out.str() + error.str();
        parsed.exit = code == 0 ? Exit::ok : Exit::usage;
    }
    return parsed;
}

}  // namespace blkferry::tools
