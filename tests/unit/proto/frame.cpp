// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <random>
#include <set>
#include <vector>

#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "proto/frame.hpp"

using namespace blkferry;
using namespace blkferry::proto;

namespace {

FrameHeader sample() {
    return {.type = FrameType::extents, .codec = Codec::zstd, .wire_len = 10, .raw_len = 20, .batch = 7, .index = 3,
            .body_xxh3 = 0x1122334455667788ULL};
}

/// Sets a field of an encoded header and makes its checksum right again: only the field's own check can refuse it.
template <std::unsigned_integral T>
HeaderBytes patched(const FrameHeader& h, std::size_t at, T value) {
    HeaderBytes raw = encode_header(h);
    store_le<T>(raw.data() + at, value);
    store_le<std::uint32_t>(raw.data() + 44, crc32c(std::span(raw).first(44)));
    return raw;
}

std::string refusal(const HeaderBytes& raw) {
    const auto r = decode_header(raw);
    return r ? "accepted" : r.error().text;
}

std::vector<std::byte> bytes_of(std::size_t n) {
    std::vector<std::byte> v(n);
    for (std::size_t i = 0; i < n; ++i)
        v[i] = static_cast<std::byte>(i / 3);
    return v;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(frame)

BOOST_AUTO_TEST_CASE(header_round_trip) {
    for (const FrameHeader& h :
         {sample(), FrameHeader{.type = FrameType::heartbeat, .wire_len = 5, .raw_len = 5, .body_xxh3 = 1},
          FrameHeader{.type = FrameType::batch_begin, .wire_len = 0, .raw_len = 0, .batch = ~0ULL, .index = ~0U}})
        BOOST_TEST((decode_header(encode_header(h)).value() == h));
}

BOOST_AUTO_TEST_CASE(every_flipped_bit_is_found) {
    const HeaderBytes good = encode_header(sample());
    for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
        HeaderBytes bad = good;
        bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
        BOOST_REQUIRE(!decode_header(bad));
    }
}

BOOST_AUTO_TEST_CASE(each_field_has_its_own_refusal) {
    const FrameHeader h = sample();
    const auto has = [](const std::string& text, std::string_view part) {
        BOOST_TEST(text.find(part) != std::string::npos, text << " does not say '" << part << "'");
    };
    has(refusal(patched<std::uint32_t>(h, 0, 0)), "magic");
    has(refusal(patched<std::uint8_t>(h, 4, 2)), "version 2");
    has(refusal(patched<std::uint8_t>(h, 5, 0)), "unknown type 0");
    has(refusal(patched<std::uint8_t>(h, 5, 19)), "unknown type 19");
    has(refusal(patched<std::uint8_t>(h, 6, 3)), "unknown compression 3");
    has(refusal(patched<std::uint8_t>(h, 7, 1)), "reserved");
    has(refusal(patched<std::uint32_t>(h, 28, 1)), "reserved");
    has(refusal(patched<std::uint32_t>(h, 40, 1)), "reserved");
    has(refusal(patched<std::uint32_t>(h, 8, frame_body_bytes_max + 1)), "allowed");
    has(refusal(patched<std::uint32_t>(h, 12, frame_body_bytes_max + 1)), "allowed");
    has(refusal(patched<std::uint32_t>(h, 12, ~0U)), "allowed");
    has(refusal(patched<std::uint32_t>(h, 8, 20)), "contradict");
    has(refusal(patched<std::uint8_t>(h, 6, 0)), "contradict");
    has(refusal(patched<std::uint64_t>(h, 16, 0)), "EXTENTS with batch 0");
    has(refusal(patched<std::uint8_t>(h, 5, static_cast<std::uint8_t>(FrameType::ack))), "ACK with batch 7");
    HeaderBytes no_crc = encode_header(h);
    no_crc[44] ^= std::byte{1};
    has(refusal(no_crc), "header checksum");
}

BOOST_AUTO_TEST_CASE(json_frames_have_a_smaller_limit) {
    for (const FrameType t : {FrameType::hello, FrameType::welcome, FrameType::heartbeat, FrameType::error, FrameType::cert_request,
                              FrameType::cert_reply, FrameType::retire}) {
        FrameHeader h{.type = t, .wire_len = json_body_bytes_max, .raw_len = json_body_bytes_max};
        BOOST_TEST(decode_header(encode_header(h)).has_value());
        ++h.raw_len;
        ++h.wire_len;
        BOOST_TEST(!decode_header(encode_header(h)));
    }
}

BOOST_AUTO_TEST_CASE(types_have_names_and_places) {
    std::set<std::string_view> names;
    for (unsigned t = 1; t <= 18; ++t)
        names.insert(to_string(static_cast<FrameType>(t)));
    BOOST_TEST(names.size() == 18U);
    for (unsigned t = 1; t <= 18; ++t)
        BOOST_TEST(is_batch_frame(static_cast<FrameType>(t)) == (t >= 3 && t <= 8));
}

BOOST_AUTO_TEST_CASE(body_round_trip_with_each_codec) {
    const auto raw = bytes_of(40000);
    Decompressor decompressor;
    std::vector<std::byte> scratch;
    for (const Codec c : {Codec::none, Codec::lz4, Codec::zstd}) {
        Compressor compressor(c, 1);
        std::vector<std::byte> out;
        encode_frame(FrameType::extents, 9, 2, raw, &compressor, out);
        FrameReader reader;
        reader.feed(out);
        FrameReader::View view;
        BOOST_REQUIRE((reader.next(view).value() == FrameReader::Status::frame));
        BOOST_TEST((view.header.codec == c));
        BOOST_TEST(view.whole.size() == out.size());
        BOOST_TEST(view.header.batch == 9U);
        const auto body = decode_body(view.header, view.wire, decompressor, scratch);
        BOOST_REQUIRE(body);
        BOOST_TEST(std::ranges::equal(*body, raw));
    }
}

BOOST_AUTO_TEST_CASE(damaged_bodies_are_refused) {
    const auto raw = bytes_of(5000);
    Decompressor decompressor;
    std::vector<std::byte> scratch;
    for (const Codec c : {Codec::none, Codec::lz4, Codec::zstd}) {
        Compressor compressor(c, 1);
        std::vector<std::byte> out;
        encode_frame(FrameType::extents, 9, 2, raw, &compressor, out);
        const auto header = decode_header(std::span(out).first<frame_header_bytes>()).value();
        const auto body = std::span(out).subspan(frame_header_bytes);
        std::size_t refused = 0;
        std::size_t same = 0;
        for (std::size_t at = 0; at < body.size(); ++at) {
            body[at] ^= std::byte{0x10};
            const auto r = decode_body(header, body, decompressor, scratch);
            // A flip may hit a bit that zstd does not use; then the decompressed bytes are the very same.
            if (!r)
                ++refused;
            else if (std::ranges::equal(*r, raw))
                ++same;
            body[at] ^= std::byte{0x10};
        }
        BOOST_TEST(refused + same == body.size());
        BOOST_TEST(refused > body.size() / 2);
        BOOST_TEST(!decode_body(header, body.first(body.size() - 1), decompressor, scratch));
    }
}

BOOST_AUTO_TEST_CASE(reader_cuts_any_fragmentation_alike) {
    std::vector<std::byte> stream;
    std::vector<std::size_t> sizes;
    std::mt19937_64 random(3);
    for (std::uint32_t i = 0; i < 40; ++i) {
        const std::size_t n = random() % 3000;
        encode_frame(FrameType::extents, 1, i, bytes_of(n), nullptr, stream);
        sizes.push_back(n);
    }
    for (int round = 0; round < 20; ++round) {
        FrameReader reader;
        std::size_t at = 0;
        std::size_t got = 0;
        while (at < stream.size()) {
            const std::size_t n = std::min<std::size_t>(1 + random() % 4000, stream.size() - at);
            reader.feed(std::span(stream).subspan(at, n));
            at += n;
            FrameReader::View view;
            while (reader.next(view).value() == FrameReader::Status::frame) {
                BOOST_REQUIRE_EQUAL(view.header.index, got);
                BOOST_REQUIRE_EQUAL(view.wire.size(), sizes.at(got));
                BOOST_REQUIRE_EQUAL(view.header.body_xxh3, xxh3(view.wire));
                ++got;
            }
        }
        BOOST_REQUIRE_EQUAL(got, sizes.size());
        BOOST_REQUIRE_EQUAL(reader.buffered(), 0U);
    }
}

BOOST_AUTO_TEST_CASE(reader_refuses_before_the_body_arrives_and_stays_bad) {
    FrameReader reader;
    reader.feed(patched<std::uint32_t>(sample(), 12, ~0U));
    FrameReader::View view;
    BOOST_TEST(!reader.next(view));
    std::vector<std::byte> good;
    encode_frame(FrameType::heartbeat, 0, 0, {}, nullptr, good);
    reader.feed(good);
    BOOST_TEST(!reader.next(view));
}

BOOST_AUTO_TEST_SUITE_END()
