// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <random>
#include <vector>

#include "codec/compress.hpp"
#include "codec/zero.hpp"

using namespace blkferry;

namespace {

std::vector<std::byte> text_like(std::size_t n) {
    std::vector<std::byte> v(n);
    for (std::size_t i = 0; i < n; ++i)
        v[i] = static_cast<std::byte>("the quick brown fox "[(i * i / 7 + i) % 20]);
    return v;
}

std::vector<std::byte> noise(std::size_t n, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::byte> v(n);
    for (auto& b : v)
        b = static_cast<std::byte>(random());
    return v;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(codec)

BOOST_AUTO_TEST_CASE(round_trip_of_all_sizes) {
    Decompressor d;
    for (const Codec c : {Codec::lz4, Codec::zstd}) {
        Compressor comp(c, 1);
        BOOST_TEST((comp.codec() == c));
        for (const std::size_t n : {64U, 512U, 4096U, 65536U, 1U << 20}) {
            const auto raw = text_like(n);
            std::vector<std::byte> out(3, std::byte{9});  // what was there stays
            if (!comp.compress(raw, out)) {
                BOOST_TEST(out.size() == 3U);
                BOOST_TEST(n <= 64U);
                continue;
            }
            BOOST_TEST(std::to_integer<int>(out[2]) == 9);
            BOOST_TEST(out.size() - 3 <= n - n / 16);
            std::vector<std::byte> back(n);
            BOOST_REQUIRE(d.decompress(c, std::span(out).subspan(3), back));
            BOOST_TEST((back == raw));
        }
    }
}

BOOST_AUTO_TEST_CASE(noise_is_left_alone) {
    for (const Codec c : {Codec::none, Codec::lz4, Codec::zstd}) {
        Compressor comp(c, 3);
        std::vector<std::byte> out;
        BOOST_TEST(!comp.compress(noise(65536, 5), out));
        BOOST_TEST(!comp.compress({}, out));
        BOOST_TEST(out.empty());
    }
}

BOOST_AUTO_TEST_CASE(stated_length_must_be_exact) {
    Decompressor d;
    const auto raw = text_like(4096);
    for (const Codec c : {Codec::lz4, Codec::zstd}) {
        Compressor comp(c, 1);
        std::vector<std::byte> out;
        BOOST_REQUIRE(comp.compress(raw, out));
        for (const std::size_t n : {0U, 1U, 4095U, 4097U, 8192U}) {
            std::vector<std::byte> back(n);
            const auto r = d.decompress(c, out, back);
            BOOST_REQUIRE(!r);
            BOOST_TEST((r.error().code == Errc::corrupt));
        }
        std::vector<std::byte> back(4096);
        BOOST_TEST(!d.decompress(c, std::span(out).first(out.size() / 2), back));
        BOOST_TEST(!d.decompress(c, {}, back));
    }
    std::vector<std::byte> back(4096);
    BOOST_TEST(d.decompress(Codec::none, raw, back).has_value());
    BOOST_TEST(!d.decompress(Codec::none, std::span(raw).first(4095), back));
}

BOOST_AUTO_TEST_CASE(damaged_input_never_writes_outside) {
    Decompressor d;
    std::mt19937_64 random(11);
    for (const Codec c : {Codec::lz4, Codec::zstd}) {
        Compressor comp(c, 1);
        std::vector<std::byte> out;
        BOOST_REQUIRE(comp.compress(text_like(8192), out));
        for (int i = 0; i < 3000; ++i) {
            auto bad = out;
            for (unsigned k = 0; k < 1 + random() % 3; ++k)
                bad[random() % bad.size()] = static_cast<std::byte>(random());
            std::vector<std::byte> back(8192 + 64, std::byte{0x5a});
            // The result may be an error or wrong bytes (the frame's checksum tells); the guard must stand.
            (void)d.decompress(c, bad, std::span(back).first(8192));
            for (std::size_t g = 8192; g < back.size(); ++g)
                BOOST_REQUIRE(back[g] == std::byte{0x5a});
        }
        std::vector<std::byte> back(8192);
        BOOST_TEST(d.decompress(c, out, back).has_value());  // a failure leaves the context usable
    }
}

BOOST_AUTO_TEST_CASE(names) {
    for (const Codec c : {Codec::none, Codec::lz4, Codec::zstd})
        BOOST_TEST((parse_codec(to_string(c)).value() == c));
    const auto r = parse_codec("gzip");
    BOOST_REQUIRE(!r);
    BOOST_TEST(r.error().text == "'gzip' is not a compression; use none, lz4 or zstd");
}

BOOST_AUTO_TEST_CASE(zero_detection_finds_any_single_bit) {
    for (const std::size_t n : {0U, 1U, 7U, 63U, 64U, 65U, 127U, 128U, 512U, 4096U}) {
        std::vector<std::byte> v(n);
        BOOST_TEST(is_zero(v));
        for (std::size_t i = 0; i < n; ++i) {
            v[i] = static_cast<std::byte>(1U << (i % 8));
            BOOST_REQUIRE(!is_zero(v));
            v[i] = std::byte{0};
        }
    }
}

BOOST_AUTO_TEST_SUITE_END()
