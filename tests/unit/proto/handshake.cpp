// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "proto/handshake.hpp"

using namespace blkferry;
using namespace blkferry::proto;
using nlohmann::json;

namespace {

Hello hello() {
    Hello m;
    m.agent_version = "0.1.0";
    m.source = "web-1.example";
    m.source_id = Uuid::random();
    m.load_id = Uuid::random();
    m.features = {"zstd", "rescan"};
    for (std::uint16_t slot = 0; slot < 2; ++slot)
        m.disks.push_back({.slot = slot,
                           .disk_id = Uuid::random(),
                           .name = "vda",
                           .identity = "serial \"0\" \xc3\xa4",
                           .sectors = 1ULL << 40,
                           .logical_block = 4096,
                           .attach_id = Uuid::random()});
    return m;
}

template <class M>
json as_json(const M& m) {
    std::vector<std::byte> out;
    encode(m, out);
    const auto* p = reinterpret_cast<const char*>(out.data());
    return json::parse(p, p + out.size());
}

std::vector<std::byte> raw(const std::string& s) {
    const auto v = std::as_bytes(std::span(s));
    return {v.begin(), v.end()};
}

std::string refusal(const std::function<void(json&)>& change) {
    json j = as_json(hello());
    change(j);
    const auto r = decode_hello(raw(j.dump()));
    return r ? "accepted" : r.error().text;
}

void says(const std::string& text, std::string_view part) {
    BOOST_TEST(text.find(part) != std::string::npos, text << " does not say '" << part << "'");
}

}  // namespace

BOOST_AUTO_TEST_SUITE(handshake)

BOOST_AUTO_TEST_CASE(round_trips) {
    std::vector<std::byte> out;
    const Hello h = hello();
    encode(h, out);
    BOOST_TEST((decode_hello(out).value() == h));

    Welcome w;
    w.server_version = "0.1.0";
    w.session = 3;
    w.durable_batch = 17;
    w.durable_mark = ~0ULL;
    w.load_id = Uuid::random();
    w.window_bytes = 64U << 20;
    w.disks = {{.slot = 0, .known = true, .attach_id = Uuid::random(), .synced = true, .epoch_seq = 0},
               {.slot = 1, .known = false, .attach_id = {}, .synced = false, .epoch_seq = 99}};
    out.clear();
    encode(w, out);
    BOOST_TEST((decode_welcome(out).value() == w));

    Heartbeat b{.state = "CONTINUOUS", .cause = "server disk", .backlog_bytes = 1, .lag_ms = 2, .applied_mark = 3,
                .points = 4, .newest_point_mark = 5, .progress_permille = 1000};
    out.clear();
    encode(b, out);
    BOOST_TEST((decode_heartbeat(out).value() == b));

    PeerError e{.code = "denied", .text = "no"};
    out.clear();
    encode(e, out);
    BOOST_TEST((decode_peer_error(out).value() == e));
}

BOOST_AUTO_TEST_CASE(unknown_members_are_ignored) {
    BOOST_TEST(refusal([](json& j) {
        j["new_thing"] = {{"deep", {{"deeper", {1, 2, 3}}}}};
        j["disks"][0]["new"] = "x";
    }) == "accepted");
}

BOOST_AUTO_TEST_CASE(each_member_is_checked_by_name) {
    for (const char* key : {"protocol", "agent_version", "source", "source_id", "load_id", "features", "disks"}) {
        says(refusal([&](json& j) { j.erase(key); }), key);
        says(refusal([&](json& j) { j[key] = -1; }), key);
        says(refusal([&](json& j) { j[key] = nullptr; }), key);
    }
    for (const char* key : {"slot", "disk_id", "name", "identity", "sectors", "logical_block", "attach_id"}) {
        says(refusal([&](json& j) { j["disks"][1].erase(key); }), key);
        says(refusal([&](json& j) { j["disks"][1][key] = false; }), key);
    }
    says(refusal([](json& j) { j["disks"] = json::array(); }), "at least one disk");
    says(refusal([](json& j) { j["disks"][0] = 1; }), "objects");
    says(refusal([](json& j) { j["disks"][1]["slot"] = 0; }), "no other disk has");
    says(refusal([](json& j) { j["disks"][1]["slot"] = disks_max; }), "slot");
    says(refusal([](json& j) { j["disks"][1]["sectors"] = 0; }), "above 0");
    says(refusal([](json& j) { j["disks"][1]["sectors"] = disk_sectors_max + 1; }), "sectors");
    says(refusal([](json& j) { j["disks"][1]["sectors"] = 1.5; }), "sectors");
    says(refusal([](json& j) { j["source_id"] = "zz"; }), "source_id");
    says(refusal([](json& j) { j["features"] = json::array({1}); }), "features");
    says(refusal([](json& j) { j["features"] = json(65, "x"); }), "features");
    for (const char* bad : {"", "../etc", ".hidden", "a b", "a/b", "\xc3\xa4", "-x"})
        says(refusal([&](json& j) { j["source"] = bad; }), "source");
    says(refusal([](json& j) { j["source"] = std::string(65, 'a'); }), "source");
    says(refusal([](json& j) {
             j["disks"] = json::array();
             for (unsigned i = 0; i <= disks_max; ++i)
                 j["disks"].push_back(1);
         }),
         "disks");
}

BOOST_AUTO_TEST_CASE(hostile_texts_are_refused) {
    const std::string bad_utf8 = "{\"source\":\"\xff\xfe\"}";
    for (const std::string& text :
         {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{}x"), bad_utf8,
          std::string("{\"protocol\":1e999}"), std::string(json_body_bytes_max + 1, ' '),
          std::string(json_body_bytes_max, '['), std::string("{\"a\":") + std::string(60000, '[')}) {
        BOOST_TEST(!decode_hello(raw(text)));
        BOOST_TEST(!decode_welcome(raw(text)));
        BOOST_TEST(!decode_heartbeat(raw(text)));
        BOOST_TEST(!decode_peer_error(raw(text)));
    }
}

BOOST_AUTO_TEST_CASE(long_error_texts_are_cut_on_sending) {
    std::vector<std::byte> out;
    encode(PeerError{.code = "io", .text = std::string(100000, 'x')}, out);
    BOOST_TEST(decode_peer_error(out).value().text.size() == text_bytes_max);
}

BOOST_AUTO_TEST_SUITE_END()
