// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <vector>

#include "base/bytes.hpp"
#include "proto/batch.hpp"

using namespace blkferry;
using namespace blkferry::proto;

namespace {

using Bytes = std::vector<std::byte>;

template <class M>
Bytes body_of(const M& m) {
    Bytes out;
    encode(m, out);
    return out;
}

Bytes extents(const std::vector<ExtentEntry>& entries) {
    Bytes out;
    encode_extents_head(entries, out);
    std::size_t payload = 0;
    for (const ExtentEntry& e : entries)
        payload += e.payload_bytes();
    out.resize(out.size() + payload, std::byte{0x77});
    return out;
}

/// Decoder `d` must refuse every shorter and longer body, and the body with any one reserved byte set.
template <class D>
void exact_length(const Bytes& good, D d, const std::vector<std::size_t>& reserved) {
    BOOST_REQUIRE(d(good));
    for (std::size_t n = 0; n < good.size(); ++n)
        BOOST_REQUIRE(!d(std::span(good).first(n)));
    Bytes longer = good;
    longer.push_back(std::byte{0});
    BOOST_REQUIRE(!d(longer));
    for (const std::size_t at : reserved) {
        Bytes bad = good;
        bad.at(at) = std::byte{1};
        BOOST_TEST(!d(bad), "reserved byte " << at << " was not checked");
    }
}

template <std::unsigned_integral T>
Bytes with(Bytes body, std::size_t at, T value) {
    store_le<T>(body.data() + at, value);
    return body;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(batch)

BOOST_AUTO_TEST_CASE(fixed_bodies_round_trip_and_have_one_length) {
    const BatchBegin begin{.prev_mark = 5, .mark = 9, .time_ns = 1};
    BOOST_TEST((decode_batch_begin(body_of(begin)).value() == begin));
    exact_length(body_of(begin), decode_batch_begin, {24, 31});
    BOOST_TEST(body_of(begin).size() == 32U);

    const EpochBegin epoch{.slot = 3, .kind = EpochKind::rescan, .block_shift = 16, .seq0 = 8, .sectors = 10, .digest = 11};
    BOOST_TEST((decode_epoch_begin(body_of(epoch)).value() == epoch));
    exact_length(body_of(epoch), decode_epoch_begin, {3, 32, 39});
    BOOST_TEST(body_of(epoch).size() == 40U);

    const EpochEnd end{.slot = 3, .seq0 = 8, .sectors = 10, .digest = 11};
    BOOST_TEST((decode_epoch_end(body_of(end)).value() == end));
    exact_length(body_of(end), decode_epoch_end, {2, 3, 4, 7});
    BOOST_TEST(body_of(end).size() == 32U);

    const BatchEnd close{.extents = 4, .consistent = true, .payload_bytes = 512, .sectors = 1, .digest = 99};
    BOOST_TEST((decode_batch_end(body_of(close)).value() == close));
    exact_length(body_of(close), decode_batch_end, {7, 32, 39});
    BOOST_TEST(body_of(close).size() == 40U);

    for (const char* name : {"", "nightly-1", "0._-"}) {
        const PointRequest request{.request = 77, .kind = PointKind::fs, .name = name};
        BOOST_TEST((decode_point_request(body_of(request)).value() == request));
        exact_length(body_of(request), decode_point_request, {});
    }
}

BOOST_AUTO_TEST_CASE(fields_out_of_range_are_refused) {
    BOOST_TEST(!decode_batch_begin(body_of(BatchBegin{.prev_mark = 9, .mark = 8, .time_ns = 0})));
    const Bytes epoch = body_of(EpochBegin{.slot = 0, .kind = EpochKind::gap, .block_shift = 12, .seq0 = 1, .sectors = 1, .digest = 0});
    BOOST_TEST(!decode_epoch_begin(with<std::uint16_t>(epoch, 0, disks_max)));
    BOOST_TEST(!decode_epoch_begin(with<std::uint8_t>(epoch, 2, 0)));
    BOOST_TEST(!decode_epoch_begin(with<std::uint8_t>(epoch, 2, 4)));
    BOOST_TEST(!decode_epoch_begin(with<std::uint32_t>(epoch, 4, 11)));
    BOOST_TEST(!decode_epoch_begin(with<std::uint32_t>(epoch, 4, 31)));
    BOOST_TEST(!decode_epoch_begin(with<std::uint64_t>(epoch, 16, disk_sectors_max + 1)));
    const Bytes end = body_of(EpochEnd{});
    BOOST_TEST(!decode_epoch_end(with<std::uint16_t>(end, 0, disks_max)));
    BOOST_TEST(!decode_epoch_end(with<std::uint64_t>(end, 16, disk_sectors_max + 1)));
    const Bytes close = body_of(BatchEnd{});
    BOOST_TEST(!decode_batch_end(with<std::uint32_t>(close, 0, batch_extents_max + 1)));
    BOOST_TEST(!decode_batch_end(with<std::uint32_t>(close, 4, 2)));
    BOOST_TEST(!decode_batch_end(with<std::uint64_t>(close, 8, batch_payload_bytes_max + 1)));
    const Bytes point = body_of(PointRequest{.request = 1, .kind = PointKind::crash, .name = "abc"});
    BOOST_TEST(!decode_point_request(with<std::uint8_t>(point, 8, 0)));
    BOOST_TEST(!decode_point_request(with<std::uint8_t>(point, 8, 3)));
    BOOST_TEST(!decode_point_request(with<std::uint8_t>(point, 10, '/')));
    BOOST_TEST(!decode_point_request(with<std::uint8_t>(point, 10, '.')));
}

BOOST_AUTO_TEST_CASE(extents_round_trip) {
    const std::vector<ExtentEntry> entries{
        {.slot = 0, .kind = ExtentKind::data, .extent = {0, 8}},
        {.slot = 255, .kind = ExtentKind::zero, .extent = {1ULL << 40, 0xffffffffU}},
        {.slot = 1, .kind = ExtentKind::discard, .extent = {7, 1}},
        {.slot = 1, .kind = ExtentKind::resync_data, .extent = {disk_sectors_max - 1, 1}},
        {.slot = 1, .kind = ExtentKind::resync_zero, .extent = {8, 1}},
        {.slot = 1, .kind = ExtentKind::resync_same, .extent = {9, 1}},
    };
    const Bytes body = extents(entries);
    const auto view = decode_extents(body);
    BOOST_REQUIRE(view);
    BOOST_TEST((view->entries == entries));
    BOOST_TEST(view->payload.size() == 9U * sector_bytes);
    BOOST_TEST(view->payload.data() == body.data() + extents_head_bytes(entries.size()));
    for (std::size_t n = 0; n < body.size(); ++n)
        BOOST_REQUIRE(!decode_extents(std::span(body).first(n)));
}

BOOST_AUTO_TEST_CASE(extents_out_of_range_are_refused) {
    const Bytes one = extents({{.slot = 0, .kind = ExtentKind::zero, .extent = {100, 8}}});
    BOOST_REQUIRE(decode_extents(one));
    BOOST_TEST(!decode_extents(with<std::uint32_t>(one, 0, 0)));
    BOOST_TEST(!decode_extents(with<std::uint32_t>(one, 0, 2)));
    BOOST_TEST(!decode_extents(with<std::uint32_t>(one, 0, ~0U)));
    BOOST_TEST(!decode_extents(with<std::uint32_t>(one, 4, 1)));
    BOOST_TEST(!decode_extents(with<std::uint16_t>(one, 8, disks_max)));
    BOOST_TEST(!decode_extents(with<std::uint8_t>(one, 10, 0)));
    BOOST_TEST(!decode_extents(with<std::uint8_t>(one, 10, 7)));
    BOOST_TEST(!decode_extents(with<std::uint8_t>(one, 11, 1)));
    BOOST_TEST(!decode_extents(with<std::uint32_t>(one, 12, 0)));
    BOOST_TEST(!decode_extents(with<std::uint64_t>(one, 16, disk_sectors_max)));
    BOOST_TEST(!decode_extents(with<std::uint64_t>(one, 16, disk_sectors_max - 7)));
    BOOST_TEST(!decode_extents(with<std::uint64_t>(one, 16, ~0ULL)));
    BOOST_TEST(decode_extents(with<std::uint64_t>(one, 16, disk_sectors_max - 8)).has_value());
    // A kind with payload but none present; the sum of payloads far above any body.
    BOOST_TEST(!decode_extents(with<std::uint8_t>(one, 10, 1)));
    std::vector<ExtentEntry> many(frame_extents_max,
                                  {.slot = 0, .kind = ExtentKind::zero, .extent = {0, 0xffffffffU}});
    Bytes body = extents(many);
    BOOST_REQUIRE(decode_extents(body));
    for (std::size_t i = 0; i < many.size(); ++i)
        body[8 + i * extent_entry_bytes + 2] = std::byte{1};
    BOOST_TEST(!decode_extents(body));
    many.push_back(many.front());
    BOOST_TEST(!decode_extents(extents(many)));
}

BOOST_AUTO_TEST_CASE(names) {
    for (const char* good : {"a", "0", "web-1.example_x", "A.b-c_d"})
        BOOST_TEST(valid_name(good), good);
    for (const char* bad : {"", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "\xc3\xa4"})
        BOOST_TEST(!valid_name(bad), bad);
    BOOST_TEST(valid_name(std::string(name_bytes_max, 'a')));
    BOOST_TEST(!valid_name(std::string(name_bytes_max + 1, 'a')));
    BOOST_TEST(!valid_name(std::string_view("a\0b", 3)));
}

BOOST_AUTO_TEST_SUITE_END()
