// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <future>

#include "server/admission.hpp"
#include "server/log.hpp"
#include "server/worker_pool.hpp"

using namespace blkferry;
using namespace blkferry::server;

BOOST_AUTO_TEST_SUITE(parts)

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
}

BOOST_AUTO_TEST_CASE(log_values_cannot_forge_lines) {
    BOOST_TEST(quote("plain-1.2:3/x") == "plain-1.2:3/x");
    BOOST_TEST(quote("") == "\"\"");
    BOOST_TEST(quote("a b") == "\"a b\"");
    BOOST_TEST(quote("a\nlevel=error x=\"y\\") == "\"a\\x0alevel=error x=\\\"y\\\\\"");
    BOOST_TEST(quote(std::string(2000, 'a')).size() < 600U);
    for (const Level l : {Level::debug, Level::info, Level::warn, Level::error})
        BOOST_TEST((parse_level(to_string(l)).value() == l));
    BOOST_TEST(!parse_level("loud"));
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
