// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <functional>

#include "model.hpp"
#include "store/receiver.hpp"

using namespace blkferry;
using namespace blkferry::store;
using namespace blkferry::proto;
using blkferry::test::Bytes;

namespace {

/// Feeds frames of one disk (slot 2, 1000 sectors) to a receiver behind batch 4 at mark 100.
struct Rig {
    DiskTable table;
    Receiver receiver{table, 4, 100, 0};
    std::uint64_t batch = 5;
    std::uint32_t index = 0;

    Rig() {
        Session s;
        s.session = 1;
        DiskInfo d;
        d.slot = 2;
        d.sectors = 1000;
        s.disks = {d};
        BOOST_REQUIRE(table.begin_session(s).has_value());
    }
    Result<Receiver::Step> frame(FrameType type, const Bytes& body) {
        FrameHeader h;
        h.type = type;
        h.batch = batch;
        h.index = index++;
        return receiver.take(h, body, 4096);
    }
    template <class M>
    Result<Receiver::Step> send(FrameType type, const M& m) {
        Bytes body;
        encode(m, body);
        return frame(type, body);
    }
    Result<Receiver::Step> begin(std::uint64_t prev = 100, std::uint64_t mark = 120) {
        return send(FrameType::batch_begin, BatchBegin{prev, mark, 0});
    }
    Result<Receiver::Step> extents(std::vector<ExtentEntry> entries) {
        Bytes body;
        encode_extents_head(entries, body);
        for (const auto& e : entries)
            body.resize(body.size() + e.payload_bytes());
        return frame(FrameType::extents, body);
    }
    Result<Receiver::Step> epoch(std::uint64_t seq0, std::uint64_t sectors = 10) {
        return send(FrameType::epoch_begin, EpochBegin{2, EpochKind::initial, 12, seq0, sectors, 1});
    }
    Result<Receiver::Step> end(std::vector<Extent> captured, std::uint32_t entries, std::uint64_t payload = 0) {
        ExtentSet set;
        for (const Extent& e : captured)
            set.insert(e);
        SetDigest digest;
        digest.add(2, set);
        return send(FrameType::batch_end, BatchEnd{entries, true, payload, set.sectors(), digest.value()});
    }
};

void refused(const Result<Receiver::Step>& r, std::string_view word) {
    BOOST_REQUIRE(!r.has_value());
    BOOST_TEST(r.error().text.find(word) != std::string::npos, r.error().text);
}

const ExtentEntry zero_at_5{2, ExtentKind::zero, {5, 5}};
const ExtentEntry zero_at_10{2, ExtentKind::zero, {10, 3}};
const ExtentEntry resync{2, ExtentKind::resync_zero, {0, 8}};

}  // namespace

BOOST_AUTO_TEST_SUITE(receiver)

BOOST_AUTO_TEST_CASE(a_good_batch_is_taken_and_its_set_is_the_union) {
    Rig r;
    BOOST_TEST(r.begin()->batch_begin);
    BOOST_TEST(r.extents({zero_at_10, zero_at_5}).has_value());
    const auto step = r.end({{5, 8}}, 2);
    BOOST_REQUIRE_MESSAGE(step, (step ? "" : step.error().text));
    BOOST_TEST(step->batch_end);
    BOOST_TEST(step->consistent);
    BOOST_TEST(r.receiver.batch() == 5u);
    BOOST_TEST(r.receiver.mark() == 120u);
}

BOOST_AUTO_TEST_CASE(order_of_batches_and_frames) {
    refused(Rig().end({}, 0), "not begun");
    refused(Rig().begin(99), "follows mark");
    refused(Rig().begin(100, 99), "order of marks");
    Rig r;
    BOOST_REQUIRE(r.begin().has_value());
    refused(r.begin(), "inside of a batch");
    Rig hole;
    hole.batch = 6;
    refused(hole.begin(), "batch 5 is expected");
    Rig skip;
    BOOST_REQUIRE(skip.begin().has_value());
    skip.index = 2;
    refused(skip.extents({zero_at_5}), "frame index");
    refused(skip.extents({zero_at_5}), "connect anew");
    skip.receiver.reset();
    skip.index = 0;
    BOOST_TEST(skip.begin().has_value());
    Rig alien;
    BOOST_REQUIRE(alien.begin().has_value());
    refused(alien.frame(FrameType::heartbeat, {}), "does not belong");
}

