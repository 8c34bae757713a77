// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>
#include <boost/test/data/test_case.hpp>

#include <csignal>
#include <optional>
#include <vector>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop/signals.hpp"
#include "util.hpp"

using namespace blkferry;
using namespace blkferry::loop;
using namespace blkferry::loop::test;

namespace {

struct Mode {
    Trigger trigger;
    bool multishot;
    bool single_thread;
};
const std::vector<Mode> modes = {{Trigger::level, true, false},
                                 {Trigger::edge, true, false},
                                 {Trigger::edge, false, false},
                                 {Trigger::edge, true, true}};
std::ostream& operator<<(std::ostream& out, const Mode& m) {
    return out << (m.trigger == Trigger::edge ? "edge" : "level") << (m.multishot ? " multishot" : " one-shot")
               << (m.single_thread ? " single" : "");
}

std::unique_ptr<Loop> loop_of(const Mode& m) {
    return make_loop({.single_thread = m.single_thread, .multishot = m.multishot});
}

void put(const Fd& fd, std::size_t n = 1) {
    const std::vector<char> data(n, 'x');
    BOOST_REQUIRE_EQUAL(::write(fd.get(), data.data(), n), static_cast<ssize_t>(n));
}
std::size_t drain(const Fd& fd) {
    std::array<char, 4096> data{};
    std::size_t all = 0;
    for (ssize_t n = 0; (n = ::read(fd.get(), data.data(), data.size())) > 0;)
        all += static_cast<std::size_t>(n);
    return all;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(watch)

BOOST_DATA_TEST_CASE(every_byte_is_seen, boost::unit_test::data::make(modes), mode) {
    auto loop = loop_of(mode);
    auto [a, b] = sockets();
    std::size_t got = 0;
    const Watch w = loop->watch(
        a.get(), POLLIN,
        [&](std::uint32_t events) {
            BOOST_TEST((events & POLLIN) != 0);
            got += drain(a);
        },
        mode.trigger);
    for (std::size_t i = 1; i <= 3000; ++i) {
        put(b);
        if (i % 7 == 0)
            run_until(*loop, [&] { return got == i; });
    }
    run_until(*loop, [&] { return got == 3000; });
}

BOOST_DATA_TEST_CASE(ready_before_the_watch, boost::unit_test::data::make(modes), mode) {
    auto loop = loop_of(mode);
    auto [a, b] = sockets();
    put(b);
    std::size_t got = 0;
    const Watch w = loop->watch(a.get(), POLLIN, [&](std::uint32_t) { got += drain(a); }, mode.trigger);
    run_until(*loop, [&] { return got == 1; });
}

BOOST_AUTO_TEST_CASE(level_comes_again_while_data_is_left) {
    auto loop = make_loop();
    auto [a, b] = sockets();
    put(b, 100);
    std::size_t got = 0;
    const Watch w = loop->watch(a.get(), POLLIN, [&](std::uint32_t) {
        char c = 0;
        BOOST_REQUIRE_EQUAL(::read(a.get(), &c, 1), 1);
        ++got;
    });
    run_until(*loop, [&] { return got == 100; });
    run_rounds(*loop, 3);
    BOOST_TEST(got == 100u);
}

BOOST_DATA_TEST_CASE(events_change, boost::unit_test::data::make(modes), mode) {
    auto loop = loop_of(mode);
    auto [a, b] = sockets();
    std::uint32_t seen = 0;
    Watch w = loop->watch(a.get(), POLLIN, [&](std::uint32_t events) { seen |= events; }, mode.trigger);
    run_rounds(*loop, 2);
    BOOST_TEST(seen == 0u);
    w.set_events(POLLIN | POLLOUT);
    run_until(*loop, [&] { return seen != 0; });
    BOOST_TEST(seen == static_cast<std::uint32_t>(POLLOUT));
    w.set_events(0);
    put(b);
    seen = 0;
    run_rounds(*loop, 5);
    BOOST_TEST(seen == 0u);
    // To and fro while the cancel is under way ends at the last wish.
    for (const int e : {POLLOUT, 0, POLLOUT, POLLIN})
        w.set_events(static_cast<std::uint32_t>(e));
    run_until(*loop, [&] { return seen != 0; });
    BOOST_TEST(seen == static_cast<std::uint32_t>(POLLIN));
}

BOOST_DATA_TEST_CASE(hang_up, boost::unit_test::data::make(modes), mode) {
    auto loop = loop_of(mode);
    auto [a, b] = sockets();
    std::uint32_t seen = 0;
    std::optional<Watch> w;
    w = loop->watch(
        a.get(), POLLIN,
        [&](std::uint32_t events) {
            seen |= events;
            if ((events & POLLHUP) != 0)
                w.reset();
        },
        mode.trigger);
    run_rounds(*loop, 2);
    b.reset();
    run_until(*loop, [&] { return (seen & POLLHUP) != 0; });
    run_rounds(*loop, 3);
}

BOOST_DATA_TEST_CASE(destroyed_in_own_and_foreign_callbacks, boost::unit_test::data::make(modes), mode) {
    auto loop = loop_of(mode);
    auto [a, b] = sockets();
    auto [c, d] = sockets();
    std::optional<Watch> first;
    std::optional<Watch> second;
    int calls = 0;
    // Both become ready in one round; whichever runs first ends both.
    const auto end_both = [&](std::uint32_t) {
        ++calls;
        first.reset();
        second.reset();
    };
    first = loop->watch(a.get(), POLLIN, end_both, mode.trigger);
    second = loop->watch(c.get(), POLLIN, end_both, mode.trigger);
    run_rounds(*loop, 2);
    put(b);
    put(d);
    run_until(*loop, [&] { return calls > 0; });
    run_rounds(*loop, 5);
    BOOST_TEST(calls == 1);
    BOOST_TEST(loop->in_flight() == 1u);  // the loop's own wake-up
}

BOOST_AUTO_TEST_CASE(closing_the_descriptor_after_the_watch) {
    auto loop = make_loop();
    auto [a, b] = sockets();
    std::optional<Watch> w = loop->watch(a.get(), POLLIN, [](std::uint32_t) { BOOST_ERROR("called"); });
    run_rounds(*loop, 1);
    w.reset();
    a.reset();
    run_until(*loop, [&] { return loop->in_flight() == 1; });
    char c = 0;
    BOOST_TEST(::read(b.get(), &c, 1) == 0);  // the kernel holds no reference any more
}

BOOST_AUTO_TEST_CASE(what_cannot_be_polled_says_so_once) {
    auto loop = make_loop();
    int calls = 0;
    std::uint32_t seen = 0;
    const Watch w = loop->watch(9999, POLLIN, [&](std::uint32_t events) {
        ++calls;
        seen = events;
    });
    run_until(*loop, [&] { return calls > 0; });
    run_rounds(*loop, 3);
    BOOST_TEST(calls == 1);
    BOOST_TEST((seen & POLLNVAL) != 0u);
}

BOOST_AUTO_TEST_CASE(more_watches_than_queue_entries) {
    auto loop = make_loop({.entries = 8});
    std::vector<std::pair<Fd, Fd>> pairs;
    std::vector<Watch> watches;
    std::size_t got = 0;
    for (int i = 0; i < 400; ++i)
        pairs.push_back(sockets());
    for (auto& p : pairs)
        watches.push_back(loop->watch(p.first.get(), POLLIN, [&](std::uint32_t) { got += drain(p.first); }));
    for (int round = 1; round <= 5; ++round) {
        for (auto& p : pairs)
            put(p.second);
        run_until(*loop, [&] { return got == static_cast<std::size_t>(round) * pairs.size(); });
    }
    watches.clear();
    run_until(*loop, [&] { return loop->in_flight() == 1; });
}

BOOST_AUTO_TEST_CASE(signals_become_callbacks) {
    auto loop = make_loop();
    std::vector<int> got;
    {
        auto signals = Signals::create(*loop, {SIGUSR1, SIGHUP}, [&](int sig) { got.push_back(sig); });
        BOOST_REQUIRE(signals.has_value());
        Signals moved = std::move(*signals);
        ::raise(SIGUSR1);
        run_until(*loop, [&] { return got.size() == 1; });
        ::raise(SIGHUP);
        run_until(*loop, [&] { return got.size() == 2; });
        sigset_t now;
        pthread_sigmask(SIG_SETMASK, nullptr, &now);
        BOOST_TEST(sigismember(&now, SIGHUP) == 1);
    }
    BOOST_TEST((got == std::vector{SIGUSR1, SIGHUP}));
    sigset_t now;
    pthread_sigmask(SIG_SETMASK, nullptr, &now);
    BOOST_TEST(sigismember(&now, SIGHUP) == 0);
}

BOOST_AUTO_TEST_CASE(watches_outlive_the_loop) {
    auto [a, b] = sockets();
    Watch w;
    {
        auto loop = make_loop();
        w = loop->watch(a.get(), POLLIN, [](std::uint32_t) { BOOST_ERROR("called"); });
        run_rounds(*loop, 1);
    }
    w.set_events(POLLOUT);
    w.set_events(0);
}

BOOST_AUTO_TEST_SUITE_END()
