// SPDX-License-Identifier: Apache-2.0
#include "capture/ring.hpp"

#include <functional>
#include <random>

#include <boost/test/unit_test.hpp>

#include "extent/extent_set.hpp"
#include "ring_memory.hpp"

using namespace blkferry;
using namespace blkferry::capture;
using blkferry::capture::test::WritableRing;

BOOST_AUTO_TEST_SUITE(ring)

BOOST_AUTO_TEST_CASE(gives_operations_and_takes_acknowledgements) {
    WritableRing w;
    std::memset(w.data() + 4096, 0x5a, 4096);
    w.push(5, BLKFERRY_OP_WRITE, 64, 8, w.ctl().data_bytes + 4096).flags = BLKFERRY_F_FUA;
    w.push(7, BLKFERRY_OP_DISCARD, 128, 1000);
    w.push(9, BLKFERRY_OP_CUT);
    Ring r = w.ring();
    CapturedOp op;
    BOOST_TEST((r.peek(op) == Ring::Peek::ready));
    BOOST_TEST(op.seq == 5U);
    BOOST_TEST(op.sector == 64U);
    BOOST_TEST(op.flags == BLKFERRY_F_FUA);
    BOOST_REQUIRE(op.payload().size() == 4096U);
    BOOST_TEST((op.payload()[4095] == std::byte{0x5a}));
    r.advance();
    BOOST_TEST((r.peek(op) == Ring::Peek::ready));
    BOOST_TEST((op.op == OpKind::discard));
    BOOST_TEST(!op.has_payload());
    r.advance();
    BOOST_TEST((r.peek(op) == Ring::Peek::ready));
    BOOST_TEST(is_marker(op.op));
    BOOST_TEST(!r.ack(3));  // not consumed
    r.advance();
    BOOST_TEST((r.peek(op) == Ring::Peek::empty));
    BOOST_TEST(w.cons().tail == 0U);
    BOOST_TEST(r.ack(2));
    BOOST_TEST(w.cons().tail == 2U);
    BOOST_TEST(!r.ack(1));  // never back
    r.rewind();
    BOOST_TEST((r.peek(op) == Ring::Peek::ready));
    BOOST_TEST(op.seq == 9U);
}

BOOST_AUTO_TEST_CASE(stops_at_the_first_unfinished) {
    WritableRing w;
    w.push(1, BLKFERRY_OP_WRITE, 0, 8, 0, BLKFERRY_D_BUSY);
    w.push(2);
    Ring r = w.ring();
    CapturedOp op;
    BOOST_TEST((r.peek(op) == Ring::Peek::unfinished));
    BOOST_TEST(op.seq == 1U);
    w.desc(0).state = BLKFERRY_D_COPIED;
    BOOST_TEST((r.peek(op) == Ring::Peek::unfinished));
    w.desc(0).state = BLKFERRY_D_CANCELLED;
    BOOST_TEST((r.peek(op) == Ring::Peek::ready));
    BOOST_TEST((op.state == OpState::cancelled));
    BOOST_TEST(!op.has_payload());
}

BOOST_AUTO_TEST_CASE(head_is_seen_after_refresh) {
    WritableRing w;
    Ring r = w.ring();
    CapturedOp op;
    w.push(1);
    BOOST_TEST((r.peek(op) == Ring::Peek::empty));
    BOOST_TEST(r.refresh());
    BOOST_TEST((r.peek(op) == Ring::Peek::ready));
}

BOOST_AUTO_TEST_CASE(arm_only_when_there_is_nothing_to_do) {
    WritableRing w;
    Ring r = w.ring();
    BOOST_TEST(r.arm());
    BOOST_TEST(w.cons().need_wake == 1U);
    w.push(1, BLKFERRY_OP_WRITE, 0, 8, 0, BLKFERRY_D_BUSY);
    BOOST_TEST(r.arm());
    w.desc(0).state = BLKFERRY_D_DONE;
    BOOST_TEST(!r.arm());
    BOOST_TEST(w.cons().need_wake == 0U);
}

BOOST_AUTO_TEST_CASE(starts_at_the_consumers_tail) {
    WritableRing w;
    for (std::uint64_t s = 1; s <= 10; ++s)
        w.push(s);
    w.ctl().kernel_tail = 3;
    w.cons().tail = 5;
    BOOST_TEST(w.ring().tail() == 5U);
    w.cons().tail = 11;  // beyond head: what the previous consumer left is no use
    BOOST_TEST(w.ring().tail() == 3U);
    BOOST_TEST(w.cons().tail == 3U);
    w.cons().tail = 2;
    BOOST_TEST(w.ring().tail() == 3U);
}

BOOST_AUTO_TEST_CASE(refuses_a_bad_geometry) {
    const auto refused = [](const std::function<void(blkferry_ctl&)>& spoil) {
        WritableRing w;
        spoil(w.ctl());
        return !Ring::open(w.memory()).has_value();
    };
    BOOST_TEST(!refused([](blkferry_ctl&) {}));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.magic = 1; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.abi = 2; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.disk = 256; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.desc_count = 63; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.desc_count = 128; }));  // larger than the mapping
    BOOST_TEST(refused([](blkferry_ctl& c) { c.data_bytes = 1ULL << 40; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.data_bytes = 128U << 10; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.data_bytes = 0; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.nr_sectors = 0; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.nr_sectors = 1ULL << 60; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.nr_sectors <<= 1; }));  // the map is too small for it
    BOOST_TEST(refused([](blkferry_ctl& c) { c.block_shift = 9; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.block_shift = 200; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.logical_block = 513; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.map_bytes += 8; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.map_bytes = ~0ULL; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.head = 65; }));
    BOOST_TEST(refused([](blkferry_ctl& c) { c.kernel_tail = 1; }));  // beyond head
}