BOOST_AUTO_TEST_CASE(extents_must_fit_their_disk_and_resync_needs_an_epoch) {
    const auto with = [](ExtentEntry e, std::string_view word) {
        Rig r;
        BOOST_REQUIRE(r.begin().has_value());
        refused(r.extents({e}), word);
    };
    with({3, ExtentKind::zero, {0, 1}}, "HELLO did not announce");
    with({2, ExtentKind::zero, {999, 2}}, "beyond the end");
    with(resync, "no open epoch");
}

BOOST_AUTO_TEST_CASE(counts_and_set_are_compared) {
    const auto with = [](const std::function<Result<Receiver::Step>(Rig&)>& end, std::string_view word) {
        Rig r;
        BOOST_REQUIRE(r.begin().has_value());
        BOOST_REQUIRE(r.extents({zero_at_5}).has_value());
        refused(end(r), word);
    };
    with([](Rig& r) { return r.end({{5, 5}}, 2); }, "counts 2 extents");
    with([](Rig& r) { return r.end({{5, 5}}, 1, 512); }, "payload bytes");
    with([](Rig& r) { return r.end({{5, 4}}, 1); }, "set of captured sectors differs");
    with([](Rig& r) { return r.end({{6, 5}}, 1); }, "set of captured sectors differs");
}

BOOST_AUTO_TEST_CASE(epoch_rules) {
    Rig late;
    BOOST_REQUIRE(late.begin().has_value());
    refused(late.epoch(101), "behind the mark");
    Rig behind;
    BOOST_REQUIRE(behind.begin().has_value());
    BOOST_REQUIRE(behind.extents({zero_at_5}).has_value());
    refused(behind.epoch(100), "comes behind extents");
    Rig large;
    BOOST_REQUIRE(large.begin().has_value());
    refused(large.epoch(100, 1001), "announces");

    Rig r;
    BOOST_REQUIRE(r.begin().has_value());
    BOOST_REQUIRE(r.epoch(100).has_value());
    BOOST_REQUIRE(r.extents({resync}).has_value());
    refused(r.send(FrameType::epoch_end, EpochEnd{2, 99, 10, 1}), "open is 100");
    r.receiver.reset();
    BOOST_TEST(!r.table.find(2)->epoch.has_value());  // the batch that began it is void
    r.index = 0;
    BOOST_REQUIRE(r.begin().has_value());
    refused(r.send(FrameType::epoch_end, EpochEnd{2, 100, 10, 1}), "no open epoch");
    r.receiver.reset();
    r.index = 0;
    BOOST_REQUIRE(r.begin().has_value());
    BOOST_REQUIRE(r.epoch(100).has_value());
    BOOST_REQUIRE(r.send(FrameType::epoch_end, EpochEnd{2, 100, 10, 1}).has_value());
    BOOST_TEST(r.send(FrameType::epoch_end, EpochEnd{2, 100, 10, 1}).has_value());  // once more for a lost result
    refused(r.extents({resync}), "no open epoch");
}

BOOST_AUTO_TEST_CASE(a_batch_that_names_a_disk_again_and_again_is_refused) {
    const ExtentEntry all{2, ExtentKind::discard, {0, 1000}};
    const ExtentEntry all_resync{2, ExtentKind::resync_same, {0, 1000}};
    Rig r;
    BOOST_REQUIRE(r.begin().has_value());
    BOOST_REQUIRE(r.epoch(50).has_value());
    BOOST_TEST(r.extents({all, all, all_resync, all_resync}).has_value());  // each kind has its own account
    refused(r.extents({zero_at_5}), "more than twice the sectors of disk slot 2");
    Rig again;
    BOOST_REQUIRE(again.begin().has_value());
    BOOST_REQUIRE(again.extents({all, all}).has_value());
    BOOST_REQUIRE(again.end({{0, 1000}}, 2).has_value());
    again.batch = 6;  // the next batch begins anew
    again.index = 0;
    BOOST_REQUIRE(again.begin(120, 130).has_value());
    BOOST_TEST(again.extents({all}).has_value());
}

BOOST_AUTO_TEST_CASE(too_many_points_are_refused) {
    Rig r;
    BOOST_REQUIRE(r.begin().has_value());
    for (std::size_t i = 0; i < batch_points_max; ++i)
        BOOST_REQUIRE(r.send(FrameType::point_request, PointRequest{i, PointKind::crash, ""}).has_value());
    refused(r.send(FrameType::point_request, PointRequest{9, PointKind::crash, ""}), "more than");
}

BOOST_AUTO_TEST_SUITE_END()
