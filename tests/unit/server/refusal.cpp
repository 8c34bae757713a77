// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <chrono>
#include <thread>

#include <list>
#include <sys/socket.h>

#include "base/bytes.hpp"
#include "harness.hpp"
#include "tls/pki.hpp"

using namespace blkferry;
using namespace blkferry::server;
using namespace blkferry::server::test;
using proto::ExtentKind;
using proto::FrameType;

namespace {

struct Running : Harness {
    Running() { start(); }

    /// The server must refuse with this code and a text that has this part, and must go on serving others.
    void refused(Client& c, std::string_view code, std::string_view part) {
        const auto e = c.refusal();
        BOOST_TEST(e.code == code, e.code << ": " << e.text);
        BOOST_TEST(e.text.find(part) != std::string::npos, e.text << " does not say '" << part << "'");
        Client other = connect("bystander");
        BOOST_TEST(other.hello(hello_of("bystander")).protocol == 1U);
        other.close();
    }
    Client welcomed(const std::string& source = "web-1") {
        Client c = connect(source);
        welcome = c.hello(hello_of(source));
        return c;
    }
    /// What is durable of web-1 afterwards.
    std::uint64_t durable_batch() {
        Client c = connect("web-1");
        return c.hello(hello_of("web-1")).durable_batch;
    }
    proto::Welcome welcome;
};

Batch small() {
    Batch b{.number = 1, .prev_mark = 0, .mark = 1};
    b.writes = {{.extent = {0, 8}, .fill = std::byte{1}}};
    return b;
}

/// A connection attempt that must fail in TLS, on either side of its last flight.
void tls_refused(std::uint16_t port, const tls::TlsContext& context) {
    auto c = Client::connect(port, context);
    if (!c)
        return;
    Bytes hello;
    proto::encode_frame(FrameType::hello, 0, 0, {}, nullptr, hello);
    (void)c->try_raw(hello);
    BOOST_TEST(!c->next().has_value());
}

}  // namespace

BOOST_FIXTURE_TEST_SUITE(refusal, Running)

BOOST_AUTO_TEST_CASE(certificates_of_others) {
    // another CA
    BOOST_REQUIRE(tls::pki::init(dir / "ca2", "other", 30));
    std::filesystem::create_directory(dir / "certs2");
    const auto alien = tls::pki::issue(dir / "ca2", tls::Role::source, "web-1", 30, dir / "certs2");
    BOOST_REQUIRE(alien);
    const auto context = tls::TlsContext::make_client({.cert = alien->cert, .key = alien->key, .ca = dir / "ca" / "ca.pem", .crl = {}});
    BOOST_REQUIRE(context);
    tls_refused(port, *context);
    BOOST_TEST(log.wait_for("event=refused"));
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().size(); }) == 0U);
    Client good = welcomed();
    BOOST_TEST(welcome.session == 1U);
}

BOOST_AUTO_TEST_CASE(revoked_certificates_after_a_reload) {
    Client before = welcomed();
    BOOST_REQUIRE(tls::pki::revoke(dir / "ca", tls::Identity{tls::Role::source, "web-1"}));
    stop();
    options.tls.crl = dir / "ca" / "ca.crl";
    start();
    tls_refused(port, context_of("web-1"));
    (void)connect("db-1");
    BOOST_REQUIRE(tls::pki::revoke(dir / "ca", tls::Identity{tls::Role::source, "db-1"}));
    BOOST_TEST(in_loop([](Server& s) { return s.reload_tls().has_value(); }));
    tls_refused(port, context_of("db-1"));
}

