// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <future>
#include <netinet/in.h>
#include <sys/socket.h>
#include <thread>

#include "server/admission.hpp"
#include "server/configure.hpp"
#include "server/listener.hpp"
#include "server/range_digests.hpp"
#include "server/worker_pool.hpp"

using namespace blkferry;
using namespace blkferry::server;

BOOST_AUTO_TEST_SUITE(parts)

BOOST_AUTO_TEST_CASE(a_busy_address_is_waited_for_and_then_named) {
    auto loop = loop::Loop::create().value();
    Fd holder(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* raw = reinterpret_cast<sockaddr*>(&address);
    BOOST_REQUIRE_EQUAL(::bind(holder.get(), raw, size), 0);
    BOOST_REQUIRE_EQUAL(::listen(holder.get(), 1), 0);
    BOOST_REQUIRE_EQUAL(::getsockname(holder.get(), raw, &size), 0);
    const std::string port = std::to_string(ntohs(address.sin_port));
    const auto create = [&](const std::string& where, std::uint64_t wait_ns) {
        return Listener::create(*loop, {where}, wait_ns, [](Accepted) {}, [](const Error&) {});
    };
    const auto refused = create("127.0.0.1:" + port, 100'000'000);
    BOOST_REQUIRE(!refused);
    BOOST_TEST(refused.error().sys_errno == EADDRINUSE);
    BOOST_TEST(refused.error().text.find("127.0.0.1:" + port) != std::string::npos);
    BOOST_TEST(refused.error().text.find("ss -ltnp 'sport = :" + port + "'") != std::string::npos);
    std::promise<void> waiting;
    std::thread releaser([&] {
        waiting.get_future().wait();
        holder.reset();
    });
    waiting.set_value();
    const auto patient = create("127.0.0.1:" + port, 60'000'000'000);
    releaser.join();
    BOOST_REQUIRE_MESSAGE(patient.has_value(), (patient ? std::string() : patient.error().text));
    BOOST_TEST((*patient)->ports().front() == ntohs(address.sin_port));
    const auto nowhere = create("192.0.2.1:1", 60'000'000'000);
    BOOST_REQUIRE(!nowhere);  // at once: waiting would not help
    BOOST_TEST(nowhere.error().text.find("no such address") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(range_digests_are_bounded_and_damage_is_refused) {
    BOOST_TEST(range_bytes_of(0) == 65536U);
    BOOST_TEST(range_bytes_of(4ULL << 30) == 65536U);
    BOOST_TEST(range_bytes_of((4ULL << 30) + 1) == 131072U);
    BOOST_TEST(range_bytes_of(1ULL << 50) == 1ULL << 34);
    RangeDigests d{.image_bytes = 200'000, .range_bytes = 65536, .whole = sha256({}), .digests = {1, 2, 3, 4}};
    const auto data = encode(d);
    const auto back = decode_range_digests(data);
    BOOST_REQUIRE(back.has_value());
    BOOST_TEST((*back == d));
    for (std::size_t i = 0; i < data.size(); ++i) {
        auto spoiled = data;
        spoiled[i] ^= std::byte{1};
        BOOST_TEST(!decode_range_digests(spoiled).has_value());
        BOOST_TEST(!decode_range_digests(std::span(data).first(i)).has_value());
    }
    d.digests.push_back(5);
    BOOST_TEST(!decode_range_digests(encode(d)).has_value());
    RangeDigests other = *back;
    other.digests = {1, 9, 9, 9};
    using Range = RangeDigests::Range;
    BOOST_TEST((back->differing(other) == std::vector<Range>{{65536, 200'000 - 65536}}));
    other.digests = {9, 2, 9, 4};
    BOOST_TEST((back->differing(other) == std::vector<Range>{{0, 65536}, {131072, 65536}}));
    BOOST_TEST(back->differing(*back).empty());
}

BOOST_AUTO_TEST_CASE(every_key_of_the_file_has_an_effect) {
    const auto config = config::parse_server(
        "listen = [\"192.0.2.1:1\", \"[::1]:2\"]\nstore = \"/srv\"\ncert = \"/a\"\nkey = \"/b\"\nca = \"/c\"\ncrl = \"/d\"\n"
        "manifest_key = \"/e\"\ncontrol_socket = \"/f\"\nsnapshot_engine = \"copy\"\nchunk = \"1MiB\"\npoint_interval_s = 3\n"
        "points_keep = 4\njournal_keep = \"65MiB\"\njournal_backlog = \"66MiB\"\nwindow = \"5MiB\"\ndisk_reserve = \"6MiB\"\nsource_size = \"8GiB\"\n"
        "source_quota = \"7MiB\"\nmax_sources = 8\napply_workers = 9\n",
        "s");
    BOOST_REQUIRE(config.has_value());
    constexpr std::uint64_t mib = 1 << 20;
    const ServerOptions o = options_of(*config);
    BOOST_TEST((o.listen == std::vector<std::string>{"192.0.2.1:1", "[::1]:2"}));
    BOOST_TEST(o.store_dir == "/srv");
    BOOST_TEST(o.tls.cert == "/a");
    BOOST_TEST(o.tls.key == "/b");
    BOOST_TEST(o.tls.ca == "/c");
    BOOST_TEST(o.tls.crl == "/d");
    BOOST_TEST(o.store.manifest_key == "/e");
    BOOST_TEST(o.control_socket == "/f");
    BOOST_TEST(o.store.engine == "copy");
    BOOST_TEST(o.store.source.applier.chunk_bytes == mib);
    BOOST_TEST(o.point_interval_ns == 3'000'000'000U);
    BOOST_TEST(o.points_keep == 4U);
    BOOST_TEST(o.store.source.journal_keep_bytes == 65 * mib);
    BOOST_TEST(o.backlog_bytes_max == 66 * mib);
    BOOST_TEST(o.window_bytes == 5 * mib);
    BOOST_TEST(o.disk_reserve_bytes == 6 * mib);
    BOOST_TEST(o.store.source.quota_bytes == 7 * mib);
    BOOST_TEST(o.store.source.disks_bytes_max == 8192 * mib);
    BOOST_TEST(o.sources_max == 8U);
    BOOST_TEST(o.workers == 9U);
}

BOOST_AUTO_TEST_CASE(admission_counts_and_names_its_limits) {
    Admission a({.connections_max = 4, .handshakes_max = 3, .address_max = 2, .address_handshakes_max = 1});
    BOOST_TEST(a.enter("x").has_value());
    auto r = a.enter("x");
    BOOST_REQUIRE(!r);
    BOOST_TEST((r.error().code == Errc::busy));
    BOOST_TEST(r.error().text == "limit of 1 connections in handshake of one address reached");
    a.established("x");
    BOOST_TEST(a.enter("x").has_value());
    a.established("x");
    r = a.enter("x");
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text == "limit of 2 connections of one address reached");
    BOOST_TEST(a.enter("y").has_value());
    BOOST_TEST(a.enter("z").has_value());
    r = a.enter("w");
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text == "limit of 4 connections reached");
    a.leave("z", false);
    BOOST_TEST(a.enter("w").has_value());
    a.leave("x", true);
    a.leave("x", true);
    a.leave("y", false);
    a.leave("w", false);
    BOOST_TEST(a.connections() == 0U);
    BOOST_TEST(a.handshakes() == 0U);
    BOOST_TEST(a.enter("x").has_value());
    BOOST_TEST(a.enter("y").has_value());
    BOOST_TEST(a.enter("z").has_value());
    r = a.enter("w");
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text == "limit of 3 connections in handshake reached");
    BOOST_TEST((r.error().code == Errc::no_space));  // one that gives way makes room
    r = a.enter("x");
    BOOST_REQUIRE(!r);
    BOOST_TEST((r.error().code == Errc::busy));  // but none gives way to an address that has its share
}

BOOST_AUTO_TEST_CASE(worker_pool_runs_in_order_and_drops_on_destruction) {
    std::vector<int> seen;
    std::promise<void> last;
    {
        WorkerPool pool(1);
        for (int i = 0; i < 100; ++i)
            pool.submit([&seen, i] { seen.push_back(i); });
        pool.submit([&] { last.set_value(); });
        last.get_future().wait();
    }
    BOOST_TEST(seen.size() == 100U);
    BOOST_TEST(std::ranges::is_sorted(seen));

    std::atomic<int> ran{0};
    auto token = std::make_shared<int>(1);
    std::promise<void> entered;
    std::promise<void> go;
    {
        auto pool = std::make_unique<WorkerPool>(1);
        pool->submit([&] {
            entered.set_value();
            go.get_future().wait();
            ++ran;
        });
        pool->submit([&ran, token] { ++ran; });
        entered.get_future().wait();
        std::thread ender([&] { pool.reset(); });
        while (token.use_count() > 1)  // the job that waits is dropped before the running one ends
            std::this_thread::yield();
        go.set_value();
        ender.join();
    }
    BOOST_TEST(ran == 1);
}

BOOST_AUTO_TEST_SUITE_END()
