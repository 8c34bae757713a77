// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include "harness.hpp"
#include "store/export.hpp"

using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;
using proto::ExtentKind;
using proto::FrameType;

namespace {

/// A source whose disk 0 is synced: batch 1 is done.
struct Synced : Harness {
    Synced() { start(); }
    Client sync(const std::string& source, std::byte fill = std::byte{0xa1}) {
        Client c = connect(source);
        BOOST_TEST(c.hello(hello_of(source)).durable_batch == 0U);
        c.send(initial_sync(1, 0, fill));
        bool acked = false;
        bool decided = false;
        while (!acked || !decided) {
            const auto frame = c.next();
            BOOST_REQUIRE(frame);
            if (frame->header.type == FrameType::ack) {
                BOOST_TEST(proto::decode_ack(frame->body).value().batch == 1U);
                acked = true;
            } else {
                BOOST_REQUIRE((frame->header.type == FrameType::epoch_result));
                const auto r = proto::decode_epoch_result(frame->body).value();
                BOOST_TEST(r.ok, r.text);
                decided = true;
            }
        }
        return c;
    }
    Bytes read_point(const std::string& source, const std::string& point) {
        const auto reader =
            store::PointReader::open(store::Store::source_dir(options.store_dir, source), point, 0, nullptr);
        BOOST_REQUIRE_MESSAGE(reader, "cannot read the point");
        Bytes image((*reader)->bytes());
        BOOST_REQUIRE((*reader)->read(0, image));
        return image;
    }
};

proto::PointResult result_of(Client& c) {
    for (;;) {
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        if (frame->header.type == FrameType::point_result)
            return proto::decode_point_result(frame->body).value();
        BOOST_REQUIRE((frame->header.type == FrameType::ack || frame->header.type == FrameType::epoch_result));
    }
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(session, Synced)

BOOST_AUTO_TEST_CASE(first_contact_sync_writes_point) {
    Client c = connect("web-1");
    const auto w = c.hello(hello_of("web-1"));
    BOOST_TEST(w.protocol == 1U);
    BOOST_TEST(w.session == 1U);
    BOOST_TEST(w.durable_batch == 0U);
    BOOST_TEST(w.durable_mark == 0U);
    BOOST_TEST(w.window_bytes > 0U);
    BOOST_REQUIRE(w.disks.size() == 1U);
    BOOST_TEST(!w.disks[0].known);
    BOOST_TEST(!w.disks[0].synced);

    c.send(initial_sync(1, 0, std::byte{0xa1}));
    BOOST_TEST(c.ack_of(1).mark == 0U);
    BOOST_TEST(proto::decode_epoch_result(c.expect(FrameType::epoch_result).body).value().ok);

    Batch b{.number = 2, .prev_mark = 0, .mark = 3};
    b.writes = {{.extent = {10, 2}, .fill = std::byte{0xb2}},
                {.kind = ExtentKind::zero, .extent = {100, 50}},
                {.kind = ExtentKind::discard, .extent = {200, 8}}};
    b.points = {{.request = 77, .kind = proto::PointKind::crash, .name = "first"}};
    c.send(b);
    BOOST_TEST(c.ack_of(2).mark == 3U);
    const auto p = result_of(c);
    BOOST_TEST(p.ok, p.text);
    BOOST_TEST(p.request == 77U);
    BOOST_TEST(p.name == "first");
    BOOST_TEST(p.mark == 3U);

    Bytes want(disk_sectors * sector_bytes, std::byte{0xa1});
    std::fill_n(want.begin() + 10 * 512, 2 * 512, std::byte{0xb2});
    std::fill_n(want.begin() + 100 * 512, 50 * 512, std::byte{0});
    std::fill_n(want.begin() + 200 * 512, 8 * 512, std::byte{0});
    BOOST_TEST((read_point("web-1", "first") == want));

    // What comes later does not change the point.
    b = {.number = 3, .prev_mark = 3, .mark = 4};
    b.writes = {{.extent = {0, 64}, .fill = std::byte{0xcc}}};
    b.points = {{.request = 78, .kind = proto::PointKind::fs, .name = ""}};
    c.send(b);
    const auto second = result_of(c);
    BOOST_TEST(second.ok, second.text);
    BOOST_TEST((read_point("web-1", "first") == want));
    std::fill_n(want.begin(), 64 * 512, std::byte{0xcc});
    BOOST_TEST((read_point("web-1", second.name) == want));
}

BOOST_AUTO_TEST_CASE(compressed_frames_are_taken_as_they_are) {
    Client c = sync("web-1");
    Batch b{.number = 2, .prev_mark = 0, .mark = 1};
    for (std::uint64_t i = 0; i < 20; ++i)
        b.writes.push_back({.extent = {i * 128, 64}, .fill = static_cast<std::byte>(i)});
    Compressor zstd(Codec::zstd, 1);
    for (const Bytes& frame : frames_of(b, &zstd))
        c.raw(frame);
    BOOST_TEST(c.ack_of(2).mark == 1U);
    Batch l{.number = 3, .prev_mark = 1, .mark = 2};
    l.writes = {{.extent = {0, 256}, .fill = std::byte{0x42}}};
    l.points = {{.request = 1, .name = "p"}};
    Compressor lz4(Codec::lz4, 1);
    for (const Bytes& frame : frames_of(l, &lz4))
        c.raw(frame);
    BOOST_TEST(result_of(c).ok);
    const Bytes image = read_point("web-1", "p");
    BOOST_TEST((image[255 * 512] == std::byte{0x42}));
    BOOST_TEST((image[19 * 128 * 512] == std::byte{19}));
}

BOOST_AUTO_TEST_CASE(hash_questions_are_answered_behind_what_came_before) {
    Client c = sync("web-1", std::byte{0x10});
    Batch b{.number = 2, .prev_mark = 0, .mark = 1};
    b.writes = {{.extent = {8, 8}, .fill = std::byte{0x20}}};
    c.send(b);
    const Bytes old_block(4096, std::byte{0x10});
    const Bytes new_block(4096, std::byte{0x20});
    c.send(FrameType::hash_ask, proto::HashAsk{.request = 5, .slot = 0, .block_bytes = 4096, .sector = 0,
                                               .hashes = {sha256(old_block), sha256(new_block), sha256(new_block)}});
    c.send(FrameType::hash_ask, proto::HashAsk{.request = 6, .slot = 0, .block_bytes = 4096, .sector = 8, .hashes = {sha256(old_block)}});
    std::vector<proto::HashReply> replies;
    while (replies.size() < 2) {
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        if (frame->header.type == FrameType::hash_reply)
            replies.push_back(proto::decode_hash_reply(frame->body).value());
    }
    BOOST_TEST(replies[0].request == 5U);
    BOOST_TEST((replies[0].differs == std::vector<bool>{false, false, true}));
    BOOST_TEST(replies[1].request == 6U);
    BOOST_TEST((replies[1].differs == std::vector<bool>{true}));
}

BOOST_AUTO_TEST_CASE(points_are_refused_where_the_mark_is_not_consistent) {
    Client c = sync("web-1");
    Batch b{.number = 2, .prev_mark = 0, .mark = 1, .consistent = false};
    b.points = {{.request = 9, .name = "no"}};
    c.send(b);
    const auto p = result_of(c);
    BOOST_TEST(!p.ok);
    BOOST_TEST(p.request == 9U);
    BOOST_TEST(!p.text.empty());
}

BOOST_AUTO_TEST_CASE(a_newer_connection_fences_the_old_one) {
    Client old = sync("web-1");
    Batch half{.number = 2, .prev_mark = 0, .mark = 1};
    half.writes = {{.extent = {0, 8}, .fill = std::byte{0x99}}};
    const auto frames = frames_of(half);
    old.raw(frames[0]);
    old.raw(frames[1]);

    Client fresh = connect("web-1");
    const auto w = fresh.hello(hello_of("web-1"));
    BOOST_TEST(w.session == 2U);
    BOOST_TEST(w.durable_batch == 1U);
    const auto e = old.refusal();
    BOOST_TEST(e.code == "closed");
    BOOST_TEST(e.text.find("newer connection") != std::string::npos);
    // The rest of the old batch would not fit; the new connection goes on with the same number.
    Batch b{.number = 2, .prev_mark = 0, .mark = 5};
    b.writes = {{.extent = {16, 8}, .fill = std::byte{0x77}}};
    b.points = {{.request = 1, .name = "p"}};
    fresh.send(b);
    BOOST_TEST(result_of(fresh).ok);
    const Bytes image = read_point("web-1", "p");
    BOOST_TEST((image[0] == std::byte{0xa1}));
    BOOST_TEST((image[16 * 512] == std::byte{0x77}));
    BOOST_TEST(log.count("event=fenced") == 1U);
}

BOOST_AUTO_TEST_CASE(sources_do_not_see_each_other) {
    Client a = sync("web-1", std::byte{1});
    Client b = sync("db-1", std::byte{2});
    for (Client* c : {&a, &b}) {
        Batch p{.number = 2, .prev_mark = 0, .mark = 1};
        p.points = {{.request = 1, .name = "p"}};
        c->send(p);
        BOOST_TEST(result_of(*c).ok);
    }
    BOOST_TEST((read_point("web-1", "p")[0] == std::byte{1}));
    BOOST_TEST((read_point("db-1", "p")[0] == std::byte{2}));
}

BOOST_AUTO_TEST_CASE(heartbeats_tell_how_the_replica_stands) {
    Client c = sync("web-1");
    Batch p{.number = 2, .prev_mark = 0, .mark = 8};
    p.points = {{.request = 1, .name = "p"}};
    c.send(p);
    BOOST_TEST(result_of(c).ok);
    proto::Heartbeat h;
    do
        h = c.heartbeat();
    while (h.points == 0 || h.applied_mark < 8);
    BOOST_TEST(h.newest_point_mark == 8U);
    BOOST_TEST(h.cause.empty());
    c.send(FrameType::heartbeat, proto::Heartbeat{.state = "CONTINUOUS", .cause = "", .backlog_bytes = 4096, .lag_ms = 7});
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().agent.state == "CONTINUOUS"; }));
    // What the agent says of its lag counts, not the clocks of two machines.
    const auto lag = in_loop([](Server& s) { return s.replicas().at("web-1")->report().lag_ms; });
    BOOST_TEST(lag >= 7U);
    BOOST_TEST(lag < 120'000U);
    c.send(FrameType::heartbeat, proto::Heartbeat{.state = "CONTINUOUS", .cause = "", .lag_ms = 3'600'000});
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().lag_ms >= 3'600'000; }));
    c.send(FrameType::heartbeat, proto::Heartbeat{.state = "CONTINUOUS", .cause = "", .lag_ms = ~0ULL});
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().lag_ms >= 1ULL << 53; }));
}

