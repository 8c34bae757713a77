// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/hash.hpp"

using namespace blkferry;

namespace {
std::span<const std::byte> raw(std::string_view s) {
    return std::as_bytes(std::span(s));
}
std::string hex(std::span<const std::byte> data) {
    std::string s;
    for (const std::byte b : data)
        s += fmt::format("{:02x}", std::to_integer<unsigned>(b));
    return s;
}
/// CRC-32C one bit at a time, the definition.
std::uint32_t crc32c_slow(std::span<const std::byte> data) {
    std::uint32_t crc = ~0U;
    for (const std::byte b : data) {
        crc ^= std::to_integer<std::uint32_t>(b);
        for (int i = 0; i < 8; ++i)
            crc = (crc >> 1) ^ ((crc & 1U) != 0 ? 0x82f63b78U : 0U);
    }
    return ~crc;
}
}  // namespace

BOOST_AUTO_TEST_SUITE(hash)

BOOST_AUTO_TEST_CASE(crc32c_golden) {
    BOOST_TEST(crc32c({}) == 0U);
    BOOST_TEST(crc32c(raw("123456789")) == 0xe3069283U);
    // RFC 3720, B.4
    BOOST_TEST(crc32c(std::vector<std::byte>(32, std::byte{0})) == 0x8a9136aaU);
    BOOST_TEST(crc32c(std::vector<std::byte>(32, std::byte{0xff})) == 0x62a8ab43U);
}

BOOST_AUTO_TEST_CASE(crc32c_equals_its_definition_at_every_length) {
    std::vector<std::byte> data;
    for (unsigned i = 0; i < 600; ++i) {
        BOOST_REQUIRE_EQUAL(crc32c(data), crc32c_slow(data));
        data.push_back(static_cast<std::byte>(i * 197U + (i >> 3)));
    }
}

BOOST_AUTO_TEST_CASE(xxh3_golden) {
    BOOST_TEST(xxh3({}) == 0x2d06800538d394c2ULL);
    BOOST_TEST(xxh3(raw("a")) == 0xe6c632b61e964e1fULL);
    BOOST_TEST(xxh3(raw("abc")) == 0x78af5f94892f3950ULL);
}

BOOST_AUTO_TEST_CASE(sha256_golden) {
    BOOST_TEST(hex(sha256({})) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    BOOST_TEST(hex(sha256(raw("abc"))) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

BOOST_AUTO_TEST_CASE(sha256_in_pieces) {
    Sha256Stream empty;
    BOOST_TEST(hex(empty.value()) == hex(sha256({})));
    Sha256Stream pieces;
    pieces.add(raw("a"));
    pieces.add({});
    pieces.add(raw("bc"));
    BOOST_TEST(hex(pieces.value()) == hex(sha256(raw("abc"))));
}

BOOST_AUTO_TEST_SUITE_END()
