// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "config/units.hpp"

using namespace blkferry;
using namespace blkferry::config;

namespace {

using Case = std::pair<std::string, std::uint64_t>;

// Numbers of all magnitudes, round ones among them.
std::uint64_t any_number(std::mt19937_64& random) {
    const std::uint64_t n = random() >> (random() % 64);
    constexpr std::uint64_t factors[] = {1, 1000, 1024, 1'000'000, 1ULL << 20, 3'600'000, 125, 1ULL << 40};
    const std::uint64_t f = factors[random() % std::size(factors)];
    return n <= UINT64_MAX / f ? n * f : n;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(units)

BOOST_AUTO_TEST_CASE(sizes) {
    for (const auto& [text, value] : std::vector<Case>{{"0", 0}, {"4096", 4096}, {"64KiB", 65536}, {"16MiB", 16U << 20},
                                                       {"8GiB", 8ULL << 30}, {"2TiB", 2ULL << 40}, {"10kB", 10'000},
                                                       {"1MB", 1'000'000}, {"1.5GiB", 3ULL << 29}, {"0.5kib", 512},
                                                       {"64 MiB", 64U << 20}, {"7B", 7}, {"1.000001MB", 1'000'001},
                                                       {"18446744073709551615", UINT64_MAX}})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(parse_size(text).value_or(1) == value); }
    for (const std::string text : {"", " 1", "1 ", "-1", "+1", "1  MiB", "MiB", "1M", "1K", "1e3", "0x10", "1.MiB", ".5MiB",
                                   "1.5", "0.3KiB", "16777216TiB", "18446744073709551616", "1MiBs", "1.0000001MB",
                                   "64MiB\n", "1,5MiB"})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!parse_size(text)); }
}

BOOST_AUTO_TEST_CASE(rates) {
    for (const auto& [text, value] : std::vector<Case>{{"0", 0}, {"unlimited", 0}, {"20mbit", 2'500'000},
                                                       {"8kbit", 1000}, {"1gbit", 125'000'000}, {"2mbyte", 2'000'000},
                                                       {"100kbyte", 100'000}, {"1gbyte", 1'000'000'000},
                                                       {"12.5 MB/s", 12'500'000}, {"64kB/s", 64'000}, {"8000bit", 1000},
                                                       {"2.5mbit", 312'500}, {"20Mbit", 2'500'000}})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(parse_rate(text).value_or(1) == value); }
    for (const std::string text : {"", "20", "20m", "20mb", "20mib", "-1mbit", "7kbit", "8001bit", "1 byte", "mbit", "20mbps",
                                   "99999999999gbyte"})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!parse_rate(text)); }
}

BOOST_AUTO_TEST_CASE(durations) {
    for (const auto& [text, value] :
         std::vector<Case>{{"0", 0}, {"200ms", 200}, {"30s", 30'000}, {"10min", 600'000}, {"2h", 7'200'000}, {"7d", 604'800'000},
                           {"1.5s", 1500}})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(parse_duration_ms(text).value_or(1) == value); }
    for (const std::string text : {"", "5", "5m", "5 minutes", "-1s", "0.5ms"})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!parse_duration_ms(text)); }
}

BOOST_AUTO_TEST_CASE(all_go_round) {
    std::mt19937_64 random(11);
    for (int i = 0; i < 50'000; ++i) {
        const std::uint64_t n = any_number(random);
        BOOST_REQUIRE_EQUAL(parse_size(format_size(n)).value_or(~n), n);
        BOOST_REQUIRE_EQUAL(parse_duration_ms(format_duration_ms(n)).value_or(~n), n);
        const std::uint64_t rate = n == 0 ? 0 : n < 1000 ? n + 1000 : n / 8;
        if (rate == 0 || rate >= 1000)
            BOOST_REQUIRE_EQUAL(parse_rate(format_rate(rate)).value_or(~rate), rate);
    }
    BOOST_TEST(format_size(64U << 20) == "64MiB");
    BOOST_TEST(format_rate(2'500'000) == "20mbit");
    BOOST_TEST(format_duration_ms(600'000) == "10min");
}

BOOST_AUTO_TEST_CASE(endpoints) {
    const auto is = [](const std::string& text, const std::string& host, std::uint16_t port) {
        const auto e = parse_endpoint(text, 1500);
        BOOST_REQUIRE_MESSAGE(e.has_value(), (e ? std::string() : e.error().text));
        BOOST_TEST(e->host == host);
        BOOST_TEST(e->port == port);
        BOOST_TEST((parse_endpoint(e->str(), 1) == *e));
    };
    is("replica.example.org:1501", "replica.example.org", 1501);
    is("replica", "replica", 1500);
    is("192.0.2.1:65535", "192.0.2.1", 65535);
    is("[2001:db8::1]:1500", "2001:db8::1", 1500);
    is("[::]", "::", 1500);
    is("[fe80::1%eth0]:1500", "fe80::1%eth0", 1500);
    for (const std::string text : {"", ":1500", "host:", "host:0", "host:65536", "host:x", "host:1 ", "::1", "2001:db8::1",
                                   "[::1", "[]", "[]:1", "[host]:1", "[::1]1500", "[::1]x", "a b:1", "h/x:1", "user@h:1", "host:-1",
                                   "host:1:2", "[%eth0]", "[::1%]", "[::1%a%b]", "[::1%[]"})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!parse_endpoint(text, 1500)); }
    BOOST_TEST(!parse_endpoint(std::string(254, 'a'), 1500));
}

BOOST_AUTO_TEST_SUITE_END()
