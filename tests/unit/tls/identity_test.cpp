// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <string>

#include "tls/identity.hpp"

using namespace blkferry;
using namespace blkferry::tls;

BOOST_AUTO_TEST_SUITE(identity)

BOOST_AUTO_TEST_CASE(text_form_goes_round) {
    for (const auto role : {Role::source, Role::server}) {
        const Identity id{role, "web-1.example_X"};
        const auto back = parse_identity(id.uri());
        BOOST_REQUIRE(back);
        BOOST_TEST((*back == id));
    }
}

BOOST_AUTO_TEST_CASE(malformed_ones_are_refused) {
    for (const std::string text :
         {"", "blkferry", "blkferry:", "blkferry:source", "blkferry:source:", "blkferry:admin:x", "blkferry:source:a/b",
          "blkferry:source:..", "blkferry:source:.x", "blkferry:source:-x", "blkferry:source:a b", "blkferry:source:a:b",
          "BLKFERRY:source:a", "https://x", "blkferry:source:caf\xc3\xa9"}) {
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!parse_identity(text)); }
    }
    BOOST_TEST(!parse_identity("blkferry:source:" + std::string(65, 'a')));
    BOOST_TEST(parse_identity("blkferry:source:" + std::string(64, 'a')).has_value());
    BOOST_TEST(!parse_identity(std::string("blkferry:source:a\0b", 19)));
}

BOOST_AUTO_TEST_CASE(name_error_shows_no_control_bytes) {
    const auto r = check_name("a\x1b[31m\n");
    BOOST_REQUIRE(!r);
    for (const char c : r.error().text)
        BOOST_TEST((c >= ' ' && c <= '~'));
}

BOOST_AUTO_TEST_SUITE_END()
