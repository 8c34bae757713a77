// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <nlohmann/json.hpp>

#include "control/line_buffer.hpp"
#include "control/message.hpp"

using namespace blkferry;
using namespace blkferry::control;

BOOST_AUTO_TEST_SUITE(message)

BOOST_AUTO_TEST_CASE(lines_whole_split_and_too_long) {
    LineBuffer b(10);
    b.append("ab");
    BOOST_TEST(!b.next()->has_value());
    b.append("c\nd\r\n\nrest");
    BOOST_TEST(**b.next() == "abc");
    BOOST_TEST(**b.next() == "d");
    BOOST_TEST(**b.next() == "");
    BOOST_TEST(!b.next()->has_value());
    b.append("12345\n");  // 10 bytes with the newline
    BOOST_TEST(**b.next() == "rest12345");
    b.append("1234567890\n");
    BOOST_TEST(!b.next());
    LineBuffer c(10);
    c.append("12345678901");
    BOOST_TEST(!c.next());  // refused before the newline comes
}

BOOST_AUTO_TEST_CASE(what_is_no_request_is_refused) {
    for (const std::string text : {"", "x", "[]", "1", "null", "{", "{\"a\":1}{", "{\"a\":1,\"a\":2}", "{\"a\":nan}",
                                   "{\"a\":{\"b\":1,\"b\":2}}"})
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!parse_line(text)); }
    BOOST_TEST(parse_line("{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":2}]}").has_value());
    const auto nested = [](std::size_t depth) {
        return "{\"a\":" + std::string(depth, '[') + std::string(depth, ']') + "}";
    };
    BOOST_TEST(parse_line(nested(json_depth_max - 2)).has_value());
    BOOST_TEST(!parse_line(nested(json_depth_max + 1)));
    BOOST_TEST(!parse_line(nested(30'000)));
    BOOST_TEST(!parse_line("{\"a\":" + std::string(60'000, '[')));
}

BOOST_AUTO_TEST_CASE(members_are_checked_by_name) {
    const auto request = parse_line(R"({"cmd":"x","s":"t","n":5,"m":-1,"f":1.5,"b":true,"l":["a","b"],"big":18446744073709551615})");
    BOOST_REQUIRE(request);
    BOOST_TEST(*need_string(*request, "s") == "t");
    BOOST_TEST(*get_string(*request, "none", "d") == "d");
    BOOST_TEST(!need_string(*request, "none"));
    BOOST_TEST(!get_string(*request, "n", ""));
    BOOST_TEST(*need_u64(*request, "n") == 5u);
    BOOST_TEST(*need_u64(*request, "big") == 18446744073709551615ULL);
    for (const char* key : {"m", "f", "s", "b", "none"})
        BOOST_TEST(!need_u64(*request, key));
    BOOST_TEST(*get_bool(*request, "b", false));
    BOOST_TEST(!get_bool(*request, "n", false));
    BOOST_TEST(get_strings(*request, "l", 2)->size() == 2u);
    BOOST_TEST(!get_strings(*request, "l", 1));
    BOOST_TEST(!get_strings(*request, "s", 1));
    BOOST_TEST(only_members(*request, {"s", "n", "m", "f", "b", "l", "big"}).has_value());
    const auto r = only_members(*request, {"s", "n", "m", "f", "b", "big"});
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text.find("'l'") != std::string::npos);
}

BOOST_AUTO_TEST_CASE(errors_go_round) {
    for (const Errc code : {Errc::invalid, Errc::denied, Errc::conflict, Errc::timeout}) {
        const auto back = parse_line(to_line(error_message(Error{code, 0, "text \"x\"\n"})));
        BOOST_REQUIRE(back);
        const Error e = error_of(*back);
        BOOST_TEST((e.code == code));
        BOOST_TEST(e.text == "text \"x\"\n");
    }
    BOOST_TEST((error_of(Json::object()).code == Errc::io));
    BOOST_TEST((error_of(Json{{"code", 5}, {"error", Json::array()}}).code == Errc::io));
    // Bytes that are no UTF-8 do not throw.
    BOOST_TEST(to_line(Json{{"a", "\xff\xfe"}}).ends_with("\n"));
}

BOOST_AUTO_TEST_SUITE_END()
