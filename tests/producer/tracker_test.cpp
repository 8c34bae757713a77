// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <array>
#include <cerrno>
#include <poll.h>
#include <sys/socket.h>

#include <boost/test/unit_test.hpp>

#include "capture/merger.hpp"
#include "fixture.hpp"

using namespace blkferry;
using namespace blkferry::capture;
using namespace blkferry::producer;

namespace {

int readable(int fd, int ms) {
    pollfd p{fd, POLLIN, 0};
    return ::poll(&p, 1, ms) == 1 ? p.revents : 0;
}

void write_block(Fixture& f, std::size_t device, std::uint64_t sector) {
    const std::array<std::byte, 4096> block{};
    BOOST_TEST_REQUIRE(f.machine.write(OpKind::write, f.devs[device], sector, 8, block).has_value());
}

/// Attaches and brings a disk to RING as an agent would that ships everything at once.
DiskInfo attach_to_ring(Tracker& t, std::uint64_t dev) {
    AttachRequest request;
    request.dev = dev;
    request.data_bytes = 1U << 20;
    const DiskInfo d = t.attach(request).value();
    const auto seq0 = t.resync_begin(d.disk).value();
    const std::array<Extent, 1> all = {Extent{0, d.sectors}};
    BOOST_TEST_REQUIRE(t.resync_clear(d.disk, all, seq0).has_value());
    BOOST_TEST_REQUIRE(t.resync_end(d.disk).has_value());
    return t.disk_get(d.disk).value();
}

}  // namespace

BOOST_AUTO_TEST_SUITE(socket_tracker)

BOOST_AUTO_TEST_CASE(attach_describe_detach) {
    Fixture f(2);
    auto t = f.connect();
    BOOST_TEST(t->info()->abi == BLKFERRY_ABI_VERSION);
    const auto dev = t->find_device(f.paths[1]);
    BOOST_TEST_REQUIRE(dev.has_value());
    BOOST_TEST(*dev == f.devs[1]);
    BOOST_TEST(t->find_device("/nonsense").error().sys_errno == ENOENT);
    AttachRequest request;
    request.dev = *dev;
    request.data_bytes = 100'000;  // rounded up
    const auto d = t->attach(request);
    BOOST_TEST_REQUIRE(d.has_value());
    BOOST_TEST(d->data_bytes == 131072U);
    BOOST_TEST(d->device_path == f.paths[1]);
    BOOST_TEST((d->state == DiskState::bitmap));
    BOOST_TEST(d->sectors == 8192U);
    BOOST_TEST(d->gap_seq == 1U);
    BOOST_TEST(d->active_blocks == 1024U);
    BOOST_TEST(!d->attach_id.is_nil());
    const auto again = t->attach(request);
    BOOST_TEST(again.error().sys_errno == EEXIST);
    BOOST_TEST((again.error().code == Errc::exists));
    BOOST_TEST(again.error().text.find("attached already") != std::string::npos);
    request.dev = 12345;
    BOOST_TEST(t->attach(request).error().sys_errno == ENODEV);
    request.dev = f.devs[0];
    request.data_bytes = ~0ULL;
    BOOST_TEST(t->attach(request).error().sys_errno == EINVAL);
    BOOST_TEST(t->list()->size() == 1U);
    BOOST_TEST(t->detach(d->disk).has_value());
    BOOST_TEST(t->detach(d->disk).error().sys_errno == ENODEV);
    BOOST_TEST(t->list()->empty());
}

