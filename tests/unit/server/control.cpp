// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <filesystem>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>

#include "base/hash.hpp"
#include "control/client.hpp"
#include "harness.hpp"

using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;
using control::Json;
using proto::FrameType;

namespace {

struct Controlled : Harness {
    Controlled() {
        options.control_socket = dir / "server.sock";
        start();
    }
    Json call(const Json& request, const std::function<void(const Json&)>& on_line = {}) {
        auto client = control::Client::connect(options.control_socket);
        BOOST_REQUIRE_MESSAGE(client, "cannot connect");
        auto answer = client->call(request, on_line, 30'000);
        if (!answer)
            BOOST_FAIL(answer.error().text);
        return std::move(*answer);
    }
    Errc refusal(const Json& request) {
        auto client = control::Client::connect(options.control_socket);
        BOOST_REQUIRE_MESSAGE(client, "cannot connect");
        const auto answer = client->call(request, {}, 30'000);
        BOOST_REQUIRE(!answer);
        return answer.error().code;
    }
    /// Source web-1, synced, with points p1 .. pn.
    Client with_points(int n) {
        Client c = connect("web-1");
        BOOST_REQUIRE(c.hello(hello_of("web-1")).durable_batch == 0U);
        c.send(initial_sync(1, 0, std::byte{0x3c}));
        for (int i = 1; i <= n; ++i) {
            Batch b{.number = static_cast<std::uint64_t>(i) + 1, .prev_mark = static_cast<std::uint64_t>(i) - 1,
                    .mark = static_cast<std::uint64_t>(i)};
            b.writes = {{.extent = {0, 8}, .fill = static_cast<std::byte>(i)}};
            b.points = {{.request = static_cast<std::uint64_t>(i), .name = "p" + std::to_string(i)}};
            c.send(b);
        }
        BOOST_REQUIRE(until([&](Server& s) {
            return s.replicas().at("web-1")->report().store.points == static_cast<std::uint64_t>(n);
        }));
        return c;
    }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(control_socket, Controlled)

BOOST_AUTO_TEST_CASE(status_of_server_and_sources) {
    auto s = call({{"cmd", "status"}});
    BOOST_TEST(s["server"] == "replica");
    BOOST_TEST(s["sources"].empty());
    BOOST_TEST(s["free_bytes"].get<std::uint64_t>() > 0U);

    Client c = with_points(2);
    c.send(FrameType::heartbeat, proto::Heartbeat{.state = "CONTINUOUS", .cause = ""});
    BOOST_TEST(until([](Server& x) { return x.replicas().at("web-1")->report().agent.state == "CONTINUOUS"; }));
    s = call({{"cmd", "status"}});
    BOOST_REQUIRE(s["sources"].size() == 1U);
    const Json& w = s["sources"][0];
    BOOST_TEST(w["source"] == "web-1");
    BOOST_TEST(w["connected"] == true);
    BOOST_TEST(w["state"] == "CONTINUOUS");
    BOOST_TEST(w["durable_mark"] == 2);
    BOOST_TEST(w["points"] == 2);
    BOOST_TEST(w["newest_point"] == "p2");
    BOOST_TEST(w["error"] == "");
    BOOST_TEST(w["lag_ms"].get<std::uint64_t>() < 60'000U);
    c.close();
    BOOST_TEST(until([](Server& x) { return x.sessions() == 0; }));
    s = call({{"cmd", "status"}});
    BOOST_TEST(s["sources"][0]["connected"] == false);
    BOOST_TEST(s["sources"][0]["state"] == "DISCONNECTED");
    // The disks are known after a restart too, from the catalogue.
    stop();
    start();
    s = call({{"cmd", "status"}});
    BOOST_REQUIRE(s["sources"][0]["disks"].size() == 1U);
    BOOST_TEST(s["sources"][0]["disks"][0]["size_bytes"] == disk_sectors * 512);
    BOOST_TEST(s["sources"][0]["disks"][0]["synced"] == true);
}

BOOST_AUTO_TEST_CASE(points_list_and_delete) {
    Client c = with_points(3);
    auto p = call({{"cmd", "points"}, {"source", "web-1"}});
    BOOST_REQUIRE(p["points"].size() == 3U);
    BOOST_TEST(p["points"][0]["point"] == "p1");
    BOOST_TEST(p["points"][2]["mark"] == 3);
    BOOST_TEST(p["points"][2]["kind"] == "crash");
    BOOST_TEST(p["points"][2]["disks"][0]["size_bytes"] == disk_sectors * 512);
    (void)call({{"cmd", "point_delete"}, {"source", "web-1"}, {"point", "p2"}});
    p = call({{"cmd", "points"}});
    BOOST_TEST(p["points"].size() == 2U);
    BOOST_TEST((refusal({{"cmd", "point_delete"}, {"source", "web-1"}, {"point", "p2"}}) == Errc::not_found));
    BOOST_TEST((refusal({{"cmd", "point_delete"}, {"source", "web-1"}, {"point", "../p1"}}) == Errc::not_found));
    BOOST_TEST((refusal({{"cmd", "point_delete"}, {"source", "no"}, {"point", "p1"}}) == Errc::not_found));
    BOOST_TEST((refusal({{"cmd", "point_delete"}, {"source", "web-1"}}) == Errc::invalid));
    BOOST_TEST((refusal({{"cmd", "points"}, {"sauce", "web-1"}}) == Errc::invalid));
    BOOST_TEST((refusal({{"cmd", "points"}, {"source", "no"}}) == Errc::not_found));
    // The others still read well.
    const auto v = call({{"cmd", "verify_point"}, {"source", "web-1"}, {"point", "p1"}});
    BOOST_TEST(v["equal"] == true);
}

// Chunks that it may need stay, others go; replication does not care; the administrator can give it up.
BOOST_AUTO_TEST_CASE(a_damaged_point_is_told_and_can_be_given_up) {
    namespace fs = std::filesystem;
    const fs::path source_dir = store::Store::source_dir(options.store_dir, "web-1");
    const auto files = [&] {
        const auto in = fs::directory_iterator(source_dir / "disks" / "000");
        return static_cast<std::size_t>(std::distance(begin(in), end(in)));
    };
    const auto files_become = [&](std::size_t n) { return until([&](Server&) { return files() == n; }); };
    const auto delete_point = [&](const char* point) {
        (void)call({{"cmd", "point_delete"}, {"source", "web-1"}, {"point", point}});
    };
    with_points(3).close();
    stop();
    BOOST_TEST(files() == 10U);  // eight chunks, and the first one as p1 and p2 saw it
    {
        std::fstream manifest(source_dir / "points" / "p2.json", std::ios::in | std::ios::out);
        manifest.seekp(60);
        manifest << "rot";
    }
    start();
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->state() == Replica::State::ready; }));
    BOOST_TEST(log.count("event=alarm reason=point-damaged point=p2") == 1U);
    auto w = call({{"cmd", "status"}})["sources"][0];
    BOOST_REQUIRE(w["alarms"].size() == 1U);
    BOOST_TEST(w["alarms"][0]["reason"] == "point-damaged");
    BOOST_TEST(w["alarms"][0]["point"] == "p2");
    BOOST_TEST((refusal({{"cmd", "verify_point"}, {"source", "web-1"}, {"point", "p2"}}) == Errc::corrupt));

    Client c = connect("web-1");
    BOOST_TEST(c.hello(hello_of("web-1")).durable_batch == 4U);
    for (std::uint64_t i = 4; i <= 5; ++i) {
        Batch b{.number = i + 1, .prev_mark = i - 1, .mark = i};
        b.writes = {{.extent = {0, 8}, .fill = static_cast<std::byte>(i)}};
        b.points = {{.request = i, .name = "p" + std::to_string(i)}};
        c.send(b);
    }
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().store.points == 4; }));
    BOOST_TEST(files() == 12U);
    delete_point("p1");
    delete_point("p4");
    BOOST_TEST(files_become(11));  // p4's, but not p1's, which p2 may need
    delete_point("p2");
    BOOST_TEST(files_become(9));
    w = call({{"cmd", "status"}})["sources"][0];
    BOOST_TEST(w["alarms"].empty());
    BOOST_TEST(w["points"] == 2);
    BOOST_TEST(w["connected"] == true);
    BOOST_TEST(log.count("event=apply-failed") == 0U);
    c.close();
    stop();
    start();
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->state() == Replica::State::ready; }));
    BOOST_TEST(call({{"cmd", "status"}})["sources"][0]["alarms"].empty());
    // A manifest that vanished shows.
    stop();
    fs::remove(source_dir / "points" / "p3.json");
    start();
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->state() == Replica::State::ready; }));
    w = call({{"cmd", "status"}})["sources"][0];
    BOOST_REQUIRE(w["alarms"].size() == 1U);
    BOOST_TEST(w["alarms"][0]["reason"] == "points-missing");
}

