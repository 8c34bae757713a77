// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <algorithm>
#include <future>
#include <random>

#include "harness.hpp"
#include "store/export.hpp"

/// P2 at the server's end: what was acknowledged is there after the server ended at any moment; what was not is sent again.
using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;
using proto::FrameType;

namespace {

/// What the source's disk holds, and what an agent does: goes on where WELCOME says.
struct Agent {
    explicit Agent(Harness& h) : harness(h), disk(disk_sectors * sector_bytes, std::byte{0x11}) {}

    Batch next(std::mt19937_64& random) {
        Batch b{.number = batches.size() + 1, .prev_mark = batches.size(), .mark = batches.size() + 1};
        const std::uint64_t slice = disk_sectors / 16;
        for (std::uint64_t i = 0; i < 16; ++i) {
            const std::uint64_t first = i * slice + random() % (slice - 16);
            b.writes.push_back({.extent = {first, 1 + random() % 16}, .fill = static_cast<std::byte>(random())});
        }
        return b;
    }
    /// Applies a batch to the model of the disk.
    static void apply(Bytes& image, const Batch& b) {
        for (const Write& w : b.writes)
            std::fill_n(image.begin() + static_cast<std::ptrdiff_t>(w.extent.sector * sector_bytes),
                        static_cast<std::ptrdiff_t>(w.extent.count * sector_bytes), w.fill);
    }

    Harness& harness;
    Bytes disk;
    std::vector<Batch> batches;  ///< batch n is batches[n - 1]
};

struct Store : Harness {
    Bytes read_point(const std::string& point) {
        const auto reader = store::PointReader::open(store::Store::source_dir(options.store_dir, "web-1"), point, 0, nullptr);
        BOOST_REQUIRE_MESSAGE(reader, "cannot read the point");
        Bytes image((*reader)->bytes());
        BOOST_REQUIRE((*reader)->read(0, image));
        return image;
    }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(resume, Store)

BOOST_AUTO_TEST_CASE(acknowledged_batches_survive_any_end_of_the_server) {
    std::mt19937_64 random(7);
    Agent agent(*this);
    agent.batches.push_back(initial_sync(1, 0, std::byte{0x11}));
    agent.batches[0].mark = 1;
    while (agent.batches.size() < 40)
        agent.batches.push_back(agent.next(random));

    std::uint64_t acked = 0;
    std::uint64_t session = 0;
    int crashes = 0;
    while (acked < agent.batches.size()) {
        start();
        Client c = connect("web-1");
        const auto w = c.hello(hello_of("web-1"));
        BOOST_REQUIRE(w.session > session);
        session = w.session;
        // At least what was acknowledged; perhaps more, whose ACK did not reach us.
        BOOST_REQUIRE(w.durable_batch >= acked);
        BOOST_REQUIRE(w.durable_batch <= agent.batches.size());
        acked = w.durable_batch;
        BOOST_REQUIRE_EQUAL(w.durable_mark, acked);
        // Sends some batches, the last one perhaps cut short, and takes some of the answers.
        const std::size_t until = std::min<std::size_t>(acked + 1 + random() % 5, agent.batches.size());
        for (std::size_t n = acked; n < until; ++n)
            c.send(agent.batches[n]);
        if (until < agent.batches.size()) {
            const auto frames = frames_of(agent.batches[until]);
            for (std::size_t i = 0; i < random() % frames.size(); ++i)
                c.raw(frames[i]);
        }
        const std::uint64_t wanted = random() % 3 == 0 ? acked : acked + random() % (until - acked + 1);
        while (acked < wanted) {
            const auto frame = c.next();
            BOOST_REQUIRE(frame);
            if (frame->header.type == FrameType::ack)
                acked = proto::decode_ack(frame->body).value().batch;
        }
        crash();
        ++crashes;
    }
    BOOST_TEST(crashes > 5);

    // The image at the last mark is the model's.
    start();
    Client c = connect("web-1");
    const auto w = c.hello(hello_of("web-1"));
    BOOST_TEST(w.durable_batch == agent.batches.size());
    Batch last{.number = w.durable_batch + 1, .prev_mark = w.durable_mark, .mark = w.durable_mark + 1};
    last.points = {{.request = 4711, .name = "end"}};
    c.send(last);
    for (;;) {
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        if (frame->header.type != FrameType::point_result)
            continue;
        const auto p = proto::decode_point_result(frame->body).value();
        BOOST_REQUIRE_MESSAGE(p.ok, p.text);
        break;
    }
    for (std::size_t n = 1; n < agent.batches.size(); ++n)
        Agent::apply(agent.disk, agent.batches[n]);
    BOOST_TEST((read_point("end") == agent.disk));
}

BOOST_AUTO_TEST_CASE(results_decided_without_a_connection_are_told_later) {
    start();
    Client c = connect("web-1");
    BOOST_TEST(c.hello(hello_of("web-1")).durable_batch == 0U);
    // The worker waits, so that nothing is decided before the connection is gone.
    std::promise<void> go;
    const auto gate = std::make_shared<std::shared_future<void>>(go.get_future().share());
    BOOST_TEST(in_loop([&](Server& s) {
        return s.replicas().at("web-1")->submit([gate](store::SourceStore&) { gate->wait(); }).has_value();
    }));
    c.send(initial_sync(1, 0, std::byte{1}));
    Batch b{.number = 2, .prev_mark = 0, .mark = 1};
    b.points = {{.request = 99, .name = "p"}};
    c.send(b);
    BOOST_TEST(c.ack_of(2).mark == 1U);
    c.close();
    BOOST_TEST(until([](Server& s) { return s.sessions() == 0; }));
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().at("web-1")->report().store.applied_batch; }) == 0U);
    go.set_value();
    BOOST_TEST(until([](Server& s) {
        const auto r = s.replicas().at("web-1")->report();
        return r.store.applied_batch == 2 && r.store.points == 1;
    }));
    Client again = connect("web-1");
    const auto w = again.hello(hello_of("web-1"));
    BOOST_TEST(w.durable_batch == 2U);
    BOOST_TEST(w.disks.at(0).synced);
    BOOST_TEST(w.disks.at(0).epoch_seq == 0U);
    const auto p = [&] {
        for (;;) {
            const auto frame = again.next();
            BOOST_REQUIRE(frame);
            if (frame->header.type == FrameType::point_result)
                return proto::decode_point_result(frame->body).value();
        }
    }();
    BOOST_TEST(p.ok, p.text);
    BOOST_TEST(p.request == 99U);
}

