// SPDX-License-Identifier: Apache-2.0
#include <fstream>

#include <boost/test/unit_test.hpp>

#include "../temp_dir.hpp"
#include "agent/verify_state.hpp"

using namespace blkferry;
using namespace blkferry::agent;

namespace {
using Folder = blkferry::test::TempDir;
constexpr std::uint64_t day = 86'400'000;

VerifyState opened(const Folder& dir, std::uint64_t now_ms) {
    std::optional<Error> damage;
    auto s = VerifyState::open(dir.path, now_ms, damage);
    BOOST_TEST(!damage.has_value());
    return s;
}
}  // namespace

BOOST_AUTO_TEST_CASE(place_and_result_are_read_back) {
    const Folder dir;
    auto s = opened(dir, 1000);
    s.running = VerifyState::Running{{0, 3}, {3, 4096}, 8192, 512, 1234, true};
    s.last = VerifyState::Last{1, 2, 3, 4, 5, "no \"session\"\n"};
    BOOST_REQUIRE(s.save().has_value());
    const auto again = opened(dir, 99'999);
    BOOST_TEST((again.running == s.running));
    BOOST_TEST((again.last == s.last));
    BOOST_TEST(again.text() == s.text());
    BOOST_TEST(!again.last->equal());
}

BOOST_AUTO_TEST_CASE(the_next_one_is_due_an_interval_after_the_last_began) {
    const Folder dir;
    auto s = opened(dir, 10 * day);
    BOOST_TEST(s.due_ms(0, 10 * day) == 0u);
    BOOST_TEST(s.due_ms(7 * day, 11 * day) == 17 * day);  // none yet: since the file was made
    s.last = VerifyState::Last{.began_ms = 20 * day, .ended_ms = 21 * day, .error = {}};
    BOOST_TEST(s.due_ms(7 * day, 22 * day) == 27 * day);
    // The clock went back: it counts from now, not from a day that may never come.
    BOOST_TEST(s.due_ms(7 * day, 5 * day) == 12 * day);
    BOOST_TEST(s.due_ms(7 * day, 9 * day) == 12 * day);  // and from the same moment on, or it would never be due
    BOOST_TEST(s.due_ms(7 * day, 2 * day) == 9 * day);   // set back once more
    BOOST_TEST(s.due_ms(7 * day, 10 * day) == 9 * day);
    s.last->began_ms = 10 * day;
    BOOST_TEST(s.due_ms(7 * day, 10 * day) == 17 * day);
}

BOOST_AUTO_TEST_CASE(a_damaged_file_begins_anew_and_says_so) {
    const std::string good = R"({"format":1,"made_ms":5,"running":{"slots":[0],"slot":0,"sector":8,"differing_bytes":0,)"
                             R"("unsettled_bytes":0,"began_ms":1,"scheduled":false}})";
    BOOST_TEST(VerifyState::parse(good).has_value());
    for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
             {"\"format\":1", "\"format\":2"}, {"[0]", "[]"}, {"[0]", "[3,1]"}, {"[0]", "[1,1]"}, {"[0]", "[70000]"}, {"[0]", "0"},
             {"\"sector\":8", "\"sector\":-8"}, {"\"sector\":8", "\"sector\":\"8\""}, {"\"slot\":0,", ""}, {"false", "0"}, {"}}", "}"}}) {
        std::string text = good;
        text.replace(text.find(from), from.size(), to);
        BOOST_TEST_CONTEXT(text) { BOOST_TEST(!VerifyState::parse(text).has_value()); }
        const Folder dir;
        std::ofstream(dir.path / "verify.json") << text;
        std::optional<Error> damage;
        const auto s = VerifyState::open(dir.path, 7, damage);
        BOOST_TEST(damage.has_value());
        BOOST_TEST(!s.running.has_value());
        BOOST_TEST(s.due_ms(1, 9) == 8u);
    }
}
