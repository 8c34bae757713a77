// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/hash.hpp"
#include "extent/extent_set.hpp"
#include "proto/batch.hpp"
#include "proto/control.hpp"
#include "proto/enrolment.hpp"
#include "proto/frame.hpp"
#include "proto/handshake.hpp"
#include "proto/hashing.hpp"

/// The examples of docs/protocol.md are these frames, byte for byte: what is written there is what travels.
using namespace blkferry;
using namespace blkferry::proto;

namespace {

using Bytes = std::vector<std::byte>;

Uuid uuid(std::uint8_t fill) {
    Uuid u;
    u.bytes.fill(fill);
    return u;
}

template <class M>
Bytes frame(FrameType type, const M& m, std::uint64_t batch = 0, std::uint32_t index = 0) {
    Bytes body;
    encode(m, body);
    Bytes out;
    encode_frame(type, batch, index, body, nullptr, out);
    return out;
}

Bytes extents_frame() {
    const std::vector<ExtentEntry> entries{{.slot = 0, .kind = ExtentKind::data, .extent = {2048, 1}},
                                           {.slot = 0, .kind = ExtentKind::zero, .extent = {4096, 16}}};
    Bytes body;
    encode_extents_head(entries, body);
    for (unsigned i = 0; i < 512; ++i)
        body.push_back(static_cast<std::byte>(i));
    Bytes out;
    encode_frame(FrameType::extents, 7, 1, body, nullptr, out);
    return out;
}

BatchEnd batch_end() {
    ExtentSet set;
    set.insert({2048, 1});
    set.insert({4096, 16});
    SetDigest digest;
    digest.add(0, set);
    return {.extents = 2, .consistent = true, .payload_bytes = 512, .sectors = set.sectors(), .digest = digest.value()};
}

Hello hello() {
    Hello m;
    m.agent_version = "0.1.0";
    m.source = "web-1";
    m.source_id = uuid(0x11);
    m.load_id = uuid(0x22);
    m.disks = {{.slot = 0, .disk_id = uuid(0x33), .name = "vda", .identity = "QM00001", .sectors = 8192,
                .logical_block = 512, .attach_id = uuid(0x44)}};
    return m;
}

Welcome welcome() {
    Welcome m;
    m.server_version = "0.1.0";
    m.session = 3;
    m.durable_batch = 6;
    m.durable_mark = 1000;
    m.load_id = uuid(0x22);
    m.window_bytes = 67108864;
    m.disks = {{.slot = 0, .known = true, .attach_id = uuid(0x44), .synced = true, .epoch_seq = 0}};
    return m;
}

std::map<std::string, Bytes> frames() {
    const Sha256 hash = sha256({});
    return {
        {"HELLO", frame(FrameType::hello, hello())},
        {"WELCOME", frame(FrameType::welcome, welcome())},
        {"BATCH_BEGIN", frame(FrameType::batch_begin, BatchBegin{.prev_mark = 1000, .mark = 1002, .time_ns = 1800000000000000000}, 7)},
        {"EXTENTS", extents_frame()},
        {"EPOCH_BEGIN", frame(FrameType::epoch_begin,
                              EpochBegin{.slot = 0, .kind = EpochKind::gap, .block_shift = 12, .seq0 = 900, .sectors = 16,
                                         .digest = 0x0123456789abcdef}, 7, 2)},
        {"EPOCH_END", frame(FrameType::epoch_end,
                            EpochEnd{.slot = 0, .seq0 = 900, .sectors = 16, .digest = 0x0123456789abcdef}, 7, 3)},
        {"POINT_REQUEST", frame(FrameType::point_request, PointRequest{.request = 5, .kind = PointKind::fs, .name = "nightly"}, 7, 4)},
        {"BATCH_END", frame(FrameType::batch_end, batch_end(), 7, 5)},
        {"ACK", frame(FrameType::ack, Ack{.batch = 7, .mark = 1002, .window_bytes = 67108864})},
        {"EPOCH_RESULT", frame(FrameType::epoch_result, EpochResult{.slot = 0, .ok = false, .seq0 = 900, .text = "8 sectors are missing"})},
        {"POINT_RESULT", frame(FrameType::point_result, PointResult{.request = 5, .mark = 1002, .ok = true, .name = "nightly", .text = ""})},
        {"HASH_ASK", frame(FrameType::hash_ask, HashAsk{.request = 9, .slot = 0, .block_bytes = 4096, .sector = 8, .hashes = {hash}})},
        {"HASH_REPLY", frame(FrameType::hash_reply, HashReply{.request = 9, .differs = {true}})},
        {"HEARTBEAT", frame(FrameType::heartbeat, Heartbeat{.state = "CONTINUOUS", .cause = "", .backlog_bytes = 4096, .lag_ms = 120,
                                                            .applied_mark = 0, .points = 0, .newest_point_mark = 0,
                                                            .progress_permille = 1000})},
        {"ERROR", frame(FrameType::error, PeerError{.code = "denied", .text = "the certificate names another source"})},
        {"CERT_REQUEST", frame(FrameType::cert_request, CertRequest{.source = "web-1", .csr = "csr", .token_id = std::string(16, '1'),
                                                                    .token_secret = std::string(32, '2'), .agent_version = "0.1.0"})},
        {"CERT_REPLY", frame(FrameType::cert_reply, CertReply{.code = "", .text = "", .cert = "cert", .ca = "ca", .server = "replica"})},
    };
}

/// Blocks "```golden NAME" of the document, as bytes; offsets and text columns are not written there, only hex.
std::map<std::string, Bytes> documented() {
    std::ifstream file(PROTOCOL_MD);
    BOOST_REQUIRE_MESSAGE(file, "cannot open " PROTOCOL_MD);
    std::map<std::string, Bytes> out;
    std::string line;
    std::string name;
    while (std::getline(file, line)) {
        if (line.starts_with("```golden ")) {
            name = line.substr(10);
            out[name];
        } else if (line.starts_with("```")) {
            name.clear();
        } else if (!name.empty()) {
            std::istringstream words(line);
            for (std::string word; words >> word;)
                out[name].push_back(static_cast<std::byte>(std::stoul(word, nullptr, 16)));
        }
    }
    return out;
}

std::string dump(const Bytes& data) {
    std::string s;
    for (std::size_t i = 0; i < data.size(); ++i)
        s += fmt::format("{:02x}{}", std::to_integer<unsigned>(data[i]), i % 32 == 31 || i + 1 == data.size() ? "\n" : " ");
    return s;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden)

BOOST_AUTO_TEST_CASE(the_document_shows_what_travels) {
    const auto made = frames();
    const auto written = documented();
    for (const auto& [name, bytes] : made) {
        const auto it = written.find(name);
        BOOST_TEST((it != written.end() && it->second == bytes),
                   "docs/protocol.md must say:\n```golden " << name << "\n" << dump(bytes) << "```");
    }
    BOOST_TEST(written.size() == made.size());
    BOOST_TEST(made.size() == 17U);  // every frame type has an example
}

BOOST_AUTO_TEST_CASE(every_example_decodes) {
    for (const auto& [name, bytes] : documented()) {
        FrameReader reader;
        reader.feed(bytes);
        FrameReader::View view;
        BOOST_REQUIRE((reader.next(view).value() == FrameReader::Status::frame));
        BOOST_TEST(to_string(view.header.type) == name);
        BOOST_TEST(view.header.body_xxh3 == xxh3(view.wire));
        BOOST_TEST(reader.buffered() == 0U);
    }
}

BOOST_AUTO_TEST_SUITE_END()
