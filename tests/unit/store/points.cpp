// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <cstdlib>

#include "crash_fs.hpp"
#include "store/checkpoint.hpp"
#include "store/point.hpp"

using namespace blkferry;
using namespace blkferry::store;
using blkferry::test::CrashFs;

namespace {

const std::string zeroes(64, '0');

Manifest manifest(std::uint64_t serial, std::string name, std::string parent) {
    Manifest m;
    m.serial = serial;
    m.name = std::move(name);
    m.source = "web1";
    m.source_id = Uuid::random();
    m.store = Uuid::random();
    m.batch = serial * 10;
    m.mark = serial * 1000;
    m.made_ns = 1'700'000'000'000'000'000ULL;
    m.kind = proto::PointKind::fs;
    m.disks = {{0, Uuid::random(), "vda", "serial \"1\"", 2048, 512, chunk_bytes_default, serial},
               {7, Uuid::random(), "vdb", "", 1ULL << 53, 4096, chunk_bytes_unit, serial}};
    m.parent_hash = std::move(parent);
    return m;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(points)

BOOST_AUTO_TEST_CASE(manifest_round_trips_and_every_changed_byte_shows) {
    const auto signer = Signer::generate().value();
    Manifest m = manifest(3, "daily-1", zeroes);
    m.launchable = Launchable::launchable;
    m.digests[7] = std::string(64, 'a');
    const std::string text = encode(m, signer.get()).value();
    BOOST_TEST((decode_manifest(text, signer.get()).value().manifest == m));
    BOOST_TEST((decode_manifest(text, nullptr).value().manifest == m));
    Manifest planned = m;
    planned.scheduled = true;
    const std::string planned_text = encode(planned, signer.get()).value();
    BOOST_TEST((decode_manifest(planned_text, signer.get()).value().manifest == planned));
    BOOST_TEST(planned.hash() != m.hash());  // who made it cannot be changed afterwards
    BOOST_TEST(text.find("scheduled") == std::string::npos);
    std::string spelled_out = encode(planned, nullptr).value();
    spelled_out.replace(spelled_out.find("\"scheduled\":true"), 16, "\"scheduled\":false");
    BOOST_TEST(!decode_manifest(spelled_out, nullptr).has_value());
    for (std::size_t i = 0; i < text.size(); ++i)
        for (const char flip : {'\x01', '\x10'}) {
            std::string bad = text;
            bad[i] = static_cast<char>(bad[i] ^ flip);
            BOOST_TEST(!decode_manifest(bad, signer.get()).has_value());
        }
    for (std::size_t n = 0; n < text.size(); ++n)
        BOOST_TEST(!decode_manifest(std::string_view(text).substr(0, n), nullptr).has_value());
    const auto other = Signer::generate().value();
    BOOST_TEST(!decode_manifest(text, other.get()).has_value());
    BOOST_TEST(!decode_manifest(encode(m, nullptr).value(), signer.get()).has_value());
    BOOST_TEST(!decode_manifest(" " + text, nullptr).has_value());
}

BOOST_AUTO_TEST_CASE(manifest_refuses_impossible_members) {
    const Manifest good = manifest(1, "p", zeroes);
    const auto refused = [&](auto&& change) {
        Manifest m = good;
        change(m);
        return !decode_manifest(encode(m, nullptr).value(), nullptr).has_value();
    };
    BOOST_TEST(!refused([](Manifest&) {}));
    BOOST_TEST(refused([](Manifest& m) { m.name = "../evil"; }));
    BOOST_TEST(refused([](Manifest& m) { m.source = ""; }));
    BOOST_TEST(refused([](Manifest& m) { m.serial = 0; }));
    BOOST_TEST(refused([](Manifest& m) { m.parent_hash = "xyz"; }));
    BOOST_TEST(refused([](Manifest& m) { m.disks.clear(); }));
    BOOST_TEST(refused([](Manifest& m) { std::swap(m.disks[0], m.disks[1]); }));
    BOOST_TEST(refused([](Manifest& m) { m.disks[0].sectors = 0; }));
    BOOST_TEST(refused([](Manifest& m) { m.disks[0].sectors = proto::disk_sectors_max + 1; }));
    BOOST_TEST(refused([](Manifest& m) { m.disks[0].chunk_bytes = 1000; }));
    BOOST_TEST(refused([](Manifest& m) { m.disks[0].generation = 0; }));
}

BOOST_AUTO_TEST_CASE(keys_are_saved_and_loaded) {
    char name[] = "/tmp/blkferry-keys-XXXXXX";
    const std::filesystem::path dir = ::mkdtemp(name);
    const auto made = Signer::generate().value();
    BOOST_REQUIRE(made->save_private(dir / "k.pem").has_value());
    BOOST_REQUIRE(made->save_public(dir / "k.pub").has_value());
    const auto loaded = Signer::load_private(dir / "k.pem").value();
    const auto verifier = Signer::load_public(dir / "k.pub").value();
    BOOST_TEST(loaded->key_id() == made->key_id());
    const std::string signature = loaded->sign("text").value();
    BOOST_TEST(verifier->verify("text", signature).has_value());
    BOOST_TEST(!verifier->verify("texT", signature).has_value());
    BOOST_TEST(!verifier->verify("text", signature.substr(2)).has_value());
    BOOST_TEST((verifier->sign("text").error().code == Errc::denied));
    BOOST_TEST(!Signer::load_public(dir / "none").has_value());
    std::filesystem::remove_all(dir);
}

BOOST_AUTO_TEST_CASE(chain_shows_missing_and_changed_points_but_not_removed_ones) {
    CrashFs fs;
    const auto signer = Signer::generate().value();
    std::string parent = zeroes;
    {
        auto store = PointStore::open(fs, "/points", signer.get()).value();
        for (std::uint64_t i = 1; i <= 5; ++i) {
            const Manifest m = manifest(i, "p" + std::to_string(i), parent);
            BOOST_REQUIRE(store->publish(m).has_value());
            BOOST_TEST(store->publish(m).has_value());
            BOOST_TEST((store->publish(manifest(9, m.name, parent)).error().code == Errc::exists));
            parent = m.hash();
        }
        BOOST_REQUIRE(store->remove("p2", 1).has_value());
        BOOST_REQUIRE(store->remove("p1", 2).has_value());
        BOOST_TEST((store->remove("p1", 2).error().code == Errc::not_found));
        BOOST_TEST(store->verify_chain(5, parent).has_value());
        BOOST_TEST(store->nearest(4999).value().name == "p4");
        BOOST_TEST(!store->nearest(10).has_value());
        BOOST_TEST((store->generations(7) == std::vector<Generation>{3, 4, 5}));
        BOOST_TEST(store->set_proof("p3", Launchable::failed, {{0, std::string(64, '1')}}).has_value());
    }
    auto again = PointStore::open(fs, "/points", signer.get()).value();
    BOOST_TEST(again->size() == 3u);
    BOOST_TEST((again->find("p3").value().launchable == Launchable::failed));
    BOOST_TEST(again->verify_chain(5, parent).has_value());
    BOOST_TEST(!again->verify_chain(6, parent).has_value());
    BOOST_TEST(!again->verify_chain(5, zeroes).has_value());

    BOOST_REQUIRE(fs.remove("/points/p4.json").has_value());
    again = PointStore::open(fs, "/points", signer.get()).value();
    BOOST_TEST((again->verify_chain(0, {}).error().code == Errc::corrupt));

    (*fs.contents("/points/p3.json"))[40] ^= std::byte{1};
    again = PointStore::open(fs, "/points", signer.get()).value();
    BOOST_TEST(again->damaged().size() == 1u);
    BOOST_TEST(!again->find("p3").has_value());
}

BOOST_AUTO_TEST_CASE(checkpoint_round_trips_and_every_changed_byte_shows) {
    Checkpoint c;
    c.position = 1 << 20;
    c.batch = 77;
    c.mark = UINT64_MAX;
    c.generation = 9;
    c.table.session = 4;
    c.table.source_id = Uuid::random();
    c.table.load_id = Uuid::random();
    Disk d;
    d.info = {3, Uuid::random(), "vda", "x", 2048, 512, Uuid::random()};
    d.known = d.covering = true;
    d.epoch = Epoch{{3, proto::EpochKind::rescan, 12, 5, 2048, 0xFFFFFFFFFFFFFFFFULL}, 4096};
    d.last = EpochOutcome{4, 32, true, false, "differs"};
    c.table.restore(d);
    c.pending.push_back(manifest(1, "p", zeroes));
    const std::string text = encode(c);
    BOOST_TEST((decode_checkpoint(text).value() == c));
    for (std::size_t i = 0; i < text.size(); ++i) {
        std::string bad = text;
        bad[i] = static_cast<char>(bad[i] ^ 1);
        BOOST_TEST(!decode_checkpoint(bad).has_value());
        BOOST_TEST(!decode_checkpoint(std::string_view(text).substr(0, i)).has_value());
    }
}

BOOST_AUTO_TEST_CASE(journal_texts_round_trip_and_refuse) {
    const auto bytes = [](const std::string& s) { return std::as_bytes(std::span(s)); };
    const Session s{5, Uuid::random(), Uuid::random(), 99, "0.1", {{3, Uuid::random(), "vda", "x", 8, 512, Uuid::random()}}};
    const std::string text = encode(s);
    BOOST_TEST((decode_session(bytes(text)).value() == s));
    const PointEntry p{1, proto::PointKind::fs, "a", 2};
    BOOST_TEST((decode_point_entry(bytes(encode(p))).value() == p));
    for (const std::string bad : {"", "{}", "[]", "{\"session\":1}", "null", "{\"kind\":9}"}) {
        BOOST_TEST(!decode_session(bytes(bad)).has_value());
        BOOST_TEST(!decode_point_entry(bytes(bad)).has_value());
    }
    BOOST_TEST(!decode_point_entry(bytes(encode(PointEntry{1, proto::PointKind::fs, "../a", 2}))).has_value());
}

BOOST_AUTO_TEST_SUITE_END()