BOOST_AUTO_TEST_CASE(a_ring_has_one_consumer_and_hears_of_the_detach) {
    Fixture f(1);
    auto t = f.connect();
    const DiskInfo d = attach_to_ring(*t, f.devs[0]);
    BOOST_TEST((d.state == DiskState::ring));
    auto ring = Ring::open(t->open_ring(d.disk).value());
    BOOST_TEST_REQUIRE(ring.has_value());
    BOOST_TEST((ring->geometry().attach_id == d.attach_id));
    BOOST_TEST(t->open_ring(d.disk).error().sys_errno == EBUSY);
    ring = fail(Errc::closed, "");  // the consumer dies
    ring = Ring::open(t->open_ring(d.disk).value());
    BOOST_TEST_REQUIRE(ring.has_value());
    ring->clear_wake();
    BOOST_TEST(readable(ring->poll_fd(), 0) == 0);
    // SWITCH and CUT are there from the resync.
    Merger m;
    m.add(*ring, 0);
    CapturedOp op;
    BOOST_TEST((m.next(op) == Merger::Status::op));
    BOOST_TEST((op.op == OpKind::epoch_switch));
    BOOST_TEST((m.next(op) == Merger::Status::op));
    BOOST_TEST((op.op == OpKind::cut));
    BOOST_TEST((m.next(op) == Merger::Status::idle));
    BOOST_TEST(m.arm());
    write_block(f, 0, 80);
    BOOST_TEST((readable(ring->poll_fd(), 10000) & POLLIN) != 0);
    m.disarm();
    ring->clear_wake();
    BOOST_TEST(readable(ring->poll_fd(), 0) == 0);
    BOOST_TEST((m.next(op) == Merger::Status::op));
    BOOST_TEST(op.sector == 80U);
    BOOST_TEST(ring->status().consistent_at(m.mark()));
    write_block(f, 0, 88);  // nobody asked for a wake-up
    BOOST_TEST(readable(ring->poll_fd(), 0) == 0);
    BOOST_TEST(t->detach(d.disk).has_value());
    BOOST_TEST((readable(ring->poll_fd(), 10000) & POLLHUP) != 0);
}

BOOST_AUTO_TEST_CASE(resync_refuses_what_the_contract_refuses) {
    Fixture f(1);
    auto t = f.connect();
    AttachRequest request;
    request.dev = f.devs[0];
    const DiskInfo d = t->attach(request).value();
    BOOST_TEST(t->resync_end(d.disk).error().sys_errno == EINVAL);
    const auto seq0 = t->resync_begin(d.disk);
    BOOST_TEST_REQUIRE(seq0.has_value());
    BOOST_TEST(t->resync_begin(d.disk).error().sys_errno == EBUSY);
    BOOST_TEST(t->resync_end(d.disk).error().sys_errno == EBUSY);
    std::vector<Extent> ranges = {{0, 9000}};
    BOOST_TEST(t->resync_clear(d.disk, ranges, *seq0).error().sys_errno == EINVAL);
    ranges = {{0, 15}};  // one whole block, and a part of the second
    BOOST_TEST(t->resync_clear(d.disk, ranges, *seq0).has_value());
    BOOST_TEST(t->disk_get(d.disk)->snap_blocks == 1023U);
    BOOST_TEST(t->resync_clear(d.disk, ranges, *seq0 + 1).error().sys_errno == ESTALE);
    ranges.clear();
    for (std::uint64_t s = 8; s < 8192; s += 8)  // more than one message holds... not quite
        ranges.push_back({s, 8});
    ranges.insert(ranges.end(), ranges.begin(), ranges.end() - 1);
    BOOST_TEST(ranges.size() > BLKFERRY_RANGES_MAX);
    BOOST_TEST(t->resync_clear(d.disk, ranges, *seq0).has_value());
    const std::array<Extent, 1> one = {Extent{100, 1}};
    BOOST_TEST(t->mark_dirty(d.disk, one).has_value());
    BOOST_TEST(t->resync_end(d.disk).error().sys_errno == EAGAIN);
    const auto next = t->resync_begin(d.disk);
    BOOST_TEST_REQUIRE(next.has_value());
    BOOST_TEST(t->disk_get(d.disk)->snap_blocks == 1U);
    ranges = {{96, 8}};
    BOOST_TEST(t->resync_clear(d.disk, ranges, *next).has_value());
    const auto cut = t->resync_end(d.disk);
    BOOST_TEST_REQUIRE(cut.has_value());
    const DiskInfo now = t->disk_get(d.disk).value();
    BOOST_TEST(now.gap_seq == 0U);
    BOOST_TEST(now.close_seq == *cut);
    BOOST_TEST(t->seq_floor(1000).error().sys_errno == EBUSY);
    BOOST_TEST(t->cut({}, 0).value() > *cut);
    const auto gone = t->detach(d.disk);
    BOOST_TEST(t->cut({}, 0).error().sys_errno == ENODEV);
    BOOST_TEST(t->seq_floor(1000).has_value());
    BOOST_TEST(t->info()->void_seq == 1000U);
    BOOST_TEST(gone.value() < 1000U);
    BOOST_TEST(t->seq_floor(1ULL << 62).error().sys_errno == EINVAL);
}

