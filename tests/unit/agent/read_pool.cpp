// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <cstdint>
#include <thread>
#include <vector>

#include "agent/read_pool.hpp"

using namespace blkferry::agent;

namespace {
constexpr std::size_t page = 4096;
}

// A caller that asks full() and then loops on take() would spin if the two did not agree, also for less than a page.
BOOST_AUTO_TEST_CASE(full_and_take_agree_at_every_size) {
    for (const std::size_t budget : {3 * page, 4 * page, 4 * page + 512}) {
        ReadPool pool(budget);
        std::vector<std::shared_ptr<std::byte>> held;
        for (std::size_t round = 0; round < 6; ++round) {
            for (const std::size_t bytes : {std::size_t{512}, page - 512, page, page + 512, 2 * page, 3 * page + 512}) {
                const bool full = pool.full(bytes);
                auto buffer = pool.take(bytes);
                BOOST_CHECK_EQUAL(full, buffer == nullptr);
            }
            if (auto one = pool.take(page))
                held.push_back(std::move(one));
        }
        BOOST_CHECK_EQUAL(held.size(), budget / page);
        BOOST_CHECK(pool.full(512));
        held.pop_back();
        BOOST_CHECK(!pool.full(512));
    }
}

BOOST_AUTO_TEST_CASE(one_buffer_is_always_granted_and_all_are_aligned) {
    ReadPool pool(page);
    auto big = pool.take(8 * page);
    BOOST_REQUIRE(big != nullptr);
    BOOST_CHECK_EQUAL(reinterpret_cast<std::uintptr_t>(big.get()) % page, 0U);
    BOOST_CHECK(pool.take(512) == nullptr);
    std::thread([&] { big.reset(); }).join();
    BOOST_CHECK(pool.take(512) != nullptr);
}