BOOST_AUTO_TEST_CASE(a_broken_descriptor_makes_the_ring_bad_for_ever) {
    const auto bad = [](const std::function<void(blkferry_desc&)>& spoil) {
        WritableRing w;
        w.push(7);
        spoil(w.push(8));
        Ring r = w.ring();
        CapturedOp op;
        BOOST_REQUIRE((r.peek(op) == Ring::Peek::ready));
        r.advance();
        if (r.peek(op) != Ring::Peek::bad)
            return false;
        w.desc(1) = w.desc(0);
        w.desc(1).seq = 8;
        return r.peek(op) == Ring::Peek::bad && !r.refresh() && r.error().code == Errc::corrupt;
    };
    BOOST_TEST(!bad([](blkferry_desc&) {}));
    BOOST_TEST(bad([](blkferry_desc& d) { d.seq = 7; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.seq = 0; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.state = BLKFERRY_D_FREE; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.state = 7; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.op = 0; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.op = 5; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.op = 19; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.op = BLKFERRY_OP_CUT; }));  // marker with a range
    BOOST_TEST(bad([](blkferry_desc& d) { d.op = BLKFERRY_OP_DISCARD; }));  // payload without vectors
    BOOST_TEST(bad([](blkferry_desc& d) { d.nr_sectors = 0; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.sector = 1U << 20; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.sector = ~0ULL; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.sector = (1U << 20) - 7; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.data_len = 4095; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.data_len = 0; }));
    BOOST_TEST(bad([](blkferry_desc& d) { d.data_pos = (64U << 10) - 4095; }));  // would wrap
    BOOST_TEST(!bad([](blkferry_desc& d) { d.data_pos = (64U << 10) - 4096; }));
    BOOST_TEST(bad([](blkferry_desc& d) {
        d.nr_sectors = 1U << 19;
        d.data_len = 1U << 28;
    }));
}

BOOST_AUTO_TEST_CASE(a_head_that_jumps_makes_the_ring_bad) {
    WritableRing w;
    w.push(1);
    w.push(2);
    Ring r = w.ring();
    w.ctl().head = 1;
    BOOST_TEST(!r.refresh());
    WritableRing w2;
    Ring r2 = w2.ring();
    w2.ctl().head = 65;
    BOOST_TEST(!r2.refresh());
}

BOOST_AUTO_TEST_CASE(status_and_consistency) {
    WritableRing w;
    w.ctl().gap_seq = 100;
    w.ctl().close_seq = 50;
    w.ctl().counters[BLKFERRY_C_OPS] = 42;
    Ring r = w.ring();
    BOOST_TEST(r.counter(BLKFERRY_C_OPS) == 42U);
    const RingStatus s = r.status();
    BOOST_TEST(!s.consistent_at(49));
    BOOST_TEST(s.consistent_at(50));
    BOOST_TEST(s.consistent_at(99));
    BOOST_TEST(!s.consistent_at(100));
    w.ctl().gap_seq = 0;
    BOOST_TEST(r.status().consistent_at(100));
    w.ctl().state = BLKFERRY_RESYNC;
    BOOST_TEST(!r.status().consistent_at(100));
}

BOOST_AUTO_TEST_CASE(snapshot_runs_match_a_bit_by_bit_model) {
    std::mt19937_64 rng(20240611);
    for (int round = 0; round < 200; ++round) {
        WritableRing::Shape shape;
        shape.sectors = 1 + rng() % 40000;
        shape.block_shift = 12 + static_cast<std::uint32_t>(rng() % 3);
        WritableRing w(shape);
        Ring r = w.ring();
        const std::uint64_t blocks = r.geometry().blocks();
        std::uint64_t at = 0;
        bool set = rng() % 2 == 0;
        while (at < blocks) {
            const std::uint64_t n = std::min(blocks - at, 1 + rng() % (round % 3 == 0 ? 300 : 9));
            for (std::uint64_t b = at; set && b < at + n; ++b)
                w.snap()[b / 64] |= 1ULL << (b % 64);
            at += n;
            set = !set;
        }
        ExtentSet model;
        for (std::uint64_t b = 0; b < blocks; ++b)
            if ((w.snap()[b / 64] >> (b % 64)) & 1)
                model.insert(r.block_extent(b, 1));
        const std::uint64_t max = 1 + rng() % 1000;
        ExtentSet got;
        Extent run;
        std::uint64_t last_end = 0;
        for (SnapshotCursor c(r); c.next(run, max);) {
            BOOST_REQUIRE(run.count > 0);
            BOOST_REQUIRE(run.count <= std::max(max, r.geometry().block_sectors()));
            BOOST_REQUIRE(run.sector >= last_end);
            last_end = run.end();
            got.insert(run);
        }
        BOOST_TEST((got.list() == model.list()));
        SetDigest digest;
        digest.add(0, model);
        const auto sum = r.snapshot_summary();
        BOOST_TEST(sum.sectors == model.sectors());
        BOOST_TEST(sum.runs == model.runs());
        BOOST_TEST(sum.digest == digest.value());
    }
}

BOOST_AUTO_TEST_SUITE_END()
