// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <optional>

#include "agent/freeze_cut.hpp"
#include "fixture.hpp"

using namespace blkferry;
using namespace blkferry::agent;

namespace {
struct Frozen : producer::Fixture {
    Frozen() : Fixture(1) {
        const auto tracker = connect();
        capture::AttachRequest request;
        request.dev = devs[0];
        const auto disk = tracker->attach(request).value();
        // RESYNC, so that a cut has a ring to go to.
        BOOST_REQUIRE(tracker->resync_begin(disk.disk).has_value());
    }
    std::unique_ptr<loop::Loop> loop = loop::Loop::create().value();
    FreezeCut::Open open = [this]() -> Result<std::unique_ptr<capture::Tracker>> {
        return capture::SocketTracker::connect(dir / "socket");
    };
};
}  // namespace

BOOST_AUTO_TEST_CASE(the_loop_goes_on_while_file_systems_are_frozen) {
    Frozen f;
    f.machine.freeze_time = std::chrono::milliseconds(500);
    FreezeCut cut(*f.loop, f.open);
    unsigned turns = 0;
    const auto timer = f.loop->every(5'000'000, [&] { ++turns; });
    std::optional<Result<std::uint64_t>> first;
    std::optional<Result<std::uint64_t>> second;
    cut.start({1}, 2000, [&](Result<std::uint64_t> r) {
        first = std::move(r);
        f.loop->stop();
    });
    BOOST_TEST(cut.running());
    cut.start({1}, 2000, [&](Result<std::uint64_t> r) { second = std::move(r); });
    BOOST_REQUIRE(second.has_value());
    BOOST_REQUIRE(!second->has_value());
    BOOST_TEST((second->error().code == Errc::busy));
    BOOST_REQUIRE(f.loop->run().has_value());
    BOOST_REQUIRE((first.has_value() && first->has_value()));
    BOOST_TEST(**first > 0U);
    BOOST_TEST(turns >= 10U);  // of about 100; none if the cut were taken in the loop
    BOOST_TEST(!cut.running());
}

BOOST_AUTO_TEST_CASE(a_cut_that_fails_says_why) {
    Frozen f;
    FreezeCut cut(*f.loop, [] { return Result<std::unique_ptr<capture::Tracker>>(fail(Errc::not_found, "no module")); });
    std::optional<Result<std::uint64_t>> got;
    cut.start({1}, 2000, [&](Result<std::uint64_t> r) {
        got = std::move(r);
        f.loop->stop();
    });
    BOOST_REQUIRE(f.loop->run().has_value());
    BOOST_REQUIRE((got.has_value() && !got->has_value()));
    BOOST_TEST(got->error().text == "no module");
}

BOOST_AUTO_TEST_CASE(an_agent_that_ends_waits_for_the_thaw) {
    Frozen f;
    f.machine.freeze_time = std::chrono::milliseconds(100);
    bool called = false;
    {
        FreezeCut cut(*f.loop, f.open);
        cut.start({1}, 2000, [&](Result<std::uint64_t>) { called = true; });
    }
    f.loop->post([&] { f.loop->stop(); });
    BOOST_REQUIRE(f.loop->run().has_value());
    BOOST_TEST(!called);
}
