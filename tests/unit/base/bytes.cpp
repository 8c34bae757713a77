// SPDX-License-Identifier: Apache-2.0
#include <boost/test/unit_test.hpp>

#include <array>

#include "base/bytes.hpp"

using namespace blkferry;

BOOST_AUTO_TEST_SUITE(bytes)

BOOST_AUTO_TEST_CASE(little_endian_whatever_the_host) {
    std::array<std::byte, 8> raw{};
    store_le<std::uint64_t>(raw.data(), 0x0102030405060708ULL);
    for (std::size_t i = 0; i < raw.size(); ++i)
        BOOST_TEST(std::to_integer<int>(raw[i]) == static_cast<int>(8 - i));
    BOOST_TEST(load_le<std::uint64_t>(raw.data()) == 0x0102030405060708ULL);
    BOOST_TEST(load_le<std::uint32_t>(raw.data()) == 0x05060708U);
    BOOST_TEST(load_le<std::uint16_t>(raw.data()) == 0x0708U);
    BOOST_TEST(load_le<std::uint8_t>(raw.data()) == 0x08U);
    raw.fill(std::byte{0xff});
    BOOST_TEST(load_le<std::uint64_t>(raw.data()) == ~0ULL);
}

BOOST_AUTO_TEST_CASE(writer_and_reader_agree) {
    std::vector<std::byte> out;
    ByteWriter w(out);
    w.put<std::uint8_t>(0xfe);
    w.put<std::uint16_t>(0xfedc);
    w.put<std::uint32_t>(0xfedcba98U);
    w.put<std::uint64_t>(0xfedcba9876543210ULL);
    const std::array tail{std::byte{1}, std::byte{2}};
    w.bytes(tail);
    BOOST_TEST(out.size() == 17U);

    ByteReader in(out);
    BOOST_TEST(in.get<std::uint8_t>() == 0xfeU);
    BOOST_TEST(in.get<std::uint16_t>() == 0xfedcU);
    BOOST_TEST(in.get<std::uint32_t>() == 0xfedcba98U);
    BOOST_TEST(in.get<std::uint64_t>() == 0xfedcba9876543210ULL);
    BOOST_TEST(in.ok());
    BOOST_TEST(!in.done());
    BOOST_TEST(in.rest().size() == 2U);
    BOOST_TEST(in.bytes(2).size() == 2U);
    BOOST_TEST(in.done());
}

BOOST_AUTO_TEST_CASE(reader_past_the_end_is_bad_for_ever) {
    const std::array<std::byte, 3> raw{std::byte{1}, std::byte{2}, std::byte{3}};
    ByteReader in(raw);
    BOOST_TEST(in.get<std::uint32_t>() == 0U);
    BOOST_TEST(!in.ok());
    BOOST_TEST(in.get<std::uint8_t>() == 0U);  // a byte is there, but what it means is not known any more
    BOOST_TEST(in.bytes(1).empty());
    BOOST_TEST(!in.done());
}

BOOST_AUTO_TEST_CASE(reader_refuses_huge_lengths) {
    const std::array<std::byte, 3> raw{};
    ByteReader in(raw);
    BOOST_TEST(in.bytes(~std::size_t{0}).empty());
    BOOST_TEST(!in.ok());
}

BOOST_AUTO_TEST_SUITE_END()