BOOST_AUTO_TEST_CASE(many_batches_are_committed_in_groups) {
    Client c = sync("web-1");
    for (std::uint64_t n = 2; n <= 200; ++n) {
        Batch b{.number = n, .prev_mark = n - 2, .mark = n - 1};
        b.writes = {{.extent = {(n * 8) % disk_sectors, 8}, .fill = static_cast<std::byte>(n)}};
        c.send(b);
    }
    std::uint64_t last = 1;
    std::size_t acks = 0;
    while (last < 200) {
        const auto a = c.ack();
        BOOST_TEST(a.batch > last);
        BOOST_TEST(a.mark == a.batch - 1);
        last = a.batch;
        ++acks;
    }
    BOOST_TEST(acks <= 199U);
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().store.applied_batch == 200; }));
}

// The agent may be away for long: what it sent up to the last complete batch becomes a point all the same.
BOOST_AUTO_TEST_CASE(a_connection_that_breaks_inside_of_a_batch_holds_up_no_point) {
    {
        Client c = sync("web-1");
        c.send(Batch{.number = 2, .prev_mark = 0, .mark = 5, .writes = {{.extent = {64, 8}, .fill = std::byte{0x22}}}});
        BOOST_TEST(c.ack_of(2).mark == 5U);
        const auto frames = frames_of(Batch{.number = 3, .prev_mark = 5, .mark = 9, .writes = {{.extent = {72, 8}}}});
        for (std::size_t i = 0; i + 1 < frames.size(); ++i)
            c.raw(frames[i]);
        const auto began = [](Server& s) { return s.replicas().at("web-1")->store()->in_batch(); };
        BOOST_REQUIRE(until(began));
    }
    BOOST_REQUIRE(until([](Server& s) { return !s.replicas().at("web-1")->report().connected; }));
    auto changed = options;
    changed.point_interval_ns = 1;
    BOOST_REQUIRE(in_loop([&](Server& s) { return s.reconfigure(changed).has_value(); }));
    in_loop([](Server& s) { s.replicas().at("web-1")->tick(); });
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().store.newest_point_mark == 5; }));
    const auto points = in_loop([](Server& s) { return s.replicas().at("web-1")->store()->points().list(); });
    BOOST_REQUIRE(points.size() == 1U);
    const Bytes image = read_point("web-1", points.front().name);
    BOOST_TEST((image[64 * 512] == std::byte{0x22}));
    // The batch comes again, whole.
    Client c = connect("web-1");
    BOOST_TEST(c.hello(hello_of("web-1")).durable_batch == 2U);
    c.send(Batch{.number = 3, .prev_mark = 5, .mark = 9, .writes = {{.extent = {72, 8}}}});
    BOOST_TEST(c.ack_of(3).mark == 9U);
}

