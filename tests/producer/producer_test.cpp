// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <memory>
#include <thread>

#include <boost/test/unit_test.hpp>

#include "fixture.hpp"
#include "mini_agent.hpp"
#include "workload.hpp"

using namespace blkferry;
using namespace blkferry::producer;

namespace {

constexpr auto deadline = std::chrono::seconds(120);

/// Runs the agent until `done`, or fails the test at the deadline.
template <class Done>
void run_until(MiniAgent& agent, Done done) {
    const auto end = std::chrono::steady_clock::now() + deadline;
    while (!done()) {
        const auto shipped = agent.ship();
        BOOST_TEST_REQUIRE(shipped.has_value(), (shipped ? "" : shipped.error().text));
        const auto resynced = agent.resync();
        BOOST_TEST_REQUIRE(resynced.has_value(), (resynced ? "" : resynced.error().text));
        BOOST_TEST_REQUIRE((std::chrono::steady_clock::now() < end));
    }
}

void settle_and_compare(Fixture& f, MiniAgent& agent) {
    run_until(agent, [&] { return agent.mark() == f.machine.info().seq && agent.consistent(); });
    for (std::size_t i = 0; i < f.devs.size(); ++i)
        BOOST_TEST((agent.image(static_cast<std::uint16_t>(i)) == f.contents(i)));
}

void attach_all(Fixture& f, capture::Tracker& t, MiniAgent& agent, std::uint64_t data_bytes) {
    for (const std::uint64_t dev : f.devs) {
        capture::AttachRequest request;
        request.dev = dev;
        request.data_bytes = data_bytes;
        request.inline_max = 64U << 10;
        const auto d = t.attach(request);
        BOOST_TEST_REQUIRE(d.has_value());
        BOOST_TEST_REQUIRE(agent.add(*d).has_value());
    }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(producer)

BOOST_AUTO_TEST_CASE(initial_sync_of_idle_disks) {
    Fixture f(2);
    auto t = f.connect();
    MiniAgent agent(*t);
    attach_all(f, *t, agent, 1U << 20);
    settle_and_compare(f, agent);
    BOOST_TEST(agent.counters().epochs == 2U);
    BOOST_TEST(agent.counters().resync_sectors == 2U * 8192);
}

/// Everything at once: rewriting during the sync, completions out of order, phantoms, failures, overlaps, rings that
/// overflow, agents that die. Whenever the writers rest, the replica equals the disks.
BOOST_AUTO_TEST_CASE(any_workload_ends_equal) {
    for (std::uint64_t seed = 1; seed <= 8; ++seed) {
        BOOST_TEST_CONTEXT("seed " << seed) {
            Fixture f(1 + seed % 3, 4U << 20, seed);
            auto t = f.connect();
            MiniAgent agent(*t);
            WorkloadConfig config;
            config.seed = seed;
            config.ops = 3000;
            config.sizes = seed % 2 == 0 ? Sizes::fixed : Sizes::mixed;
            config.contents = Contents::mixed;
            config.pattern = seed % 4 == 0 ? Pattern::hot : Pattern::random;
            config.depth = 1 + static_cast<std::uint32_t>(seed) * 3;
            config.discard_percent = 5;
            config.zeroes_percent = 5;
            config.cancel_percent = 5;
            config.fail_percent = seed % 3 == 0 ? 2 : 0;
            config.overlap = seed % 2 == 1;
            Workload w(f.machine, f.devs, config);
            w.start();  // also before anything is attached
            attach_all(f, *t, agent, seed % 4 == 1 ? 256U << 10 : 4U << 20);
            for (int round = 0; round < 3; ++round) {
                run_until(agent, [&] { return !w.running(); });
                w.wait();
                BOOST_TEST(w.stats().error.empty());
                settle_and_compare(f, agent);
                if (round == 1)
                    BOOST_TEST_REQUIRE(agent.restart().has_value());
                w.start();
            }
            w.stop();
            settle_and_compare(f, agent);
            BOOST_TEST(agent.counters().ops > 0U);
        }
    }
}

/// "n to A, then n to B": at every consistent mark A has the number of B, or the next one.
BOOST_AUTO_TEST_CASE(every_consistent_mark_is_a_cut_over_both_disks) {
    Fixture f(2);
    auto t = f.connect();
    MiniAgent agent(*t);
    attach_all(f, *t, agent, 4U << 20);
    WorkloadConfig ordered;
    ordered.pattern = Pattern::ordered;
    ordered.ops_per_second = 2000;  // the ring holds: marks come, instead of one gap after the other
    Workload numbers(f.machine, f.devs, ordered);
    WorkloadConfig noise;
    noise.seed = 7;
    noise.depth = 16;
    noise.first_sector = 64;
    noise.ops_per_second = 4000;
    Workload other(f.machine, f.devs, noise);
    settle_and_compare(f, agent);
    numbers.start();
    other.start();
    std::uint64_t checked = 0;
    std::uint64_t last = 0;
    run_until(agent, [&] {
        if (agent.consistent()) {
            const auto a = load_le<std::uint64_t>(agent.image(0).data());
            const auto b = load_le<std::uint64_t>(agent.image(1).data());
            // Before the first number comes, a disk holds random bytes.
            const auto number = [](std::uint64_t v) { return v < (1U << 30) ? v : std::uint64_t{0}; };
            BOOST_REQUIRE_MESSAGE((number(a) == number(b) || number(a) == number(b) + 1),
                                  "A has " << a << ", B has " << b << " at mark " << agent.mark());
            checked += number(a) != last ? 1U : 0U;
            last = number(a);
        }
        return checked >= 200;
    });
    numbers.stop();
    other.stop();
    settle_and_compare(f, agent);
    BOOST_TEST(load_le<std::uint64_t>(agent.image(0).data()) == load_le<std::uint64_t>(agent.image(1).data()));
}

BOOST_AUTO_TEST_CASE(a_detached_disk_leaves_void_numbers) {
    Fixture f(2);
    auto t = f.connect();
    MiniAgent agent(*t);
    attach_all(f, *t, agent, 1U << 20);
    settle_and_compare(f, agent);
    WorkloadConfig config;
    config.ops = 50;
    Workload w(f.machine, f.devs, config);
    w.start();
    w.wait();
    const auto d = t->list().value();
    BOOST_TEST_REQUIRE(t->detach(d[1].disk).has_value());
    // The ring stays mapped, so what is in it may still be consumed; nothing more comes.
    w.start();
    w.wait();
    run_until(agent, [&] { return agent.mark() >= f.machine.info().seq; });
    BOOST_TEST((agent.image(0) == f.contents(0)));
    BOOST_TEST(!agent.consistent());
}

BOOST_AUTO_TEST_SUITE_END()
