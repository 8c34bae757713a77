// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <cstdlib>
#include <random>
#include <vector>

#include <blkferry.h>

#include "agent/self_check.hpp"

using namespace blkferry;
using namespace blkferry::agent;

namespace {

/// A disk with a module in front of it: each write is captured, then counted by the disk, then ends, seconds later maybe.
struct Machine {
    capture::DiskInfo info;
    std::uint64_t own = 1000;  // what was written before the attach
    struct Write {
        std::uint64_t sectors;
        bool counted = false;
    };
    std::vector<Write> flight;

    Machine() {
        info.attach_id.bytes[0] = 1;
        info.counters.assign(BLKFERRY_C_MAX, 0);
        info.writes = 0;
    }
    void submit(std::uint64_t sectors) {
        info.counters[BLKFERRY_C_SECTORS] += sectors;
        flight.push_back({sectors});
        info.writes = static_cast<std::uint32_t>(flight.size());
    }
    void count(std::size_t i) {
        if (!std::exchange(flight[i].counted, true))
            own += flight[i].sectors;
    }
    void end(std::size_t i, bool cancelled) {
        if (!cancelled)
            count(i);
        flight.erase(flight.begin() + static_cast<std::ptrdiff_t>(i));
        info.writes = static_cast<std::uint32_t>(flight.size());
    }
};

std::uint64_t seed_of_run() {
    const char* text = std::getenv("BLKFERRY_SEED");
    return text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
}

/// Feeds until quiet is certain; nothing may be found.
void settle(SelfCheck& check, Machine& m) {
    for (int i = 0; i < 3; ++i)
        BOOST_TEST(!check.feed(m.own, m.info).has_value());
}

}  // namespace

BOOST_AUTO_TEST_CASE(stat_text_of_kernels_old_and_new) {
    const auto now = parse_disk_stat("    9000     6 500000  3000     4000    70   123456    800        2      100     900     11     0    2048     3    77     5\n");
    BOOST_REQUIRE(now);
    BOOST_TEST(*now == 123456U + 2048U);
    const auto old = parse_disk_stat("1 2 3 4 5 6 7 8 9 10 11\n");
    BOOST_REQUIRE(old);
    BOOST_TEST(*old == 7U);
    for (const char* bad : {"", "\n", "1 2 3 4 5 6", "1 2 3 4 5 6 x", "1 2 3 4 5 6 7y", "1 2 3 4 5 6 99999999999999999999999", "-1 2 3 4 5 6 7"})
        BOOST_TEST(!parse_disk_stat(bad).has_value());
    BOOST_TEST(!read_disk_stat(capture::device_number(4095, 1048575)).has_value());
}

BOOST_AUTO_TEST_CASE(nothing_is_suspected_while_everything_is_captured) {
    const std::uint64_t seed = seed_of_run();
    BOOST_TEST_MESSAGE("BLKFERRY_SEED=" << seed);
    std::mt19937_64 random(seed);
    SelfCheck check;
    Machine m;
    for (int second = 0; second < 20'000; ++second) {
        // busy for a while, then quiet for a while
        const bool busy = second / 50 % 3 != 0;
        for (int step = 0; step < 20; ++step) {
            if (busy && random() % 3 == 0)
                m.submit(1 + random() % 256);
            if (m.flight.empty())
                continue;
            const std::size_t i = random() % m.flight.size();
            switch (random() % 4) {
                case 0: m.count(i); break;
                case 1: m.end(i, !m.flight[i].counted && random() % 8 == 0); break;
                default: break;
            }
        }
        const std::uint64_t own = m.own;
        // between the two readings life goes on
        if (busy)
            m.submit(8);
        if (random() % 1000 == 0)
            m.info.counters[BLKFERRY_C_DIRTY_SECTORS] += 64;  // counted twice
        if (random() % 500 == 0) {                            // told and repaired by the module
            m.info.counters[BLKFERRY_C_UNKNOWN] += 1;
            m.own += 16;
        }
        const auto missed = check.feed(own, m.info);
        BOOST_REQUIRE_MESSAGE(!missed, "second " << second << ": " << *missed << " sectors, BLKFERRY_SEED=" << seed);
    }
}

BOOST_AUTO_TEST_CASE(a_bypass_is_found_once_quiet_or_busy) {
    SelfCheck check;
    Machine m;
    settle(check, m);
    m.own += 48;
    for (int i = 1; i < SelfCheck::confirmations; ++i)
        BOOST_TEST(!check.feed(m.own, m.info).has_value());
    const auto missed = check.feed(m.own, m.info);
    BOOST_REQUIRE(missed.has_value());
    BOOST_TEST(*missed == 48U);
    settle(check, m);  // told once

    // Under a load that never pauses: what is in flight hides some of it, the rest is certain.
    m.submit(32);
    BOOST_TEST(!check.feed(m.own, m.info).has_value());
    m.own += 100;
    std::optional<std::uint64_t> found;
    for (int i = 0; i < SelfCheck::confirmations; ++i) {
        m.submit(32);
        m.end(0, false);
        found = check.feed(m.own, m.info);
    }
    BOOST_REQUIRE(found.has_value());
    BOOST_TEST(*found >= 68U);
    BOOST_TEST(*found <= 100U);
}

BOOST_AUTO_TEST_CASE(not_judged_without_a_bound) {
    // never quiet
    SelfCheck busy;
    Machine m;
    for (int i = 0; i < 100; ++i) {
        m.submit(8);
        m.own += 8;
        BOOST_TEST(!busy.feed(m.own, m.info).has_value());
        m.end(0, false);
        m.submit(8);
    }
    // another attach, another life of the counter, a capture event that is repaired: begin anew
    for (int what = 0; what < 3; ++what) {
        SelfCheck check;
        Machine n;
        settle(check, n);
        n.own += 8;
        (void)check.feed(n.own, n.info);
        if (what == 0)
            n.info.attach_id.bytes[0] = 2;
        else if (what == 1)
            n.own = 0;
        else
            ++n.info.counters[BLKFERRY_C_RESTACKED];
        for (int i = 0; i < 10; ++i)
            BOOST_TEST(!check.feed(n.own, n.info).has_value());
    }
    // a module that does not tell what is in flight
    SelfCheck blind;
    Machine n;
    n.info.writes.reset();
    for (int i = 0; i < 10; ++i)
        BOOST_TEST(!blind.feed(n.own += 8, n.info).has_value());
}
