// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <atomic>
#include <csignal>
#include <memory>
#include <thread>
#include <vector>

#include <poll.h>
#include <pthread.h>

#include "util.hpp"

using namespace blkferry;
using namespace blkferry::loop;
using namespace blkferry::loop::test;

BOOST_AUTO_TEST_SUITE(task)

BOOST_AUTO_TEST_CASE(tasks_of_many_threads_run_once_each_and_in_order) {
    auto loop = make_loop();
    constexpr int threads = 4;
    constexpr int each = 5000;
    std::vector<int> next(threads, 0);
    int done = 0;
    bool ordered = true;
    const std::thread::id home = std::this_thread::get_id();
    std::vector<std::thread> posters;
    for (int t = 0; t < threads; ++t)
        posters.emplace_back([&, t] {
            for (int i = 0; i < each; ++i)
                loop->post([&, t, i] {
                    ordered = ordered && next[static_cast<std::size_t>(t)]++ == i && std::this_thread::get_id() == home;
                    if (++done == threads * each)
                        loop->stop();
                });
        });
    BOOST_TEST(loop->run().has_value());
    for (auto& p : posters)
        p.join();
    BOOST_TEST(done == threads * each);
    BOOST_TEST(ordered);
}

BOOST_AUTO_TEST_CASE(stop_from_another_thread_and_before_run) {
    auto loop = make_loop();
    loop->stop();
    BOOST_TEST(loop->run().has_value());  // returns at once, and the wish is used up
    std::atomic<bool> running{false};
    std::thread stopper([&] {
        while (!running)
            std::this_thread::yield();
        loop->stop();
    });
    loop->post([&] { running = true; });
    BOOST_TEST(loop->run().has_value());
    stopper.join();
}

BOOST_AUTO_TEST_CASE(built_in_one_thread_and_run_in_another) {
    auto loop = make_loop();
    auto [a, b] = sockets();
    int got = 0;
    Watch w = loop->watch(a.get(), POLLIN, [&](std::uint32_t) {
        char c = 0;
        got += static_cast<int>(::recv(a.get(), &c, 1, 0));
        if (got == 10)
            loop->stop();
    });
    std::thread runner([&] { BOOST_TEST(loop->run().has_value()); });
    for (int i = 0; i < 10; ++i)
        BOOST_REQUIRE_EQUAL(::send(b.get(), "x", 1, 0), 1);
    runner.join();
    w.reset();
    BOOST_TEST(got == 10);
}

BOOST_AUTO_TEST_CASE(a_task_that_posts_itself_starves_nobody) {
    auto loop = make_loop();
    bool stop = false;
    int rounds = 0;
    std::function<void()> again = [&] {
        ++rounds;
        if (!stop)
            loop->post(again);
    };
    loop->post(again);
    const Timer t = loop->after(20 * ms, [&] {
        stop = true;
        loop->stop();
    });
    BOOST_TEST(loop->run().has_value());
    BOOST_TEST(rounds > 1);
}

BOOST_AUTO_TEST_CASE(tasks_that_did_not_run_are_destroyed) {
    const auto token = std::make_shared<int>(1);
    {
        auto loop = make_loop();
        loop->post([token] { BOOST_ERROR("ran"); });
    }
    BOOST_TEST(token.use_count() == 1);
}

namespace {
std::atomic<int> interrupts{0};
void count_signal(int) { ++interrupts; }
}  // namespace

// The kernel's wait ends with EINTR for each of these; nothing is lost and nothing fails.
BOOST_AUTO_TEST_CASE(interrupted_waits) {
    struct sigaction action {};
    action.sa_handler = count_signal;
    struct sigaction before {};
    BOOST_REQUIRE_EQUAL(::sigaction(SIGUSR2, &action, &before), 0);
    auto loop = make_loop();
    auto [a, b] = sockets();
    int got = 0;
    const Watch w = loop->watch(a.get(), POLLIN, [&](std::uint32_t) {
        char c = 0;
        got += static_cast<int>(::recv(a.get(), &c, 1, 0));
    });
    const pthread_t self = ::pthread_self();
    std::atomic<bool> end{false};
    std::thread sender([&] {
        for (int i = 0; i < 300; ++i) {
            ::pthread_kill(self, SIGUSR2);
            if (i % 3 == 0)
                (void)!::send(b.get(), "x", 1, 0);
            std::this_thread::sleep_for(std::chrono::microseconds(200));
        }
        end = true;
        loop->stop();
    });
    BOOST_TEST(loop->run().has_value());
    sender.join();
    run_until(*loop, [&] { return got == 100; });
    BOOST_TEST(interrupts > 0);
    ::sigaction(SIGUSR2, &before, nullptr);
}

BOOST_AUTO_TEST_CASE(bad_options) {
    BOOST_TEST(!Loop::create({.entries = 0}));
    BOOST_TEST(!Loop::create({.entries = 1U << 20}));
}

BOOST_AUTO_TEST_SUITE_END()
