// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <set>

#include "base/uuid.hpp"

using namespace blkferry;

BOOST_AUTO_TEST_SUITE(uuid)

BOOST_AUTO_TEST_CASE(text_round_trip) {
    Uuid u;
    for (std::size_t i = 0; i < u.bytes.size(); ++i)
        u.bytes[i] = static_cast<std::uint8_t>(0x11 * i);
    BOOST_TEST(u.str() == "00112233-4455-6677-8899-aabbccddeeff");
    BOOST_TEST((Uuid::parse(u.str()).value() == u));
    BOOST_TEST(Uuid{}.is_nil());
    BOOST_TEST(Uuid{}.str() == "00000000-0000-0000-0000-000000000000");
}

BOOST_AUTO_TEST_CASE(refuses_other_texts) {
    for (const char* bad : {"", "0", "00112233445566778899aabbccddeeff", "00112233-4455-6677-8899-aabbccddeefg",
                            "00112233-4455-6677-8899-AABBCCDDEEFF", "00112233-4455-6677-8899-aabbccddeeff0",
                            "{0112233-4455-6677-8899-aabbccddeef}", "00112233_4455_6677_8899_aabbccddeeff",
                            "0-112233-4455-6677-8899-aabbccddeeff"})
        BOOST_TEST(!Uuid::parse(bad), bad);
}

BOOST_AUTO_TEST_CASE(random_is_version_4_and_differs) {
    std::set<Uuid> seen;
    for (int i = 0; i < 100; ++i) {
        const Uuid u = Uuid::random();
        BOOST_TEST((u.bytes[6] >> 4) == 4);
        BOOST_TEST((u.bytes[8] >> 6) == 2);
        BOOST_TEST(seen.insert(u).second);
    }
}

BOOST_AUTO_TEST_SUITE_END()
