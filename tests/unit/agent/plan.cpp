// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include "agent/disk.hpp"
#include "agent/rates.hpp"

using namespace blkferry;
using namespace blkferry::agent;

namespace {
PlanFacts in_step() {
    PlanFacts f;
    f.known = f.same_load = f.in_step = true;
    f.attach = f.server_attach = Uuid::random();
    return f;
}
}  // namespace

BOOST_AUTO_TEST_CASE(a_replica_in_step_carries_on) {
    BOOST_TEST((plan_disk(in_step()) == DiskPlan::carry_on));
}

BOOST_AUTO_TEST_CASE(a_server_without_replica_gets_all) {
    PlanFacts f = in_step();
    f.known = false;
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_initial));
    f.in_step = false;
    f.went_back = true;
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_initial));
}

BOOST_AUTO_TEST_CASE(another_tracking_session_means_rescan) {
    PlanFacts f = in_step();
    f.attach = Uuid::random();
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_rescan));
    f = in_step();
    f.same_load = false;
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_rescan));
}

BOOST_AUTO_TEST_CASE(who_went_back_means_rescan) {
    PlanFacts f = in_step();
    f.went_back = true;
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_rescan));
}

// What the maps do not hold any more of a sync that was begun is nowhere if the server has forgotten the epoch: it may have lost its
// journal or its checkpoint, and the WELCOME that said so (no load that a module has) may have been lost too.
BOOST_AUTO_TEST_CASE(a_replica_that_is_not_in_step_and_has_no_epoch_means_rescan) {
    PlanFacts f = in_step();
    f.in_step = false;
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_rescan));
    f.same_load = false;
    BOOST_TEST((plan_disk(f) == DiskPlan::whole_rescan));
}

BOOST_AUTO_TEST_CASE(rates_converge_and_a_busy_link_tells_its_speed) {
    Rates r;
    std::uint64_t now = 1'000'000'000;
    Rates::Values v{};
    r.feed(now, v, false);
    for (int i = 0; i < 200; ++i) {
        now += 100'000'000;
        v[Rates::capture] += 1'000'000;
        v[Rates::wire] += 250'000;
        r.feed(now, v, true);
    }
    BOOST_TEST(r.mean(Rates::capture) > 9'900'000U);
    BOOST_TEST(r.mean(Rates::capture) < 10'100'000U);
    BOOST_TEST(r.drain() > 2'400'000U);
    BOOST_TEST(r.drain() < 2'600'000U);
    const std::uint64_t before = r.drain();
    r.feed(now + 100'000'000, v, false);  // idle: nothing new is known
    BOOST_TEST(r.drain() == before);
}
