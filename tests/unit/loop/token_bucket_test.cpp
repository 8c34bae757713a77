// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "loop/token_bucket.hpp"

using blkferry::loop::TokenBucket;

namespace {

constexpr std::uint64_t second = 1'000'000'000;

struct Sent {
    std::uint64_t at;
    std::uint64_t bytes;
};

// The most bytes in any window of one second (windows that begin at a send are the worst ones).
std::uint64_t worst_second(const std::vector<Sent>& log) {
    std::uint64_t worst = 0;
    std::uint64_t sum = 0;
    std::size_t first = 0;
    for (const Sent& s : log) {
        sum += s.bytes;
        while (log[first].at + second <= s.at)
            sum -= log[first++].bytes;
        worst = std::max(worst, sum);
    }
    return worst;
}
// The least bytes in any second between `from` and `to`.
std::uint64_t least_second(const std::vector<Sent>& log, std::uint64_t from, std::uint64_t to) {
    std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
    for (std::uint64_t start = from; start + second <= to; start += second / 20) {
        std::uint64_t sum = 0;
        for (const Sent& s : log)
            if (s.at >= start && s.at < start + second)
                sum += s.bytes;
        least = std::min(least, sum);
    }
    return least;
}

// A greedy sender that wakes when told, a little late, and sends up to `piece` bytes.
std::vector<Sent> drive(TokenBucket& bucket, std::uint64_t from, std::uint64_t to, std::uint64_t piece, unsigned seed,
                        std::uint64_t late_ns_max) {
    std::mt19937_64 random(seed);
    std::vector<Sent> log;
    std::uint64_t now = from;
    while (now < to) {
        const std::uint64_t n = std::min(bucket.available(now), piece);
        if (n > 0) {
            bucket.take(now, n);
            log.push_back({now, n});
        } else {
            const std::uint64_t wait = bucket.wait_ns(now);
            BOOST_REQUIRE_GT(wait, 0u);
            now += wait + (late_ns_max != 0 ? random() % late_ns_max : 0);
        }
    }
    return log;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(token_bucket)

BOOST_AUTO_TEST_CASE(any_second_is_within_three_per_cent) {
    for (const std::uint64_t rate : {1000ULL, 12'345ULL, 125'000ULL, 2'500'000ULL, 125'000'000ULL, 1'250'000'000ULL}) {
        for (const std::uint64_t piece : {1ULL, 1460ULL, 16'384ULL, 1ULL << 20}) {
            if (rate / piece > 20'000)
                continue;
            for (const std::uint64_t late : {std::uint64_t{0}, std::uint64_t{2'000'000}}) {
                BOOST_TEST_CONTEXT("rate " << rate << " piece " << piece << " late " << late) {
                    TokenBucket bucket(rate, 7);
                    const auto log = drive(bucket, 7, 7 + 5 * second, piece, 1, late);
                    BOOST_TEST(worst_second(log) <= rate + rate * 3 / 100);
                    BOOST_TEST(least_second(log, 7, 7 + 5 * second) >= rate - rate * 3 / 100);
                }
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(idle_time_saves_up_only_the_burst) {
    TokenBucket bucket(1'000'000, 0);
    const std::uint64_t later = 3600 * second;
    const auto log = drive(bucket, later, later + second, 1000, 1, 0);
    BOOST_TEST(worst_second(log) <= 1'030'000u);
}

BOOST_AUTO_TEST_CASE(debt_is_paid_before_anything_else) {
    TokenBucket bucket(1'000'000, 0);
    bucket.take(0, 520'000);  // 500,000 more than the burst
    BOOST_TEST(bucket.available(0) == 0u);
    const std::uint64_t wait = bucket.wait_ns(0);
    BOOST_TEST(bucket.available(499 * second / 1000) == 0u);
    BOOST_TEST(wait >= second / 2);
    BOOST_TEST(wait <= second / 2 + second / 50);
    BOOST_TEST(bucket.available(wait) > 0u);
}

BOOST_AUTO_TEST_CASE(wait_is_exact) {
    std::mt19937_64 random(3);
    for (int i = 0; i < 20'000; ++i) {
        const std::uint64_t rate = 1 + random() % (1ULL << (1 + random() % 40));
        std::uint64_t now = random() % (1ULL << 60);
        TokenBucket bucket(rate, now);
        bucket.take(now, random() % (4 * rate + 1));
        now += random() % second;
        const std::uint64_t wait = bucket.wait_ns(now);
        if (wait == 0) {
            BOOST_REQUIRE_GT(bucket.available(now), 0u);
        } else {
            BOOST_REQUIRE_EQUAL(TokenBucket(bucket).available(now + wait - 1), 0u);
            BOOST_REQUIRE_GT(bucket.available(now + wait), 0u);
        }
    }
}

BOOST_AUTO_TEST_CASE(unlimited) {
    TokenBucket bucket;
    BOOST_TEST(bucket.unlimited());
    BOOST_TEST(bucket.available(5) == std::numeric_limits<std::uint64_t>::max());
    bucket.take(5, 1ULL << 60);
    BOOST_TEST(bucket.wait_ns(5) == 0u);
    BOOST_TEST(bucket.available(6) == std::numeric_limits<std::uint64_t>::max());
}

BOOST_AUTO_TEST_CASE(the_rate_changes_on_the_fly) {
    TokenBucket bucket(0, 0);
    bucket.take(0, 1ULL << 50);
    bucket.set_rate(1'000'000, second);
    auto log = drive(bucket, second, 4 * second, 1500, 1, 0);
    BOOST_TEST(worst_second(log) <= 1'030'000u);
    BOOST_TEST(least_second(log, second + second / 10, 4 * second) >= 970'000u);
    bucket.set_rate(100'000, 4 * second);
    log = drive(bucket, 4 * second, 8 * second, 1500, 1, 0);
    BOOST_TEST(worst_second(log) <= 103'000u);
    bucket.set_rate(10'000'000, 8 * second);
    log = drive(bucket, 8 * second, 10 * second, 1500, 1, 0);
    BOOST_TEST(worst_second(log) <= 10'300'000u);
    BOOST_TEST(least_second(log, 8 * second + second / 10, 10 * second) >= 9'700'000u);
    bucket.set_rate(0, 10 * second);
    BOOST_TEST(bucket.wait_ns(10 * second) == 0u);
}

BOOST_AUTO_TEST_CASE(a_clock_that_steps_back_gives_nothing) {
    TokenBucket bucket(1000, 10 * second);
    bucket.take(10 * second, 1020);
    BOOST_TEST(bucket.available(0) == 0u);
    BOOST_TEST(bucket.available(10 * second) == 0u);
    BOOST_TEST(bucket.available(10 * second + second / 10) == 0u);
    BOOST_TEST(bucket.available(12 * second) > 0u);
}

BOOST_AUTO_TEST_CASE(extreme_rates_do_not_overflow) {
    for (const std::uint64_t rate : {std::uint64_t{1}, std::numeric_limits<std::uint64_t>::max()}) {
        TokenBucket bucket(rate, 0);
        bucket.take(0, std::numeric_limits<std::uint64_t>::max());
        BOOST_TEST(bucket.wait_ns(0) > 0u);
        (void)bucket.available(std::numeric_limits<std::uint64_t>::max());
        bucket.set_rate(5, std::numeric_limits<std::uint64_t>::max());
        BOOST_TEST(bucket.burst() == 1u);
    }
}

BOOST_AUTO_TEST_SUITE_END()
