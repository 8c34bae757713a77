// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include "capture/merger.hpp"

#include <deque>
#include <random>

#include <boost/test/unit_test.hpp>

#include "ring_memory.hpp"

using namespace blkferry;
using namespace blkferry::capture;
using blkferry::capture::test::WritableRing;
using Status = Merger::Status;

BOOST_AUTO_TEST_SUITE(merger)

BOOST_AUTO_TEST_CASE(merges_two_rings_by_number) {
    WritableRing a;
    WritableRing b;
    a.push(1);
    b.push(2);
    b.push(3);
    a.push(4, BLKFERRY_OP_SWITCH);
    b.push(5);
    Ring ra = a.ring();
    Ring rb = b.ring();
    Merger m;
    m.add(ra, 0);
    m.add(rb, 7);
    std::vector<CapturedOp> ops;
    BOOST_TEST((m.take(ops, 100) == Status::op));  // stopped behind the marker
    BOOST_TEST(ops.size() == 4U);
    BOOST_TEST(m.mark() == 4U);
    BOOST_TEST((m.take(ops, 100) == Status::idle));
    BOOST_REQUIRE(ops.size() == 5U);
    for (std::size_t i = 0; i < 5; ++i)
        BOOST_TEST(ops[i].seq == i + 1);
    BOOST_TEST(ops[1].slot == 7U);
    BOOST_TEST(ops[3].slot == 0U);
    BOOST_TEST((ops[3].op == OpKind::epoch_switch));
    BOOST_TEST(m.mark() == 5U);
    BOOST_TEST(m.time_ns() == 1005U);
}

BOOST_AUTO_TEST_CASE(waits_for_the_unfinished_one_and_arms_its_ring) {
    WritableRing a;
    WritableRing b;
    a.push(1, BLKFERRY_OP_WRITE, 0, 8, 0, BLKFERRY_D_BUSY);
    b.push(2);
    Ring ra = a.ring();
    Ring rb = b.ring();
    Merger m;
    m.add(ra, 0);
    m.add(rb, 1);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Status::waiting));
    BOOST_TEST(m.arm());
    BOOST_TEST(a.cons().need_wake == 1U);
    BOOST_TEST(b.cons().need_wake == 0U);
    a.desc(0).state = BLKFERRY_D_FAILED;
    BOOST_TEST(!m.arm());
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST((op.state == OpState::failed));
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST((m.next(op) == Status::idle));
    BOOST_TEST(m.arm());
    BOOST_TEST(b.cons().need_wake == 1U);
}

BOOST_AUTO_TEST_CASE(a_hole_may_close_but_is_a_broken_promise_after_a_fence) {
    WritableRing a;
    WritableRing b;
    b.push(2);
    Ring ra = a.ring();
    Ring rb = b.ring();
    Merger m;
    m.add(ra, 0);
    m.add(rb, 1);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Status::hole));
    BOOST_TEST((m.next(op) == Status::hole));
    a.push(1);
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST(op.seq == 1U);
    BOOST_TEST((m.next(op) == Status::op));
    b.push(4);
    m.fence(0);  // a fence before the hole was seen proves nothing about it
    BOOST_TEST((m.next(op) == Status::hole));
    m.fence(0);
    BOOST_TEST((m.next(op) == Status::bad));
    BOOST_TEST((m.error().code == Errc::corrupt));
    BOOST_TEST(m.mark() == 2U);
    a.push(3);
    BOOST_TEST((m.next(op) == Status::bad));
}

BOOST_AUTO_TEST_CASE(void_numbers_are_skipped_live_ones_are_not) {
    WritableRing a;
    WritableRing b;
    a.push(3);
    b.push(9);
    Ring ra = a.ring();
    Ring rb = b.ring();
    Merger m;
    m.add(ra, 0);
    m.add(rb, 1);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Status::hole));
    m.fence(6);
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST(op.seq == 3U);
    BOOST_TEST((m.next(op) == Status::hole));  // 7 is missing and not void
    BOOST_TEST(m.mark() == 6U);
    m.fence(20);
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST(op.seq == 9U);
    BOOST_TEST((m.next(op) == Status::idle));
    BOOST_TEST(m.mark() == 20U);
    a.push(15);  // the tracker said that it is void, the merge has passed it
    BOOST_TEST((m.next(op) == Status::bad));
}

BOOST_AUTO_TEST_CASE(durable_operations_are_dropped_after_a_restart) {
    WritableRing a;
    for (std::uint64_t s = 1; s <= 6; ++s)
        a.push(s);
    Ring ra = a.ring();
    Merger m(4);
    m.add(ra, 0);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST(op.seq == 4U);
    BOOST_TEST(m.dropped() == 3U);
    const auto here = m.positions();
    BOOST_TEST((m.next(op) == Status::op));
    m.ack(here);
    BOOST_TEST(a.cons().tail == 4U);
    m.restart(6);
    BOOST_TEST((m.next(op) == Status::op));
    BOOST_TEST(op.seq == 6U);
    BOOST_TEST(m.dropped() == 1U);
}

