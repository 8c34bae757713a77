// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include "agent/stamp_ages.hpp"

using blkferry::agent::StampAges;

namespace {
constexpr std::uint64_t s = 1'000'000'000;
constexpr std::uint64_t day = 86'400 * s;

/// Both clocks, read four times a second as the agent does.
struct Clocks {
    StampAges ages;
    std::uint64_t mono = 1000 * s;
    std::uint64_t offset = 20'000 * day;
    std::uint64_t real() const { return mono + offset; }
    void pass(std::uint64_t ns) {
        for (const std::uint64_t end = mono + ns; mono < end; mono += s / 4)
            ages.feed(real(), mono);
        ages.feed(real(), mono);
    }
    void jump(std::int64_t ns) { offset += static_cast<std::uint64_t>(ns); }
    /// In whole seconds: readings are coarse.
    std::uint64_t age(std::uint64_t stamp) { return (ages.oldest_ns(stamp, mono) + s / 2) / s; }
};
}  // namespace

BOOST_AUTO_TEST_CASE(ages_without_any_jump) {
    Clocks c;
    c.pass(s);
    const std::uint64_t stamp = c.real();
    BOOST_TEST(c.age(stamp) == 0u);
    c.pass(90 * s);
    BOOST_TEST(c.age(stamp) == 90u);
    // Made before the agent ran.
    Clocks d;
    d.pass(s);
    BOOST_TEST(d.age(d.real() - 500 * s) == 500u);
}

BOOST_AUTO_TEST_CASE(a_write_that_waits_ages_by_the_time_that_passes_whatever_the_clock_is_set_to) {
    for (const std::int64_t jump : {std::int64_t{3600} * std::int64_t{s}, -std::int64_t{7200} * std::int64_t{s}, 10 * std::int64_t{day},
                                    -10 * std::int64_t{day}}) {
        Clocks c;
        c.pass(s);
        c.ages.settled(c.mono);
        const std::uint64_t stamp = c.real();
        c.pass(60 * s);
        c.jump(jump);
        c.pass(30 * s);
        BOOST_TEST(c.age(stamp) == 90u);
        c.jump(-jump / 2);
        c.pass(30 * s);
        BOOST_TEST(c.age(stamp) == 120u);
    }
}

BOOST_AUTO_TEST_CASE(a_write_after_a_jump_is_young) {
    for (const std::int64_t jump : {std::int64_t{3600} * std::int64_t{s}, -std::int64_t{3600} * std::int64_t{s}, 10 * std::int64_t{day},
                                    -10 * std::int64_t{day}}) {
        Clocks c;
        c.pass(100 * s);
        c.ages.settled(c.mono);
        c.jump(jump);
        c.pass(5 * s);
        c.ages.settled(c.mono);
        const std::uint64_t stamp = c.real();
        c.pass(2 * s);
        BOOST_TEST(c.age(stamp) == 2u);
        BOOST_TEST(c.ages.age_ns(stamp, c.mono) / s == 2u);
    }
}

BOOST_AUTO_TEST_CASE(what_waited_through_two_jumps_drains_in_order) {
    Clocks c;
    c.pass(s);
    c.ages.settled(c.mono);
    std::vector<std::pair<std::uint64_t, std::uint64_t>> made;  // stamp, moment
    for (const std::int64_t jump : {-std::int64_t{100} * std::int64_t{s}, 2 * std::int64_t{day}, std::int64_t{0}}) {
        for (int i = 0; i < 5; ++i) {
            made.emplace_back(c.real(), c.mono);
            c.pass(10 * s);
        }
        c.jump(jump);
        c.pass(s);
    }
    for (const auto& [stamp, moment] : made)
        BOOST_TEST(c.age(stamp) == (c.mono - moment + s / 2) / s);
}

BOOST_AUTO_TEST_CASE(a_stamp_that_cannot_be_is_not_younger_nor_older_than_its_place_in_the_order) {
    Clocks c;
    c.pass(10 * s);
    c.ages.settled(c.mono - 5 * s);
    BOOST_TEST(c.age(c.real() + 400 * day) == 5u);
    BOOST_TEST(c.age(~0ULL) == 5u);
    BOOST_TEST(c.age(1) == 5u);
    StampAges never_fed;
    BOOST_TEST(never_fed.age_ns(5, 7) == 0u);
}

BOOST_AUTO_TEST_CASE(many_jumps_are_forgotten_in_time) {
    Clocks c;
    for (int i = 0; i < 1000; ++i) {
        c.jump(i % 3 == 0 ? -std::int64_t{3600} * std::int64_t{s} : std::int64_t{1800} * std::int64_t{s});
        c.pass(s);
    }
    c.ages.settled(c.mono);
    const std::uint64_t stamp = c.real();
    c.pass(3 * s);
    BOOST_TEST(c.age(stamp) == 3u);
}
