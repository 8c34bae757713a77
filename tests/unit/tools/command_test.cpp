// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <thread>

#include <nlohmann/json.hpp>

#include "control/server.hpp"
#include "run.hpp"
#include "tools/toml_edit.hpp"

using namespace blkferry;
using namespace blkferry::tools::test;
using Json = nlohmann::json;
using Words = std::vector<std::string>;

namespace {

/// A real control server in a thread; the handlers stand for a daemon.
class Daemon {
public:
    Daemon() {
        std::string name = "/tmp/blkferry-tools-XXXXXX";
        BOOST_REQUIRE(::mkdtemp(name.data()) != nullptr);
        dir_ = name;
        loop_ = std::move(*loop::Loop::create());
        server_ = std::move(*control::ControlServer::create(*loop_, socket()));
        thread_ = std::thread([this] { (void)loop_->run(); });
    }
    ~Daemon() {
        loop_->stop();
        thread_.join();
        server_.reset();
        std::error_code err;
        std::filesystem::remove_all(dir_, err);
    }
    void on(const std::string& command, const Json& answer, const std::vector<Json>& lines = {}) {
        loop_->post([this, command, answer, lines] {
            server_->on(command, [this, answer, lines](const Json& request, control::Reply reply) {
                requests.push_back(request);
                for (const Json& line : lines)
                    reply.line(line);
                if (answer.contains("code"))
                    reply.fail(control::error_of(answer));
                else
                    reply.done(answer);
            });
        });
    }
    [[nodiscard]] std::string socket() const { return (dir_ / "d.sock").string(); }
    [[nodiscard]] const std::filesystem::path& dir() const { return dir_; }
    std::vector<Json> requests;  ///< read after the program ended

private:
    std::filesystem::path dir_;
    std::unique_ptr<loop::Loop> loop_;
    std::unique_ptr<control::ControlServer> server_;
    std::thread thread_;
};

Words with(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

// Arguments that are enough for each command that asks a daemon.
const std::map<std::string, Words> daemon_commands = {
    {"status", {"status"}}, {"disks", {"disks"}}, {"protect", {"protect", "/dev/vda"}}, {"unprotect", {"unprotect", "vda"}},
    {"throttle", {"throttle"}}, {"mark", {"mark"}}, {"points", {"points"}}, {"delete", {"delete", "p1"}}, {"verify", {"verify", "p1"}},
    {"export", {"export", "p1", "/tmp/none.img"}}, {"server status", {"server", "status"}}, {"server tokens", {"server", "tokens"}},
    {"server enroll-token", {"server", "enroll-token"}}, {"server revoke-token", {"server", "revoke-token", "00"}},
    {"server revoke", {"server", "revoke", "web1"}}, {"protect --all", {"protect", "--all"}}};

}  // namespace

BOOST_AUTO_TEST_SUITE(command)

BOOST_AUTO_TEST_CASE(every_command_has_help) {
    for (const Words& words : all_commands()) {
        const Ran r = run_blkferry(with(words, {"--help"}));
        BOOST_TEST_CONTEXT(words.back()) {
            BOOST_TEST(r.exit == 0);
            BOOST_TEST(r.out.find("Usage: blkferry " + words.front()) != std::string::npos);
            BOOST_TEST(r.out.find("Exit status:") != std::string::npos);
            BOOST_TEST(r.err.empty());
        }
    }
    BOOST_TEST(run_blkferry({"--help"}).exit == 0);
    const Ran version = run_blkferry({"--version"});
    BOOST_TEST(version.exit == 0);
    BOOST_TEST(version.out == "blkferry " BLKFERRY_VERSION "\n");
}

BOOST_AUTO_TEST_CASE(wrong_usage_is_two_and_prints_nothing_on_stdout) {
    std::vector<Words> wrong = {{}, {"nonsense"}, {"pki"}, {"pki", "nonsense"}, {"server"}, {"config"}, {"--nonsense"}, {"protect"},
                                {"unprotect"}, {"delete"}, {"verify"}, {"verify", "p1", "--source"}, {"export"}, {"export", "p1"},
                                {"pki", "init"}, {"pki", "issue", "/tmp/x"}, {"pki", "issue", "/tmp/x", "admin", "y"},
                                {"pki", "issue", "/tmp/x", "source", "../y"}, {"pki", "issue", "/tmp/x", "source", "y", "--days", "0"},
                                {"pki", "revoke", "/tmp/x"}, {"pki", "list"}, {"config", "check"}, {"config", "default", "x"},
                                {"protect", "/dev/vda", "--all"}, {"protect", "/dev/vda", "--dry-run"}, {"enroll"}, {"enroll", "s", "--token", "x"},
                                {"enroll", "s", "--token", "x", "--token-file", "y"}, {"enroll", "s:99999", "--token-file", "/dev/null"},
                                {"enroll", "s", "--source", "../x", "--token-file", "/dev/null"}, {"server", "revoke"}, {"server", "init", "../x"},
                                {"enroll", "s", "--proxy", "http://u:p@h", "--token-file", "/dev/null"}, {"server", "enroll-token", "--expires", "soon"},
                                {"throttle", "20"}, {"throttle", "fast"}, {"status", "--interval", "0"}, {"mark", "--name", "a/b"}};
    for (const Words& words : all_commands())
        wrong.push_back(with(words, {"--no-such-option"}));
    for (const Words& words : wrong) {
        const Ran r = run_blkferry(words);
        std::string shown;
        for (const std::string& w : words)
            shown += w + " ";
        BOOST_TEST_CONTEXT(shown) {
            BOOST_TEST(r.exit == 2);
            BOOST_TEST(r.out.empty());
            BOOST_TEST(!r.err.empty());
        }
    }
    BOOST_TEST(run_blkferry({"nonsense"}).err.find("nonsense") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(a_daemon_that_does_not_answer_is_three) {
    for (const auto& [name, words] : daemon_commands) {
        BOOST_TEST_CONTEXT(name) {
            const Ran r = run_blkferry(with(words, {"--socket", "/nonexistent/d.sock"}));
            BOOST_TEST(r.exit == 3);
            BOOST_TEST(r.out.empty());
            BOOST_TEST(r.err.find("/nonexistent/d.sock") != std::string::npos);
            const Ran json = run_blkferry(with(words, {"--json", "--socket", "/nonexistent/d.sock"}));
            BOOST_TEST(json.exit == 3);
            const Json message = Json::parse(json.out, nullptr, false);
            BOOST_TEST(message["ok"] == false);
            BOOST_TEST(message["code"] == "not-found");
        }
    }
    BOOST_TEST(run_blkferry({"verify", "--source", "--agent-socket", "/nonexistent/d.sock"}).exit == 3);
}

BOOST_AUTO_TEST_CASE(an_error_of_the_daemon_is_one) {
    Daemon d;
    const Json error = {{"code", "conflict"}, {"error", "not now"}};
    for (const char* command : {"status", "disks", "protect", "unprotect", "throttle", "mark", "points", "tokens", "enroll_token", "token_revoke",
                                "revoke"})
        d.on(command, error);
    for (const auto& [name, words] : daemon_commands) {
        BOOST_TEST_CONTEXT(name) {
            const Ran r = run_blkferry(with(words, {"--socket", d.socket()}));
            BOOST_TEST(r.exit == 1);
            BOOST_TEST(r.err.find("not now") != std::string::npos);
        }
    }
}

BOOST_AUTO_TEST_CASE(requests_are_as_documented) {
    Daemon d;
    for (const char* command : {"protect", "throttle", "mark"})
        d.on(command, Json::object());
    BOOST_TEST(run_blkferry({"protect", "/dev/vda", "vdb", "--socket", d.socket()}).exit == 0);
    BOOST_TEST(run_blkferry({"throttle", "20mbit", "--socket", d.socket()}).exit == 0);
    BOOST_TEST(run_blkferry({"throttle", "--socket", d.socket()}).exit == 0);
    BOOST_TEST(run_blkferry({"mark", "--fs", "--name", "n1", "--socket", d.socket()}).exit == 0);
    BOOST_REQUIRE_EQUAL(d.requests.size(), 4u);
    BOOST_TEST((d.requests[0] == Json{{"cmd", "protect"}, {"devices", {"/dev/vda", "vdb"}}}));
    BOOST_TEST((d.requests[1] == Json{{"cmd", "throttle"}, {"rate_bytes", 2'500'000}}));
    BOOST_TEST((d.requests[2] == Json{{"cmd", "throttle"}}));
    BOOST_TEST((d.requests[3] == Json{{"cmd", "mark"}, {"fs", true}, {"name", "n1"}}));
}

BOOST_AUTO_TEST_CASE(all_disks_are_shown_and_asked_for) {
    Daemon d;
    const auto disk = [](const char* device, bool is_protected, bool can, const char* reason, const char* left_out) {
        return Json{{"device", device}, {"size_bytes", 4096}, {"protected", is_protected}, {"registered", is_protected},
                    {"protectable", can}, {"reason", reason}, {"left_out", left_out}};
    };
    d.on("disks", {{"disks", {disk("/dev/vda", false, true, "", ""), disk("/dev/vda1", false, false, "it is a partition", ""),
                              disk("/dev/vdb", false, false, "it is swap space", ""), disk("/dev/sdc", false, true, "", "it is removable"),
                              disk("/dev/vdd", true, false, "it is protected already", "")}}});
    d.on("protect", {{"disks", Json::array()}});
    const Ran dry = run_blkferry({"protect", "--all", "--dry-run", "--socket", d.socket()});
    BOOST_TEST(dry.exit == 0);
    for (const char* part : {"/dev/vda ", "it is a partition", "it is swap space", "it is removable", "protected already", "nothing was done"})
        BOOST_TEST(dry.out.find(part) != std::string::npos, part << " is not in " << dry.out);
    BOOST_TEST(run_blkferry({"protect", "--all", "--socket", d.socket()}).exit == 0);
    const Ran json = run_blkferry({"protect", "--all", "--no-replication", "--json", "--socket", d.socket()});
    BOOST_TEST(Json::parse(json.out, nullptr, false)["choices"].size() == 5u);
    BOOST_REQUIRE_EQUAL(d.requests.size(), 5u);
    BOOST_TEST((d.requests[2] == Json{{"cmd", "protect"}, {"devices", {"/dev/vda"}}}));
    BOOST_TEST((d.requests[4] == Json{{"cmd", "protect"}, {"devices", {"/dev/vda"}}, {"replicate", false}}));
    Daemon none;
    none.on("disks", {{"disks", {disk("/dev/vdb", false, false, "it is swap space", "")}}});
    const Ran nothing = run_blkferry({"protect", "--all", "--socket", none.socket()});
    BOOST_TEST(nothing.exit == 1);
    BOOST_TEST(nothing.out.find("swap") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(configuration_is_filled_in_and_kept) {
    using blkferry::tools::set_keys;
    BOOST_TEST(set_keys("# server = \"prose\"\n#server = \"old\"\nsource = \"a\" # mine\n[table]\n", {{"server", "\"s\""}, {"source", "\"b\""}, {"ca", "\"c\""}}) ==
               "# server = \"prose\"\nserver = \"s\"\nsource = \"b\"\n[table]\nca = \"c\"\n");
    BOOST_TEST(set_keys("#key = 1\nkey = 2\nkeys = 3", {{"key", "4"}}) == "#key = 1\nkey = 4\nkeys = 3\n");
    BOOST_TEST(blkferry::tools::toml_string("a\"\\\n") == "\"a\\\"\\\\\\u000a\"");
    Daemon d;  // for its folder
    const std::string file = (d.dir() / "server.toml").string();
    std::ofstream(file) << "# mine\npoints_keep = 7\n";
    const Words init = {"server", "init", "backup1", "--pki", (d.dir() / "pki").string(), "--config", file};
    BOOST_TEST(run_blkferry(init).exit == 0);
    BOOST_TEST(run_blkferry({"config", "check", "server", file}).exit == 0);
    std::ifstream in(file);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    BOOST_TEST(text.find("# mine\npoints_keep = 7\n") == 0u);
    BOOST_TEST(run_blkferry(init).exit == 1);  // nothing is overwritten
    const auto perms = [](const std::filesystem::path& p) { return std::filesystem::status(p).permissions() & std::filesystem::perms(077); };
    BOOST_TEST((perms(d.dir() / "pki") == std::filesystem::perms::none));
    BOOST_TEST((perms(d.dir() / "pki" / "ca.key") == std::filesystem::perms::none));
    BOOST_TEST((perms(d.dir() / "pki" / "server-backup1.key") == std::filesystem::perms::none));
}

BOOST_AUTO_TEST_CASE(a_token_among_the_arguments_is_warned_of) {
    Daemon d;  // for its folder
    const std::string token = "bf1-" + std::string(16, 'a') + "-" + std::string(32, '1') + "-" + std::string(64, 'f');
    const Ran r = run_blkferry({"enroll", "127.0.0.1:1", "--source", "web1", "--token", token, "--dir", (d.dir() / "tls").string(), "--config",
                                (d.dir() / "agent.toml").string()});
    BOOST_TEST(r.exit == 1);
    BOOST_TEST(r.err.find("--token-file") != std::string::npos);
    BOOST_TEST((r.out + r.err).find(std::string(32, '1')) == std::string::npos);
    BOOST_TEST(!std::filesystem::exists(d.dir() / "agent.toml"));
}

BOOST_AUTO_TEST_CASE(verdicts) {
    Daemon d;
    d.on("points", {{"points", {{{"source", "a"}, {"point", "p"}}, {{"source", "b"}, {"point", "p"}}, {{"source", "a"}, {"point", "q"}}}}});
    d.on("verify_point", {{"equal", true}, {"compared_bytes", 4096}, {"differing_bytes", 0}},
         {{{"progress", {{"done_bytes", 1}, {"total_bytes", 2}}}}});
    d.on("verify_source", {{"equal", false}, {"compared_bytes", 4096}, {"differing_bytes", 512},
                           {"ranges", {{{"device", "/dev/vda"}, {"offset", 0}, {"bytes", 512}}}}});
    const Ran equal = run_blkferry({"verify", "q", "--socket", d.socket()});
    BOOST_TEST(equal.exit == 0);
    BOOST_TEST(equal.out.find("a/q: equal") != std::string::npos);
    BOOST_TEST(equal.err.find("verify: [") != std::string::npos);
    BOOST_TEST(equal.err.find('\r') == std::string::npos);  // plain lines in a pipe
    const Ran differs = run_blkferry({"verify", "--source", "--agent-socket", d.socket()});
    BOOST_TEST(differs.exit == 4);
    BOOST_TEST(differs.out.find("DIFFERS") != std::string::npos);
    BOOST_TEST(run_blkferry({"verify", "--source", "--json", "--agent-socket", d.socket()}).exit == 4);
    const Ran twice = run_blkferry({"verify", "p", "--socket", d.socket()});
    BOOST_TEST(twice.exit == 1);
    BOOST_TEST(twice.err.find("a/p b/p") != std::string::npos);
    BOOST_TEST(run_blkferry({"verify", "none", "--socket", d.socket()}).exit == 1);
    // An answer that does not say "equal" proves nothing.
    Daemon silent;
    silent.on("verify_point", Json::object());
    BOOST_TEST(run_blkferry({"verify", "a/p", "--socket", silent.socket()}).exit == 4);
}

BOOST_AUTO_TEST_CASE(pki_and_config_work_on_files) {
    Daemon d;  // for its folder
    const std::string ca = (d.dir() / "ca").string();
    const std::string out = (d.dir() / "out").string();
    BOOST_TEST(run_blkferry({"pki", "init", ca}).exit == 0);
    BOOST_TEST(run_blkferry({"pki", "init", ca}).exit == 1);
    BOOST_TEST(run_blkferry({"pki", "issue", ca, "server", "replica", "--out", out}).exit == 0);
    BOOST_TEST(run_blkferry({"pki", "issue", ca, "source", "web1", "--out", out, "--json"}).exit == 0);
    BOOST_TEST(run_blkferry({"pki", "issue", ca, "source", "web1", "--out", out}).exit == 1);
    BOOST_TEST(std::filesystem::exists(out + "/source-web1.key"));
    BOOST_TEST(run_blkferry({"pki", "revoke", ca, "source", "web1"}).exit == 0);
    BOOST_TEST(run_blkferry({"pki", "revoke", ca, "source", "web1"}).exit == 1);
    const Json list = Json::parse(run_blkferry({"pki", "list", ca, "--json"}).out, nullptr, false);
    BOOST_TEST(list["certificates"].size() == 2u);
    const std::string file = (d.dir() / "agent.toml").string();
    std::ofstream(file) << run_blkferry({"config", "default", "agent"}).out;
    BOOST_TEST(run_blkferry({"config", "check", "agent", file}).exit == 0);
    std::ofstream(file, std::ios::app) << "oops = 1\n";
    const Ran bad = run_blkferry({"config", "check", "agent", file});
    BOOST_TEST(bad.exit == 1);
    BOOST_TEST(bad.err.find(file + ":") != std::string::npos);
    BOOST_TEST(run_blkferry({"config", "default", "server", "--json"}).exit == 0);
    // Without a store nothing is written.
    const Ran no_store = run_blkferry({"export", "a/p", (d.dir() / "x.img").string(), "--store", (d.dir() / "none").string()});
    BOOST_TEST(no_store.exit == 1);
    BOOST_TEST(!std::filesystem::exists(d.dir() / "x.img"));
}

BOOST_AUTO_TEST_SUITE_END()