BOOST_AUTO_TEST_CASE(removed_rings_take_no_acknowledgement) {
    WritableRing a;
    WritableRing b;
    a.push(1);
    b.push(2);
    Ring ra = a.ring();
    Ring rb = b.ring();
    Merger m;
    m.add(ra, 3);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Status::op));
    const auto here = m.positions();
    m.remove(3);
    m.add(rb, 3);
    BOOST_TEST((m.next(op) == Status::op));
    m.ack(here);
    BOOST_TEST(a.cons().tail == 0U);
    BOOST_TEST(b.cons().tail == 0U);
    m.ack(m.positions());
    BOOST_TEST(b.cons().tail == 1U);
}

BOOST_AUTO_TEST_CASE(a_bad_ring_stops_the_merge) {
    WritableRing a;
    WritableRing b;
    a.push(1);
    b.push(2).nr_sectors = 0;
    b.push(3);
    Ring ra = a.ring();
    Ring rb = b.ring();
    Merger m;
    m.add(ra, 0);
    m.add(rb, 1);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Status::bad));
    BOOST_TEST(!m.error().text.empty());
}

/// Numbers are drawn in order, descriptors become visible late, end out of order, rings fill and are acknowledged, a
/// disk is detached and another attached: what comes out must be what was drawn, in order.
BOOST_AUTO_TEST_CASE(random_interleavings_match_the_model) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        std::mt19937_64 rng(seed);
        const std::size_t disks = 1 + rng() % 6;
        std::vector<WritableRing> rings(disks);
        std::deque<Ring> views;
        Merger m;
        std::vector<std::deque<std::uint64_t>> busy(disks);        // descriptor indices
        std::vector<std::deque<blkferry_desc>> invisible(disks);   // drawn, head not yet moved
        struct Drawn {
            std::uint64_t sector;
            std::uint16_t slot;
            bool operator==(const Drawn&) const = default;
        };
        std::vector<Drawn> model;
        std::vector<Drawn> got;
        for (std::size_t d = 0; d < disks; ++d) {
            views.push_back(rings[d].ring());
            m.add(views.back(), static_cast<std::uint16_t>(d));
        }
        const auto publish = [&](std::size_t d) {
            const blkferry_desc desc = invisible[d].front();
            invisible[d].pop_front();
            rings[d].desc(rings[d].ctl().head) = desc;
            if (desc.state == BLKFERRY_D_BUSY)
                busy[d].push_back(rings[d].ctl().head);
            ++rings[d].ctl().head;
        };
        bool drain = false;
        while (!drain || got.size() < model.size()) {
            const std::size_t d = rng() % disks;
            const auto used = rings[d].ctl().head - rings[d].cons().tail + invisible[d].size();
            switch (rng() % 5) {
                case 0:
                case 1:
                    if (used < 64 && !drain) {
                        blkferry_desc desc = {};
                        desc.seq = model.size() + 1;
                        desc.op = BLKFERRY_OP_WRITE;
                        desc.sector = rng() % 100000;
                        desc.nr_sectors = 8;
                        desc.data_len = 4096;
                        desc.state = rng() % 2 == 0 ? BLKFERRY_D_BUSY : BLKFERRY_D_DONE;
                        model.push_back({desc.sector, static_cast<std::uint16_t>(d)});
                        invisible[d].push_back(desc);
                    }
                    break;
                case 2:
                    if (!invisible[d].empty())
                        publish(d);
                    break;
                case 3:
                    if (!busy[d].empty()) {
                        const auto it = busy[d].begin() + static_cast<std::ptrdiff_t>(rng() % busy[d].size());
                        rings[d].desc(*it).state = BLKFERRY_D_DONE;
                        busy[d].erase(it);
                    }
                    break;
                default: {
                    CapturedOp op;
                    Status s = Status::idle;
                    for (auto n = rng() % 20; n > 0 && (s = m.next(op)) == Status::op; --n)
                        got.push_back({op.sector, op.slot});
                    BOOST_REQUIRE((s != Status::bad));
                    BOOST_REQUIRE(m.mark() == got.size());
                    if (rng() % 3 == 0)
                        m.ack(m.positions());
                }
            }
            drain = drain || model.size() > 3000;
        }
        BOOST_TEST((got == model));
        CapturedOp op;
        BOOST_TEST((m.next(op) == Status::idle));
    }
}

BOOST_AUTO_TEST_SUITE_END()
