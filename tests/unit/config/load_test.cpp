// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>

#include <unistd.h>

#include "../temp_dir.hpp"
#include "config/config.hpp"

using namespace blkferry;
using namespace blkferry::config;

namespace {

const std::string least = "server = \"replica:1500\"\nsource = \"web1\"\n";

void refused(const Result<AgentConfig>& r, const std::string& where, const std::string& why) {
    BOOST_REQUIRE(!r);
    BOOST_TEST_CONTEXT(r.error().text) {
        BOOST_TEST((r.error().code == Errc::invalid));
        BOOST_TEST(r.error().text.starts_with(where));
        BOOST_TEST(r.error().text.find(why) != std::string::npos);
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(load)

BOOST_AUTO_TEST_CASE(defaults) {
    const auto c = parse_agent(least, "a.toml");
    BOOST_REQUIRE_MESSAGE(c.has_value(), (c ? std::string() : c.error().text));
    BOOST_TEST(to_string(c->server) == "replica:1500");
    BOOST_TEST(c->source == "web1");
    BOOST_TEST(c->state_dir == "/var/lib/blkferry/agent");
    BOOST_TEST(c->control_socket == agent_socket);
    BOOST_TEST(c->bandwidth == 0u);
    BOOST_TEST((c->compression == Compression::lz4));
    BOOST_TEST(c->batch_interval_ms == 200u);
    BOOST_TEST(c->batch_bytes == 16u << 20);
    BOOST_TEST(c->ring_bytes == 64u << 20);
    BOOST_TEST(c->resync_queue_depth == 16u);
    BOOST_TEST(c->resync_block_bytes == 256u << 10);
    BOOST_TEST(c->workers == 1u);
    BOOST_TEST((c->log_level == LogLevel::info));
    const auto s = parse_server("", "s.toml");
    BOOST_REQUIRE_MESSAGE(s.has_value(), (s ? std::string() : s.error().text));
    BOOST_REQUIRE_EQUAL(s->listen.size(), 1u);
    BOOST_TEST(s->listen[0].str() == "[::]:1500");
    BOOST_TEST(s->control_socket == server_socket);
    BOOST_TEST(s->chunk_bytes == 64u << 20);
    BOOST_TEST(s->journal_keep_bytes == 8ULL << 30);
    BOOST_TEST(s->point_interval_s == 600u);
    BOOST_TEST(s->crl.empty());
    BOOST_TEST((s->snapshot_engine == SnapshotEngine::automatic));
}

BOOST_AUTO_TEST_CASE(values_are_taken) {
    const auto c = parse_agent(least +
                                   "bandwidth = \"20mbit\"\ncompression = \"zstd\"\ncompression_level = 3\nbatch_interval_ms = 10\n"
                                   "ring = \"1GiB\"\nserver_name = \"replica\"\nlog_level = \"debug\"\n",
                               "a.toml");
    BOOST_REQUIRE_MESSAGE(c.has_value(), (c ? std::string() : c.error().text));
    BOOST_TEST(c->bandwidth == 2'500'000u);
    BOOST_TEST((c->compression == Compression::zstd));
    BOOST_TEST(c->compression_level == 3);
    BOOST_TEST(c->ring_bytes == 1u << 30);
    BOOST_TEST(c->server_name == "replica");
    const auto several = parse_agent("server = [\"a\", \"[::1]:7\"]\nsource = \"web1\"\n", "a.toml");
    BOOST_REQUIRE(several.has_value());
    BOOST_TEST(to_string(several->server) == "a:1500, [::1]:7");
    const auto s = parse_server("listen = [\"192.0.2.1:1\", \"[::1]\"]\nsnapshot_engine = \"copy\"\ncrl = \"/x/crl.pem\"\n", "s");
    BOOST_REQUIRE(s);
    BOOST_TEST(s->listen.size() == 2u);
    BOOST_TEST((s->snapshot_engine == SnapshotEngine::copy));
    BOOST_TEST(s->crl == "/x/crl.pem");
}

BOOST_AUTO_TEST_CASE(refusals_name_file_and_line) {
    refused(parse_agent(least + "\nbandwith = \"20mbit\"\n", "a.toml"), "a.toml:4: ", "unknown key 'bandwith'");
    refused(parse_agent(least + "source = \"x\"\n", "a.toml"), "a.toml:3: ", "source");
    refused(parse_agent(least + "[agent]\nworkers = 1\n", "a.toml"), "a.toml:3: ", "unknown key 'agent'");
    refused(parse_agent(least + "workers = \"2\"\n", "a.toml"), "a.toml:3: workers: ", "an integer expected, not a string");
    refused(parse_agent(least + "workers = 1.5\n", "a.toml"), "a.toml:3: workers: ", "an integer expected");
    refused(parse_agent(least + "workers = 0\n", "a.toml"), "a.toml:3: workers: ", "1 .. 64");
    refused(parse_agent(least + "workers = -1\n", "a.toml"), "a.toml:3: workers: ", "1 .. 64");
    refused(parse_agent(least + "bandwidth = 20\n", "a.toml"), "a.toml:3: bandwidth: ", "a rate such as");
    refused(parse_agent(least + "bandwidth = \"20\"\n", "a.toml"), "a.toml:3: bandwidth: ", "20mbit");
    refused(parse_agent(least + "ring = \"8GiB\"\n", "a.toml"), "a.toml:3: ring: ", "\"64KiB\" .. \"4GiB\"");
    refused(parse_agent(least + "resync_block = \"100KiB\"\n", "a.toml"), "a.toml:3: resync_block: ", "multiple of \"64KiB\"");
    refused(parse_agent(least + "capture = \"kprobe\"\n", "a.toml"), "a.toml:3: capture: ", "auto, module, ebpf");
    refused(parse_agent(least + "cycle_interval = \"500ms\"\n", "a.toml"), "a.toml:3: cycle_interval: ", "");
    refused(parse_agent(least + "compression = \"gzip\"\n", "a.toml"), "a.toml:3: compression: ", "none, lz4, zstd");
    refused(parse_agent(least + "cert = \"source.pem\"\n", "a.toml"), "a.toml:3: cert: ", "absolute");
    refused(parse_agent(least + "cert = \"\"\n", "a.toml"), "a.toml:3: cert: ", "path");
    refused(parse_agent(least + "cert = [\"/a\"]\n", "a.toml"), "a.toml:3: cert: ", "not an array");
    refused(parse_agent(least + "log_level = 2024-01-01\n", "a.toml"), "a.toml:3: log_level: ", "not date");
    refused(parse_agent(least + "x = \n", "a.toml"), "a.toml:3: ", "");
    refused(parse_agent("source = \"web1\"\n", "a.toml"), "a.toml: ", "'server' is missing");
    refused(parse_agent("server = \"r\"\nsource = \"a/b\"\n", "a.toml"), "a.toml:2: source: ", "letters");
    refused(parse_agent("server = \"r\"\nsource = \"\"\n", "a.toml"), "a.toml:2: source: ", "letters");
    refused(parse_agent("server = [\"r\", \"r:0\"]\nsource = \"a\"\n", "a.toml"), "a.toml:1: server: ", "port");
    refused(parse_agent("server = []\nsource = \"a\"\n", "a.toml"), "a.toml:1: server: ", "1 .. 16");
    refused(parse_agent("server = 5\nsource = \"a\"\n", "a.toml"), "a.toml:1: server: ", "or an array");
    refused(parse_agent("server = \"r:0\"\nsource = \"a\"\n", "a.toml"), "a.toml:1: server: ", "port");
    refused(parse_agent(least + "proxy = \"proxy:3128\"\n", "a.toml"), "a.toml:3: proxy: ", "http://");
    const auto secret = parse_agent(least + "proxy = \"http://user:hunter2@proxy\"\n", "a.toml");
    refused(secret, "a.toml:3: proxy: ", "proxy_password_file");
    BOOST_TEST(secret.error().text.find("hunter2") == std::string::npos);
    const auto server_refused = [](const std::string& line, const std::string& why) {
        const auto r = parse_server("store = \"/srv\"\n" + line + "\n", "s.toml");
        BOOST_REQUIRE(!r);
        BOOST_TEST_CONTEXT(r.error().text) {
            BOOST_TEST(r.error().text.starts_with("s.toml:2: " + line.substr(0, line.find(' ')) + ": "));
            BOOST_TEST(r.error().text.find(why) != std::string::npos);
        }
    };
    server_refused("points_keep = 100001", "0 .. 100000");
    server_refused("points_keep = -1", "0 .. 100000");
    server_refused("points_keep = \"3\"", "an integer expected");
    server_refused("window = \"512KiB\"", "\"1MiB\" .. \"4GiB\"");
    server_refused("window = 67108864", "a size such as");
    server_refused("journal_backlog = \"1MiB\"", "\"64MiB\"");
    server_refused("disk_reserve = \"1 parsec\"", "parsec");
    server_refused("manifest_key = \"manifest.pem\"", "absolute");
    server_refused("pki = \"pki\"", "absolute");
    server_refused("certificate_life = \"5s\"", "10s");
    server_refused("server_certificate_life = \"5s\"", "10s");
    server_refused("certificate_life = 90", "a time such as");
    server_refused("chunk = \"2GiB\"", "\"1GiB\"");
    BOOST_TEST(!parse_server("listen = []\n", "s"));
    BOOST_TEST(!parse_server("listen = \"[::]:1500\"\n", "s"));
    BOOST_TEST(!parse_server("listen = [1500]\n", "s"));
    BOOST_TEST(!parse_server("chunk = \"1000KiB\"\n", "s"));
    BOOST_TEST(!parse_server("store = \"/a\\u0000b\"\n", "s"));
}

BOOST_AUTO_TEST_CASE(hostile_text_is_refused_without_harm) {
    BOOST_TEST(!parse_agent(std::string(100'000, '['), "a"));
    BOOST_TEST(!parse_agent("a = " + std::string(100'000, '['), "a"));
    BOOST_TEST(!parse_agent(std::string("\xff\xfe\x00", 3), "a"));
    BOOST_TEST(!parse_agent(least + "workers = 99999999999999999999\n", "a"));
}

BOOST_AUTO_TEST_CASE(files) {
    const auto none = load_agent("/nonexistent/agent.toml");
    BOOST_REQUIRE(!none);
    BOOST_TEST((none.error().code == Errc::not_found));
    const test::TempDir dir("config");
    const std::filesystem::path file = dir.path / "agent.toml";
    std::ofstream(file) << least << "oops = 1\n";
    refused(load_agent(file), file.string() + ":3: ", "oops");
    std::ofstream(file) << least;
    BOOST_TEST(load_agent(file).has_value());
}

BOOST_AUTO_TEST_CASE(changes_are_told_apart) {
    const AgentConfig a = *parse_agent(least, "a");
    BOOST_TEST(compare(a, a).changed.empty());
    const AgentConfig b = *parse_agent(least + "bandwidth = \"1mbit\"\nring = \"128MiB\"\n", "a");
    const Changes c = compare(a, b);
    BOOST_TEST((c.changed == std::vector<std::string>{"bandwidth", "ring"}));
    BOOST_TEST((c.needs_restart == std::vector<std::string>{"ring"}));
}

BOOST_AUTO_TEST_CASE(a_reload_takes_over_what_it_can_and_nothing_else) {
    const AgentConfig fresh = *parse_agent(
        "server = \"other:1\"\nsource = \"web2\"\nbandwidth = \"1mbit\"\ncompression = \"zstd\"\ncompression_level = 7\n"
        "batch_interval_ms = 50\nbatch_bytes = \"1MiB\"\nring = \"128MiB\"\nresync_queue_depth = 2\nresync_block = \"64KiB\"\n"
        "workers = 9\nlog_level = \"error\"\nstate_dir = \"/elsewhere\"\n",
        "a");
    AgentConfig agent = *parse_agent(least, "a");
    const AgentConfig before = agent;
    const Changes told = compare(before, fresh);
    take_over(agent, fresh);
    BOOST_TEST(agent.bandwidth == 125'000u);
    BOOST_TEST(agent.batch_bytes == 1u << 20);
    BOOST_TEST(agent.workers == before.workers);
    BOOST_TEST(agent.source == "web1");
    // What is left to differ is what was said to need a restart.
    BOOST_TEST((compare(agent, fresh).changed == told.needs_restart));
    BOOST_TEST(compare(before, agent).needs_restart.empty());

    const ServerConfig server_fresh = *parse_server(
        "store = \"/srv\"\npoint_interval_s = 5\npoints_keep = 7\nwindow = \"2MiB\"\njournal_backlog = \"1GiB\"\n"
        "disk_reserve = \"0\"\nmax_sources = 3\ncrl = \"/crl\"\nchunk = \"1MiB\"\njournal_keep = \"64MiB\"\n",
        "s");
    ServerConfig server = *parse_server("", "s");
    const ServerConfig server_before = server;
    take_over(server, server_fresh);
    BOOST_TEST(server.points_keep == 7u);
    BOOST_TEST(server.window_bytes == 2u << 20);
    BOOST_TEST(server.disk_reserve_bytes == 0u);
    BOOST_TEST(server.crl == "/crl");
    BOOST_TEST(server.store == server_before.store);
    BOOST_TEST((compare(server, server_fresh).changed == compare(server_before, server_fresh).needs_restart));
    BOOST_TEST((compare(server, server_fresh).changed == std::vector<std::string>{"store", "chunk", "journal_keep"}));
}

// What the program prints as default file is a valid file; with every '#key' uncommented it means the same.
BOOST_AUTO_TEST_CASE(the_default_file_is_true) {
    const std::regex commented("(^|\n)#([a-z_]+ = )");
    const std::string agent = default_agent_file();
    const auto plain = parse_agent(agent, "default");
    const auto full = parse_agent(std::regex_replace(agent, commented, "$1$2"), "default");
    BOOST_REQUIRE_MESSAGE(plain.has_value(), (plain ? std::string() : plain.error().text));
    BOOST_REQUIRE_MESSAGE(full.has_value(), (full ? std::string() : full.error().text));
    BOOST_TEST((*plain == *full));
    const std::string server = default_server_file();
    const auto server_plain = parse_server(server, "default");
    const auto server_full = parse_server(std::regex_replace(server, commented, "$1$2"), "default");
    BOOST_REQUIRE_MESSAGE(server_full.has_value(), (server_full ? std::string() : server_full.error().text));
    BOOST_TEST((*server_plain == *server_full));
    for (const auto& [keys, text] : {std::pair{agent_keys(), agent}, std::pair{server_keys(), server}})
        for (const KeyHelp& key : keys)
            BOOST_TEST(text.find((key.default_value.empty() ? "\n" : "\n#") + key.key + " = ") != std::string::npos);
    for (const std::string& text : {agent, server}) {
        std::size_t start = 0;
        for (std::size_t end = 0; (end = text.find('\n', start)) != std::string::npos; start = end + 1)
            BOOST_TEST(end - start <= 120u);
    }
}

BOOST_AUTO_TEST_SUITE_END()