BOOST_AUTO_TEST_CASE(events_arrive) {
    Fixture f(1);
    auto t = f.connect();
    BOOST_TEST(t->events_fd() == -1);
    BOOST_TEST_REQUIRE(t->subscribe().has_value());
    BOOST_TEST(t->read_events()->empty());
    const DiskInfo d = attach_to_ring(*t, f.devs[0]);
    BOOST_TEST((readable(t->events_fd(), 10000) & POLLIN) != 0);
    auto events = t->read_events().value();
    BOOST_TEST_REQUIRE(!events.empty());
    BOOST_TEST(events.front().kind == BLKFERRY_EV_ATTACHED);
    BOOST_TEST((events.back().state == DiskState::ring));
    BOOST_TEST(events.back().disk == d.disk);
    f.server.reset();
    BOOST_TEST((readable(t->events_fd(), 10000) & POLLIN) != 0);
    BOOST_TEST((t->read_events().error().code == Errc::closed));
    BOOST_TEST(!t->info().has_value());
}

BOOST_AUTO_TEST_CASE(overflow_and_a_bad_consumer_fall_back_to_the_bitmap) {
    Fixture f(1);
    auto t = f.connect();
    AttachRequest request;
    request.dev = f.devs[0];
    request.data_bytes = 64U << 10;
    request.descs = 64;
    const DiskInfo d = t->attach(request).value();
    const auto all = std::array<Extent, 1>{Extent{0, d.sectors}};
    BOOST_TEST_REQUIRE(t->resync_clear(d.disk, all, t->resync_begin(d.disk).value()).has_value());
    BOOST_TEST_REQUIRE(t->resync_end(d.disk).has_value());
    for (std::uint64_t i = 0; i < 20; ++i)
        write_block(f, 0, i * 8);
    DiskInfo now = t->disk_get(d.disk).value();
    BOOST_TEST((now.state == DiskState::bitmap));
    BOOST_TEST(now.counters.at(BLKFERRY_C_OVERFLOWS) == 1U);
    BOOST_TEST(now.active_blocks == 4U);  // 16 blocks fit into the data ring
    BOOST_TEST(now.gap_seq == 19U);       // SWITCH, CUT, 16 writes, OVERFLOW
    RingMemory memory = t->open_ring(d.disk).value();
    auto* cons = static_cast<blkferry_cons*>(static_cast<void*>(memory.cons.data()));
    cons->tail = 1000;
    BOOST_TEST(t->resync_begin(d.disk).error().sys_errno == EINVAL);
    now = t->disk_get(d.disk).value();
    BOOST_TEST((now.flags & BLKFERRY_CTL_BAD_CONSUMER) != 0U);
    cons->tail = 10;
    BOOST_TEST(t->resync_begin(d.disk).has_value());
    BOOST_TEST((t->disk_get(d.disk)->flags & BLKFERRY_CTL_BAD_CONSUMER) == 0U);
}

BOOST_AUTO_TEST_SUITE_END()