BOOST_AUTO_TEST_CASE(an_open_epoch_goes_on_after_a_crash) {
    start();
    const Batch whole = initial_sync(1, 0, std::byte{7});
    Batch first = whole;
    first.epoch_ends.clear();
    first.writes.resize(whole.writes.size() / 2);
    {
        Client c = connect("web-1");
        BOOST_TEST(c.hello(hello_of("web-1")).durable_batch == 0U);
        c.send(first);
        BOOST_TEST(c.ack_of(1).batch == 1U);
    }
    crash();
    start();
    Client c = connect("web-1");
    auto hello = hello_of("web-1");
    const auto w = c.hello(hello);
    BOOST_TEST(w.durable_batch == 1U);
    BOOST_TEST(w.disks.at(0).known);
    BOOST_TEST(!w.disks.at(0).synced);
    // A captured write wins over the epoch's data that comes later.
    Batch second{.number = 2, .prev_mark = 0, .mark = 5};
    second.writes = {{.extent = {disk_sectors - 8, 8}, .fill = std::byte{0xee}}};
    for (std::size_t i = whole.writes.size() / 2; i < whole.writes.size(); ++i)
        second.writes.push_back(whole.writes[i]);
    second.epoch_ends = whole.epoch_ends;
    c.send(second);
    for (;;) {
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        if (frame->header.type != FrameType::epoch_result)
            continue;
        const auto r = proto::decode_epoch_result(frame->body).value();
        BOOST_TEST(r.ok, r.text);
        break;
    }
    Batch third{.number = 3, .prev_mark = 5, .mark = 5};
    third.points = {{.request = 1, .name = "p"}};
    c.send(third);
    for (;;) {
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        if (frame->header.type != FrameType::point_result)
            continue;
        BOOST_REQUIRE(proto::decode_point_result(frame->body).value().ok);
        break;
    }
    const Bytes image = read_point("p");
    BOOST_TEST((image[0] == std::byte{7}));
    BOOST_TEST((image[(disk_sectors - 9) * 512] == std::byte{7}));
    BOOST_TEST((image[(disk_sectors - 8) * 512] == std::byte{0xee}));
}

// Whether the mark is consistent comes out of the journal after a crash, out of the checkpoint after an orderly end.
BOOST_AUTO_TEST_CASE(an_idle_source_gets_its_point_after_a_restart) {
    const auto end = [this](bool orderly) {
        if (orderly)
            stop();
        else
            crash();
    };
    const auto settled = [](std::uint64_t batch) {
        return [batch](Server& s) {
            const auto r = s.replicas().at("web-1")->report();
            return r.state == Replica::State::ready && r.store.settled && r.store.applied_batch == batch;
        };
    };
    std::uint64_t batch = 0;
    for (const bool orderly : {false, true}) {
        for (const bool consistent : {true, false}) {
            BOOST_TEST_CONTEXT("orderly " << orderly << " consistent " << consistent) {
                options.point_interval_ns = 0;
                start();
                {
                    Client c = connect("web-1");
                    BOOST_TEST(c.hello(hello_of("web-1")).durable_batch == batch);
                    if (batch == 0) {
                        Batch sync = initial_sync(++batch, 0, std::byte{1});
                        c.send(sync);
                    }
                    ++batch;
                    c.send(Batch{.number = batch,
                                 .prev_mark = batch == 2 ? 0 : batch - 1,
                                 .mark = batch,
                                 .writes = {{.extent = {batch * 8, 8}, .fill = std::byte{2}}},
                                 .consistent = consistent});
                    BOOST_TEST(c.ack_of(batch).mark == batch);
                }
                BOOST_TEST(until(settled(batch)));
                const auto before = in_loop([](Server& s) { return s.replicas().at("web-1")->report().store.points; });
                end(orderly);

                options.point_interval_ns = 1;
                start();
                BOOST_TEST(until(settled(batch)));
                if (consistent)
                    BOOST_TEST(until([batch](Server& s) {
                        return s.replicas().at("web-1")->report().store.newest_point_mark == batch;
                    }));
                for (int i = 0; i < 3; ++i)
                    in_loop([](Server& s) { s.replicas().at("web-1")->tick(); });
                const auto r = in_loop([](Server& s) { return s.replicas().at("web-1")->report().store; });
                BOOST_TEST(r.points == before + (consistent ? 1U : 0U));
                BOOST_TEST(log.count("event=point-refused") == 0U);
                end(orderly);
            }
        }
    }
}

BOOST_AUTO_TEST_CASE(a_store_is_used_by_one_server) {
    start();
    auto loop = loop::Loop::create();
    BOOST_REQUIRE(loop);
    SystemClock clock;
    MemoryLog other_log;
    const auto second = Server::create(**loop, clock, other_log, options);
    BOOST_REQUIRE(!second);
    BOOST_TEST((second.error().code == Errc::busy));
}

BOOST_AUTO_TEST_SUITE_END()
