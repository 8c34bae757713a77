// SPDX-License-Identifier: Apache-2.0
#include <fstream>
#include <set>
#include <sstream>

#include <boost/test/unit_test.hpp>

#include "agent/state.hpp"

using namespace blkferry::agent;
using enum SourceState;

BOOST_AUTO_TEST_CASE(document_is_generated_from_the_table) {
    std::ifstream in(BLKFERRY_STATES_MD);
    std::ostringstream text;
    text << in.rdbuf();
    BOOST_TEST(text.str() == states_markdown(), "docs/states.md is stale: run build/blkferry-states > docs/states.md");
}

BOOST_AUTO_TEST_CASE(console_texts_of_the_finalizing_states) {
    BOOST_TEST(row(flushing_backlog).console == "Finalizing initial sync - flushing backlog");
    BOOST_TEST(row(creating_snapshot).console == "Finalizing initial sync - creating first launchable snapshot");
}

BOOST_AUTO_TEST_CASE(names_are_unique_and_parse) {
    std::set<std::string_view> names;
    for (const StateRow& r : state_table()) {
        BOOST_TEST(names.insert(r.name).second);
        BOOST_TEST((parse_state(r.name) == r.state));
        BOOST_TEST(!r.meaning.empty());
        BOOST_TEST(r.next != 0);
    }
    BOOST_TEST(!parse_state("continuous").has_value());
}

BOOST_AUTO_TEST_CASE(the_way_of_a_new_source) {
    StateFacts f;
    BOOST_TEST((derive_state(f) == stopped));
    f.disks = 2;
    BOOST_TEST((derive_state(f) == initiating));
    f.connected_once = f.session = true;
    f.initial = f.gap = true;
    BOOST_TEST((derive_state(f) == initial_sync));
    f.initial = false;
    BOOST_TEST((derive_state(f) == flushing_backlog));
    f.gap = false;
    BOOST_TEST((derive_state(f) == flushing_backlog));
    f.flushed = true;
    BOOST_TEST((derive_state(f) == creating_snapshot));
    f.first_point = true;
    BOOST_TEST((derive_state(f) == continuous));
    f.gap = true;
    BOOST_TEST((derive_state(f) == backlog));
    f.rescan = true;
    BOOST_TEST((derive_state(f) == rescan));
    f.stalled = true;
    BOOST_TEST((derive_state(f) == stalled));
    f.session = false;
    BOOST_TEST((derive_state(f) == disconnected));
    f.paused = true;
    BOOST_TEST((derive_state(f) == paused));
}

// Whatever one fact changes, the table allows the step that it makes. Facts that cannot be together are left out: a session
// means that it was connected once, and that is never taken back.
BOOST_AUTO_TEST_CASE(every_step_that_one_fact_makes_is_in_the_table) {
    constexpr unsigned facts = 10;
    const auto make = [](unsigned bits) {
        const auto on = [&](unsigned i) { return ((bits >> i) & 1U) != 0; };
        return StateFacts{on(0) ? 1U : 0U, on(1), on(2), on(3), on(4), on(5), on(6), on(7), on(8), on(9)};
    };
    for (unsigned bits = 0; bits < (1U << facts); ++bits)
        for (unsigned i = 0; i < facts; ++i) {
            const auto possible = [](const StateFacts& f) { return !f.session || f.connected_once; };
            const StateFacts before = make(bits);
            const StateFacts after = make(bits ^ (1U << i));
            if (!possible(before) || !possible(after) || (before.connected_once && !after.connected_once))
                continue;
            const SourceState from = derive_state(before);
            const SourceState to = derive_state(after);
            if (from != to)
                BOOST_TEST(may_follow(from, to), to_string(from) << " -> " << to_string(to) << " (fact " << i << ")");
        }
}
