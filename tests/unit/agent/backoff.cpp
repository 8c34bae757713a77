// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include "agent/backoff.hpp"

using blkferry::agent::Backoff;

BOOST_AUTO_TEST_CASE(doubles_up_to_the_cap_within_half_and_whole) {
    for (const std::uint64_t random : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{0x9e3779b97f4a7c15}}) {
        Backoff b;
        std::uint64_t whole = Backoff::first_ms;
        for (int i = 0; i < 20; ++i) {
            const std::uint64_t ms = b.next_ms(random);
            BOOST_TEST(ms >= whole / 2);
            BOOST_TEST(ms <= whole);
            whole = std::min(whole * 2, Backoff::max_ms);
        }
        BOOST_TEST(whole == Backoff::max_ms);
        b.reset();
        BOOST_TEST(b.next_ms(random) <= Backoff::first_ms);
    }
}