BOOST_AUTO_TEST_CASE(plain_text_and_other_protocols) {
    Bytes hello;
    Bytes body;
    encode(hello_of("web-1"), body);
    proto::encode_frame(FrameType::hello, 0, 0, body, nullptr, hello);
    Client c = Client::plain(port);
    c.raw(hello);
    c.until_closed();
    Client http = Client::plain(port);
    http.raw(std::as_bytes(std::span(std::string_view("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))));
    http.until_closed();
    BOOST_TEST(until([](Server& s) { return s.sessions() == 0 && s.admission().connections() == 0; }));
    Client good = welcomed();
}

BOOST_AUTO_TEST_CASE(garbage_behind_the_tls_handshake) {
    Client c = connect("web-1");
    c.raw(Bytes(4096, std::byte{0x5a}));
    refused(c, "corrupt", "magic");
}

BOOST_AUTO_TEST_CASE(first_frame_must_be_hello) {
    for (const FrameType type : {FrameType::heartbeat, FrameType::hash_ask, FrameType::welcome, FrameType::error}) {
        Client c = connect("web-1");
        Bytes frame;
        proto::encode_frame(type, 0, 0, {}, nullptr, frame);
        c.raw(frame);
        refused(c, "invalid", "not HELLO");
    }
    Client c = connect("web-1");
    for (const Bytes& frame : frames_of(small()))
        (void)c.try_raw(frame);
    refused(c, "invalid", "not HELLO");
}

BOOST_AUTO_TEST_CASE(hello_that_lies) {
    {
        Client c = connect("web-1");
        c.send(FrameType::hello, hello_of("db-1"));
        refused(c, "denied", "certificate is of 'web-1'");
    }
    {
        Client c = connect("web-1");
        auto h = hello_of("web-1");
        h.protocol = 2;
        c.send(FrameType::hello, h);
        refused(c, "unsupported", "version 2");
    }
    {
        Client c = connect("web-1");
        auto h = hello_of("web-1");
        h.disks.clear();
        c.send(FrameType::hello, h);
        refused(c, "invalid", "at least one disk");
    }
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().contains("web-1"); }) == false);
    {
        Client c = welcomed();
        c.send(FrameType::hello, hello_of("web-1"));
        refused(c, "invalid", "HELLO is not for the server");
    }
}

BOOST_AUTO_TEST_CASE(another_machine_under_the_same_name) {
    Client good = welcomed();
    auto h = hello_of("web-1");
    h.source_id = Uuid::random();
    Client clone = connect("web-1");
    clone.send(FrameType::hello, h);
    refused(clone, "denied", "machine");
    BOOST_TEST(log.count("event=alarm reason=identity") == 1U);
    // The live connection is not touched by it.
    good.send(small());
    BOOST_TEST(good.ack_of(1).mark == 1U);
}

BOOST_AUTO_TEST_CASE(a_slot_that_changes_its_disk) {
    welcomed().close();
    auto h = hello_of("web-1");
    h.disks[0].disk_id = Uuid::random();
    Client c = connect("web-1");
    c.send(FrameType::hello, h);
    refused(c, "conflict", "slot 0");
}

BOOST_AUTO_TEST_CASE(frames_of_the_wrong_direction) {
    for (const FrameType type : {FrameType::welcome, FrameType::ack, FrameType::epoch_result, FrameType::point_result,
                                 FrameType::hash_reply}) {
        Client c = welcomed();
        Bytes frame;
        proto::encode_frame(type, 0, 0, {}, nullptr, frame);
        c.raw(frame);
        refused(c, "invalid", "not for the server");
    }
}

BOOST_AUTO_TEST_CASE(batches_out_of_order) {
    const auto check = [&](Batch b, std::string_view part) {
        Client c = welcomed();
        for (const Bytes& frame : frames_of(b))
            if (!c.try_raw(frame))
                break;
        refused(c, "invalid", part);
        BOOST_TEST(durable_batch() == 0U);
    };
    Batch b = small();
    b.number = 2;
    check(b, "batch 1 is expected");
    b = small();
    b.number = ~0ULL;
    check(b, "batch 1 is expected");
    b = small();
    b.prev_mark = 1;
    check(b, "follows mark 1");
    b = small();
    b.writes[0].slot = 7;
    check(b, "slot 7");
    b = small();
    b.writes[0].extent = {disk_sectors - 4, 8};
    check(b, "beyond the end");
    b = small();
    b.writes[0].kind = ExtentKind::resync_data;
    check(b, "no open epoch");
}

BOOST_AUTO_TEST_CASE(frames_out_of_order) {
    const auto frames = frames_of(small());
    const auto check = [&](const std::vector<std::size_t>& order, std::string_view part) {
        Client c = welcomed();
        for (const std::size_t i : order)
            if (!c.try_raw(frames[i]))
                break;
        refused(c, "invalid", part);
        BOOST_TEST(durable_batch() == 0U);
    };
    check({1}, "not begun");
    check({0, 0}, "BATCH_BEGIN inside");
    check({0, 2}, "frame index 2");
    check({0, 1, 1}, "frame index 1");
}

BOOST_AUTO_TEST_CASE(counts_and_digests_that_differ) {
    const auto check = [&](const std::function<void(proto::BatchEnd&)>& spoil, std::string_view part) {
        Client c = welcomed();
        const auto frames = frames_of(small());
        c.raw(frames[0]);
        c.raw(frames[1]);
        auto end = end_of(small());
        spoil(end);
        c.send(FrameType::batch_end, end, 1, 2);
        refused(c, "invalid", part);
        BOOST_TEST(durable_batch() == 0U);
    };
    check([](auto& e) { ++e.extents; }, "counts 2 extents");
    check([](auto& e) { e.payload_bytes -= 512; }, "payload bytes");
    check([](auto& e) { ++e.sectors; }, "differs");
    check([](auto& e) { e.digest ^= 1; }, "differs");
}

BOOST_AUTO_TEST_CASE(damaged_and_oversized_frames) {
    {
        Client c = welcomed();
        auto frames = frames_of(small());
        c.raw(frames[0]);
        frames[1][2000] ^= std::byte{1};
        c.raw(frames[1]);
        refused(c, "corrupt", "checksum");
        BOOST_TEST(durable_batch() == 0U);
    }
    {
        Client c = welcomed();
        auto header = proto::encode_header({.type = FrameType::extents, .wire_len = 1U << 30, .raw_len = 1U << 30, .batch = 1});
        c.raw(header);
        refused(c, "invalid", "allowed");
    }
    {
        Client c = connect("web-1");
        auto header = proto::encode_header({.type = FrameType::hello, .wire_len = 1U << 20, .raw_len = 1U << 20});
        c.raw(header);
        refused(c, "invalid", "allowed");
    }
    {
        Client c = welcomed();
        Bytes frame;
        proto::encode_frame(FrameType::hash_ask, 0, 0, Bytes(100), nullptr, frame);
        c.raw(frame);
        refused(c, "invalid", "HASH_ASK");
    }
}

BOOST_AUTO_TEST_CASE(an_agent_that_says_why_it_goes) {
    Client c = welcomed();
    c.send(FrameType::error, proto::PeerError{.code = "closed", .text = "line1\nforged=1"});
    c.until_closed();
    BOOST_TEST(log.wait_for("event=disconnected"));
    BOOST_TEST(log.count("\nforged") == 0U);
}

BOOST_AUTO_TEST_CASE(a_source_that_connects_without_end_is_slowed_down) {
    stop();
    options.greetings_max = 5;
    start();
    proto::PeerError e;
    for (int i = 0; i < 20 && e.code.empty(); ++i) {
        Client c = connect("web-1");
        c.send(FrameType::hello, hello_of("web-1"));
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        if (frame->header.type == FrameType::error)
            e = proto::decode_peer_error(frame->body).value();
    }
    BOOST_TEST(e.code == "busy");
    BOOST_TEST(e.text.find("connects too often") != std::string::npos);
    Client other = connect("db-1");  // each source has its own share
    BOOST_TEST(other.hello(hello_of("db-1")).session == 1U);
    // And it comes back with time.
    for (bool taken = false; !taken;) {
        Client c = connect("web-1");
        c.send(FrameType::hello, hello_of("web-1"));
        const auto frame = c.next();
        BOOST_REQUIRE(frame);
        taken = frame->header.type == FrameType::welcome;
    }
}

BOOST_AUTO_TEST_CASE(too_many_open_questions) {
    Client c = welcomed();
    const auto frames = frames_of(small());
    c.raw(frames[0]);
    c.raw(frames[1]);
    Bytes body;
    encode(proto::HashAsk{.request = 1, .slot = 0, .block_bytes = 4096, .sector = 0, .hashes = {sha256({})}}, body);
    Bytes ask;
    proto::encode_frame(FrameType::hash_ask, 0, 0, body, nullptr, ask);
    // Each loop round may hand one question to the worker; a flood in one piece is more than the table holds.
    Bytes flood;
    for (int i = 0; i < 2000; ++i)
        flood.insert(flood.end(), ask.begin(), ask.end());
    (void)c.try_raw(flood);
    refused(c, "conflict", "questions are open");
}

BOOST_AUTO_TEST_SUITE_END()

namespace {
struct Tight : Harness {
    Tight() {
        options.handshake_ns = 300'000'000;
        options.silence_ns = 500'000'000;
        options.heartbeat_ns = 50'000'000;
        options.admission = {.connections_max = 40, .handshakes_max = 20, .address_max = 30, .address_handshakes_max = 10};
        start();
    }
};
}  // namespace

BOOST_FIXTURE_TEST_SUITE(deadlines, Tight)

BOOST_AUTO_TEST_CASE(who_says_nothing_is_closed) {
    Client silent = Client::plain(port);  // no TLS
    silent.until_closed();
    Client mute = connect("web-1");  // TLS, no HELLO
    BOOST_TEST(mute.refusal().code == "timeout");
    Client slow = connect("web-1");  // HELLO byte by byte
    Bytes body;
    encode(hello_of("web-1"), body);
    Bytes hello;
    proto::encode_frame(FrameType::hello, 0, 0, body, nullptr, hello);
    for (std::size_t i = 0; i < 20; ++i)
        if (!slow.try_raw(std::span(hello).subspan(i, 1)))
            break;
    BOOST_TEST(slow.refusal().text == "no HELLO in time");
}

BOOST_AUTO_TEST_CASE(an_agent_without_heartbeats_is_dropped) {
    Client c = connect("web-1");
    BOOST_TEST(c.hello(hello_of("web-1")).session == 1U);
    const auto e = c.refusal();
    BOOST_TEST(e.code == "timeout");
}

BOOST_AUTO_TEST_CASE(floods_of_connections_do_not_keep_others_out) {
    std::list<Client> flood;
    for (int i = 0; i < 200; ++i)
        flood.push_back(Client::plain(port));
    BOOST_TEST(until([](Server& s) { return s.counters().refused_admission >= 190; }));
    BOOST_TEST(in_loop([](Server& s) { return s.admission().connections(); }) <= 10U);
    // Those that got in say nothing; when their time is over there is room again.
    BOOST_TEST(until([](Server& s) { return s.admission().handshakes() == 0; }));
    Client good = connect("web-1");
    BOOST_TEST(good.hello(hello_of("web-1")).session == 1U);
    BOOST_TEST(log.count("event=refused") < 60U);  // a line a connection would fill the log
}

BOOST_AUTO_TEST_CASE(in_a_flood_from_many_addresses_the_oldest_handshake_gives_way) {
    stop();
    options.admission = {.connections_max = 200, .handshakes_max = 20, .address_max = 200, .address_handshakes_max = 100};
    options.handshake_ns = 600'000'000'000;  // time does not help
    start();
    std::list<Client> flood;
    for (int i = 0; i < 60; ++i)
        flood.push_back(Client::plain(port));
    BOOST_TEST(until([](Server& s) { return s.counters().accepted >= 60; }));
    BOOST_TEST(in_loop([](Server& s) { return s.admission().handshakes(); }) <= 20U);
    Client good = connect("web-1");
    BOOST_TEST(good.hello(hello_of("web-1")).session == 1U);
    BOOST_TEST(log.count("given up in its handshake") > 0U);
    // Who has said HELLO does not give way.
    for (int i = 0; i < 60; ++i)
        flood.push_back(Client::plain(port));
    BOOST_TEST(until([](Server& s) { return s.counters().accepted >= 121; }));
    BOOST_TEST(in_loop([](Server& s) { return s.replicas().at("web-1")->report().connected; }));
}

BOOST_AUTO_TEST_CASE(a_frame_that_does_not_end_is_given_up) {
    stop();
    options.frame_ns = 300'000'000;
    options.silence_ns = 600'000'000'000;
    start();
    Client c = connect("web-1");
    BOOST_TEST(c.hello(hello_of("web-1")).session == 1U);
    // A good header, and then its body byte by byte: the connection is never silent.
    proto::FrameHeader header;
    header.type = FrameType::heartbeat;
    header.wire_len = header.raw_len = 60'000;
    c.raw(proto::encode_header(header));
    const Bytes byte(1, std::byte{'x'});
    while (c.try_raw(byte) && log.count("event=disconnected") == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    BOOST_TEST(log.wait_for("no whole frame came"));
}

BOOST_AUTO_TEST_CASE(a_peer_that_reads_nothing_is_cut_off) {
    Client c = connect("web-1");
    const int small = 4096;
    BOOST_REQUIRE(::setsockopt(c.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    BOOST_TEST(c.hello(hello_of("web-1")).session == 1U);
    // Answers pile up: questions are asked and nothing is read.
    Bytes body;
    proto::HashAsk ask{.request = 1, .slot = 0, .block_bytes = 4096, .sector = 0, .hashes = {}};
    ask.hashes.resize(1024);
    encode(ask, body);
    Bytes frame;
    proto::encode_frame(FrameType::hash_ask, 0, 0, body, nullptr, frame);
    BOOST_TEST(until([&](Server& s) {
        (void)s;
        return !c.try_raw(frame) || log.count("event=disconnected") > 0;
    }));
    Client good = connect("db-1");
    BOOST_TEST(good.hello(hello_of("db-1")).session == 1U);
}

BOOST_AUTO_TEST_SUITE_END()