BOOST_AUTO_TEST_CASE(verify_makes_digests_and_then_compares_them) {
    Client c = with_points(1);
    Bytes want(disk_sectors * 512, std::byte{0x3c});
    std::fill_n(want.begin(), 8 * 512, std::byte{1});
    std::string hex;
    for (const std::byte b : sha256(want))
        hex += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    const Json request{{"cmd", "verify_point"}, {"source", "web-1"}, {"point", "p1"}};
    auto v = call(request);
    BOOST_TEST(v["equal"] == true);
    BOOST_TEST(v["manifest"] == "signed");
    BOOST_TEST(v["compared_bytes"] == disk_sectors * 512);
    BOOST_TEST(v["digests"][0]["sha256"] == hex);
    BOOST_TEST(v["digests"][0]["compared"] == false);
    v = call(request);
    BOOST_TEST(v["digests"][0]["compared"] == true);
    BOOST_TEST(v["equal"] == true);

    // Rot in a chunk of the point shows.
    namespace fs = std::filesystem;
    bool spoiled = false;
    for (const auto& e : fs::recursive_directory_iterator(store::Store::source_dir(options.store_dir, "web-1") / "disks")) {
        if (!e.is_regular_file() || e.file_size() < 65536)
            continue;
        std::fstream f(e.path(), std::ios::in | std::ios::out | std::ios::binary);
        f.seekp(40000);
        f.put('x');
        spoiled = true;
    }
    BOOST_REQUIRE(spoiled);
    v = call(request);
    BOOST_TEST(v["equal"] == false);
    // One byte was spoiled in each chunk file: of each chunk the range that holds it is told, and nothing else.
    constexpr std::uint64_t range = 64 << 10;
    constexpr std::uint64_t chunk = 1 << 20;
    const std::uint64_t chunks = disk_sectors * 512 / chunk;
    BOOST_TEST(v["differing_bytes"] == chunks * range);
    BOOST_REQUIRE(v["ranges"].size() == chunks);
    for (std::uint64_t i = 0; i < chunks; ++i) {
        BOOST_TEST(v["ranges"][i]["offset"] == i * chunk);
        BOOST_TEST(v["ranges"][i]["bytes"] == range);
    }
    // Without the range digests, or with damaged ones, the verdict stays and only the place is unknown.
    const auto proof = store::Store::source_dir(options.store_dir, "web-1") / "proofs" / "p1.000";
    BOOST_REQUIRE(fs::exists(proof));
    fs::resize_file(proof, fs::file_size(proof) - 1);
    v = call(request);
    BOOST_TEST(v["equal"] == false);
    BOOST_REQUIRE(v["ranges"].size() == 1U);
    BOOST_TEST(v["ranges"][0]["bytes"] == disk_sectors * 512);
}

