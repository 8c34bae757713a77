// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <future>

#include "harness.hpp"

/// The server's disk is full, or nearly.
using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;

namespace {

/// The store is on a small tmpfs.
struct SmallDisk : Harness {
    bool mounted = false;
    SmallDisk() {
        std::filesystem::create_directory(dir / "small");
        mounted = ::mount("tmpfs", (dir / "small").c_str(), "tmpfs", 0, "size=48m") == 0;
        options.store_dir = dir / "small" / "store";
    }
    ~SmallDisk() {
        crash();
        if (mounted)
            (void)::umount2((dir / "small").c_str(), MNT_DETACH);
    }
    void fill(std::uint64_t leave_bytes) {
        const auto space = std::filesystem::space(dir / "small");
        auto fd = open_file(dir / "small" / "filler", O_RDWR | O_CREAT);
        BOOST_REQUIRE(fd);
        BOOST_REQUIRE(::posix_fallocate(fd->get(), 0, static_cast<off_t>(space.available - leave_bytes)) == 0);
    }
    void free_again() { std::filesystem::remove(dir / "small" / "filler"); }
    Client synced() {
        Client c = connect("web-1");
        BOOST_REQUIRE(c.hello(hello_of("web-1")).durable_batch == 0U);
        c.send(initial_sync(1, 0, std::byte{1}));
        BOOST_REQUIRE(c.ack_of(1).batch == 1U);
        BOOST_REQUIRE(until([](Server& s) { return s.replicas().at("web-1")->report().store.applied_batch == 1; }));
        return c;
    }
};

}  // namespace

BOOST_FIXTURE_TEST_SUITE(space, SmallDisk)

BOOST_AUTO_TEST_CASE(near_the_end_the_source_is_held_and_told_why) {
    if (!mounted) {
        BOOST_TEST_MESSAGE("skipped: cannot mount a tmpfs");
        return;
    }
    options.disk_reserve_bytes = 4U << 20;
    start();
    Client c = synced();
    fill(1U << 20);
    proto::Heartbeat h;
    do
        h = c.heartbeat();
    while (h.cause.empty());
    BOOST_TEST(h.cause == "server disk");
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().at("web-1")->report().cause; }) == "server disk");
    // Nothing is taken meanwhile, nothing is lost.
    Batch b{.number = 2, .prev_mark = 0, .mark = 1};
    b.writes = {{.extent = {0, 8}, .fill = std::byte{2}}};
    c.send(b);
    do
        h = c.heartbeat();
    while (h.cause.empty());
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().at("web-1")->report().store.durable.batch; }) == 1U);
    free_again();
    BOOST_TEST(c.ack_of(2).mark == 1U);
    do
        h = c.heartbeat();
    while (!h.cause.empty());
}

BOOST_AUTO_TEST_CASE(a_full_disk_refuses_and_comes_back) {
    if (!mounted) {
        BOOST_TEST_MESSAGE("skipped: cannot mount a tmpfs");
        return;
    }
    start();
    Client c = synced();
    fill(0);
    // Sends until the connection is gone (the server reads on for a moment after its refusal, so that the reason arrives).
    std::uint64_t number = 2;
    std::uint64_t sent = 1;
    for (;; ++number) {
        Batch b{.number = number, .prev_mark = number - 2, .mark = number - 1};
        for (std::uint64_t at = 0; at < 8192; at += 512)
            b.writes.push_back({.extent = {at, 512}, .fill = static_cast<std::byte>(number)});
        bool open = true;
        for (const Bytes& frame : frames_of(b))
            open = open && c.try_raw(frame);
        if (!open)
            break;
        ++sent;
    }
    std::uint64_t acked = 1;
    std::string code;
    while (const auto frame = c.next()) {
        if (frame->header.type == proto::FrameType::ack)
            acked = proto::decode_ack(frame->body).value().batch;
        if (frame->header.type == proto::FrameType::error)
            code = proto::decode_peer_error(frame->body).value().code;
    }
    BOOST_TEST((code == "no-space" || code.empty()), code);
    BOOST_TEST(acked <= sent);
    BOOST_TEST((log.wait_for("event=journal-failed") || log.wait_for("event=apply-failed")));
    free_again();
    // The store opens again by itself; what was acknowledged is there.
    for (;;) {
        Client again = connect("web-1");
        again.send(proto::FrameType::hello, hello_of("web-1"));
        const auto frame = again.next();
        if (!frame || frame->header.type == proto::FrameType::error) {
            ::usleep(50'000);
            continue;
        }
        const auto w = proto::decode_welcome(frame->body).value();
        BOOST_TEST(w.durable_batch >= acked);
        Batch b{.number = w.durable_batch + 1, .prev_mark = w.durable_mark, .mark = w.durable_mark + 1};
        b.writes = {{.extent = {0, 8}, .fill = std::byte{0xff}}};
        again.send(b);
        BOOST_TEST(again.ack_of(b.number).mark == b.mark);
        break;
    }
}

BOOST_AUTO_TEST_CASE(a_source_whose_apply_falls_behind_is_held) {
    options.store_dir = dir / "store";
    options.backlog_bytes_max = 1U << 20;
    start();
    Client c = synced();
    // Stop the workers with a task that waits, so that the backlog grows.
    std::promise<void> go;
    auto gate = std::make_shared<std::shared_future<void>>(go.get_future().share());
    BOOST_TEST(in_loop([&](Server& s) {
        return s.replicas().at("web-1")->submit([gate](store::SourceStore&) { gate->wait(); }).has_value();
    }));
    for (std::uint64_t n = 2; n < 6; ++n) {
        Batch b{.number = n, .prev_mark = n - 2, .mark = n - 1};
        for (std::uint64_t at = 0; at < 2048; at += 512)
            b.writes.push_back({.extent = {at, 512}, .fill = static_cast<std::byte>(n)});
        c.send(b);
    }
    proto::Heartbeat h;
    do
        h = c.heartbeat();
    while (h.cause.empty());
    BOOST_TEST(h.cause == "server apply");
    go.set_value();
    BOOST_TEST(until([](Server& s) { return s.replicas().at("web-1")->report().store.applied_batch == 5; }));
}

BOOST_AUTO_TEST_SUITE_END()