BOOST_AUTO_TEST_CASE(stop_tells_the_agent_and_leaves_nothing_to_redo) {
    Client c = sync("web-1");
    stop();
    BOOST_TEST(c.refusal().code == "closed");
    start();
    BOOST_TEST(log.wait_for("event=opened mark=0 batch=1 backlog_bytes=0"));
}

BOOST_AUTO_TEST_SUITE_END()

namespace {
struct Interval : Synced {
    Interval() {
        stop();
        options.point_interval_ns = 1'000'000;
        options.points_keep = 3;
        start();
    }
};
}  // namespace

BOOST_FIXTURE_TEST_SUITE(interval, Interval)

BOOST_AUTO_TEST_CASE(points_come_by_themselves_at_consistent_marks_and_old_ones_go) {
    Client c = sync("web-1");
    std::uint64_t mark = 0;
    for (std::uint64_t n = 2; n < 10; ++n) {
        Batch b{.number = n, .prev_mark = mark, .mark = mark + 1};
        b.writes = {{.extent = {n * 8, 8}, .fill = static_cast<std::byte>(n)}};
        c.send(b);
        ++mark;
        BOOST_TEST(c.ack_of(n).mark == mark);
        BOOST_REQUIRE(until([&](Server& s) { return s.replicas().at("web-1")->report().store.newest_point_mark == mark; }));
    }
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().store.points == 3; }));
    // No second point at the same mark.
    BOOST_TEST(until([&](Server& s) { return s.replicas().at("web-1")->report().store.applied_mark == mark; }));
    const auto points = in_loop([](Server& s) { return s.replicas().at("web-1")->store()->points().list(); });
    for (std::size_t i = 1; i < points.size(); ++i)
        BOOST_TEST(points[i].mark > points[i - 1].mark);
    // Points asked for by the source do not push those of the interval out, only each other.
    const auto scheduled = [&] {
        std::vector<std::string> names;
        for (const auto& p : in_loop([](Server& s) { return s.replicas().at("web-1")->store()->points().list(); }))
            if (p.scheduled)
                names.push_back(p.name);
        return names;
    };
    BOOST_TEST(scheduled().size() == 3u);
    for (std::uint64_t n = 10; n < 15; ++n, ++mark) {
        Batch b{.number = n, .prev_mark = mark, .mark = mark + 1};
        b.points = {{.request = n, .kind = proto::PointKind::crash, .name = "asked-" + std::to_string(n)}};
        c.send(b);
        BOOST_TEST(c.ack_of(n).mark == mark + 1);
    }
    BOOST_TEST(until([](Server& s) {
        const auto all = s.replicas().at("web-1")->store()->points().list();
        return all.size() == 6 && std::ranges::count_if(all, [](const auto& p) { return p.name.starts_with("asked-"); }) == 3;
    }));
    BOOST_TEST(scheduled().size() == 3u);
    // An inconsistent mark gets none.
    Batch b{.number = 15, .prev_mark = mark, .mark = mark + 1, .consistent = false};
    c.send(b);
    BOOST_TEST(c.ack_of(15).mark == mark + 1);
    BOOST_TEST(until([&](Server& s) { return s.replicas().at("web-1")->report().store.applied_mark == mark + 1; }));
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().at("web-1")->report().store.newest_point_mark; }) == mark);
}

BOOST_AUTO_TEST_SUITE_END()
