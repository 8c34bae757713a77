// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE
#include <boost/test/unit_test.hpp>

#include <vector>

#include "base/bytes.hpp"
#include "proto/control.hpp"
#include "proto/hashing.hpp"

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

template <class M, class D>
void round_trip(const M& m, D d) {
    const Bytes good = body_of(m);
    const auto r = d(good);
    BOOST_REQUIRE(r);
    BOOST_TEST((*r == m));
    for (std::size_t n = 0; n < good.size(); ++n)
        BOOST_REQUIRE(!d(std::span(good).first(n)));
    Bytes longer = good;
    longer.push_back(std::byte{0});
    BOOST_REQUIRE(!d(longer));
}

template <std::unsigned_integral T>
Bytes with(Bytes body, std::size_t at, T value) {
    store_le<T>(body.data() + at, value);
    return body;
}

HashAsk ask(std::size_t count) {
    HashAsk m{.request = 5, .slot = 2, .block_bytes = 1U << 16, .sector = 128 * 3, .hashes = {}};
    for (std::size_t i = 0; i < count; ++i)
        m.hashes.push_back(sha256(std::as_bytes(std::span(&i, 1))));
    return m;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(control)

BOOST_AUTO_TEST_CASE(answers_round_trip) {
    round_trip(Ack{.batch = 1, .mark = 2, .window_bytes = 3}, decode_ack);
    round_trip(EpochResult{.slot = 3, .ok = true, .seq0 = 9, .text = ""}, decode_epoch_result);
    round_trip(EpochResult{.slot = 3, .ok = false, .seq0 = 9, .text = "8 sectors are missing"}, decode_epoch_result);
    round_trip(PointResult{.request = 1, .mark = 2, .ok = true, .name = "p-1", .text = ""}, decode_point_result);
    round_trip(PointResult{.request = 1, .mark = 2, .ok = false, .name = "", .text = "a gap is open"}, decode_point_result);
    round_trip(ask(1), decode_hash_ask);
    round_trip(ask(33), decode_hash_ask);
    for (const std::size_t n : {1U, 7U, 8U, 9U, 1024U}) {
        HashReply m{.request = 8, .differs = {}};
        for (std::size_t i = 0; i < n; ++i)
            m.differs.push_back(i % 3 == 0);
        round_trip(m, decode_hash_reply);
    }
    BOOST_TEST(decode_hash_ask(body_of(ask(hash_blocks_max))).has_value());
}

BOOST_AUTO_TEST_CASE(fields_out_of_range_are_refused) {
    const Bytes epoch = body_of(EpochResult{.slot = 3, .ok = true, .seq0 = 9, .text = "abc"});
    BOOST_TEST(!decode_epoch_result(with<std::uint16_t>(epoch, 0, disks_max)));
    BOOST_TEST(!decode_epoch_result(with<std::uint8_t>(epoch, 2, 2)));
    BOOST_TEST(!decode_epoch_result(with<std::uint8_t>(epoch, 3, 1)));
    BOOST_TEST(!decode_epoch_result(with<std::uint32_t>(epoch, 4, ~0U)));
    const Bytes point = body_of(PointResult{.request = 1, .mark = 2, .ok = true, .name = "p", .text = "abc"});
    BOOST_TEST(!decode_point_result(with<std::uint8_t>(point, 16, 2)));
    BOOST_TEST(!decode_point_result(with<std::uint8_t>(point, 17, name_bytes_max + 1)));
    BOOST_TEST(!decode_point_result(with<std::uint16_t>(point, 18, text_bytes_max + 1)));
    BOOST_TEST(!decode_point_result(with<std::uint8_t>(point, 20, '/')));
    const Bytes hashes = body_of(ask(2));
    BOOST_TEST(!decode_hash_ask(with<std::uint16_t>(hashes, 8, disks_max)));
    BOOST_TEST(!decode_hash_ask(with<std::uint16_t>(hashes, 10, 1)));
    for (const std::uint32_t bad : {0U, 512U, 2048U, 4097U, 1U << 21, ~0U})
        BOOST_TEST(!decode_hash_ask(with<std::uint32_t>(hashes, 12, bad)));
    BOOST_TEST(!decode_hash_ask(with<std::uint64_t>(hashes, 16, 129)));
    BOOST_TEST(!decode_hash_ask(with<std::uint64_t>(hashes, 16, disk_sectors_max)));
    for (const std::uint32_t bad : {0U, 1U, 3U, 1025U, ~0U})
        BOOST_TEST(!decode_hash_ask(with<std::uint32_t>(hashes, 24, bad)));
    BOOST_TEST(!decode_hash_ask(with<std::uint32_t>(hashes, 28, 1)));
    const Bytes reply = body_of(HashReply{.request = 1, .differs = {true, false}});
    for (const std::uint32_t bad : {0U, 9U, 1025U, ~0U})
        BOOST_TEST(!decode_hash_reply(with<std::uint32_t>(reply, 8, bad)));
    // Bits beyond the count have no meaning and must be zero: one value, one encoding.
    BOOST_TEST(!decode_hash_reply(with<std::uint8_t>(reply, 16, 0x05)));
}

BOOST_AUTO_TEST_CASE(long_texts_are_cut_on_sending) {
    EpochResult m{.slot = 0, .ok = false, .seq0 = 1, .text = std::string(1000, 'x')};
    BOOST_TEST(decode_epoch_result(body_of(m)).value().text.size() == text_bytes_max);
    PointResult p{.request = 0, .mark = 0, .ok = false, .name = "n", .text = std::string(1000, 'x')};
    BOOST_TEST(decode_point_result(body_of(p)).value().text.size() == text_bytes_max);
}

BOOST_AUTO_TEST_SUITE_END()