BOOST_AUTO_TEST_CASE(proofs_of_removed_points_go) {
    Client c = with_points(2);
    (void)call({{"cmd", "verify_point"}, {"source", "web-1"}, {"point", "p1"}});
    const auto proofs = store::Store::source_dir(options.store_dir, "web-1") / "proofs";
    BOOST_TEST(std::filesystem::exists(proofs / "p1.000"));
    (void)call({{"cmd", "point_delete"}, {"source", "web-1"}, {"point", "p1"}});
    (void)call({{"cmd", "verify_point"}, {"source", "web-1"}, {"point", "p2"}});
    BOOST_TEST(!std::filesystem::exists(proofs / "p1.000"));
    BOOST_TEST(std::filesystem::exists(proofs / "p2.000"));
}

BOOST_AUTO_TEST_CASE(a_point_costs_the_chunks_that_only_it_sees) {
    // Each point rewrites chunk 0; all other chunks are shared by all. What the newest sees is staging's as well.
    Client c = with_points(3);
    const auto own = [&](std::size_t i) {
        return call({{"cmd", "points"}, {"source", "web-1"}})["points"][i]["bytes"].get<std::uint64_t>();
    };
    const std::uint64_t chunk = options.store.source.applier.chunk_bytes;
    for (std::size_t i = 0; i < 2; ++i) {
        BOOST_TEST(own(i) > 0U);
        BOOST_TEST(own(i) <= chunk);
    }
    BOOST_TEST(own(2) == 0U);
    (void)call({{"cmd", "point_delete"}, {"source", "web-1"}, {"point", "p2"}});
    BOOST_TEST(own(0) > 0U);
    BOOST_TEST(own(0) <= chunk);
    BOOST_TEST(own(1) == 0U);
}

BOOST_AUTO_TEST_CASE(export_writes_a_new_file) {
    Client c = with_points(1);
    const auto file = dir / "image.raw";
    Json request{{"cmd", "export"}, {"source", "web-1"}, {"point", "p1"}, {"file", file.string()}};
    const auto done = call(request);
    BOOST_TEST(done["bytes"] == disk_sectors * 512);
    BOOST_TEST(std::filesystem::file_size(file) == disk_sectors * 512);
    std::ifstream in(file, std::ios::binary);
    std::vector<char> raw{std::istreambuf_iterator<char>(in), {}};
    BOOST_TEST(raw[0] == 1);
    BOOST_TEST(raw[8 * 512] == 0x3c);
    std::string hex;
    for (const std::byte b : sha256(std::as_bytes(std::span(raw))))
        hex += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    BOOST_TEST(done["sha256"] == hex);
    BOOST_TEST((refusal(request) == Errc::exists));
    request["file"] = "relative.raw";
    BOOST_TEST((refusal(request) == Errc::invalid));
    request["file"] = (dir / "other.raw").string();
    request["slot"] = 9;
    BOOST_TEST((refusal(request) == Errc::not_found));
    BOOST_TEST(!std::filesystem::exists(dir / "other.raw"));
}

BOOST_AUTO_TEST_CASE(reload_reads_the_certificates) {
    const auto r = call({{"cmd", "reload"}});
    BOOST_TEST(r["changed"].empty());
    BOOST_TEST((refusal({{"cmd", "dance"}}) == Errc::unsupported));
}

BOOST_AUTO_TEST_SUITE_END()
