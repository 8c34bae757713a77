// SPDX-License-Identifier: Apache-2.0
#undef BOOST_TEST_MODULE  // the first file of the program has main()
#include <boost/test/unit_test.hpp>

#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include <linux/genetlink.h>

#include "capture/latency.hpp"
#include "capture/netlink_reply.hpp"

using namespace blkferry;
using namespace blkferry::capture;

namespace {

constexpr std::uint64_t one = 1;
constexpr std::uint64_t u64_max = std::numeric_limits<std::uint64_t>::max();

std::span<const std::byte> bytes_of(const blkferry_latency& set) {
    return std::as_bytes(std::span(&set, 1));
}

/// A netlink message made attribute by attribute.
class Message {
public:
    Message() : bytes_(sizeof(nlmsghdr) + sizeof(genlmsghdr)) {}
    Message& add(blkferry_attr type, std::span<const std::byte> data) {
        const nlattr head = {static_cast<__u16>(sizeof(nlattr) + data.size()), static_cast<__u16>(type)};
        const auto raw = std::as_bytes(std::span(&head, 1));
        bytes_.insert(bytes_.end(), raw.begin(), raw.end());
        bytes_.insert(bytes_.end(), data.begin(), data.end());
        bytes_.resize((bytes_.size() + 3) & ~std::size_t{3});
        return *this;
    }
    template <class T>
    Message& put(blkferry_attr type, const T& value) {
        return add(type, std::as_bytes(std::span(&value, 1)));
    }
    /// All that INFO has besides the histogram.
    Message& info() {
        put(BLKFERRY_A_ABI, std::uint32_t{1}).put(BLKFERRY_A_VERSION, std::array{'1', '\0'}).put(BLKFERRY_A_LOAD_ID, Uuid{});
        return put(BLKFERRY_A_SEQ, std::uint64_t{9}).put(BLKFERRY_A_VOID_SEQ, std::uint64_t{0}).put(BLKFERRY_A_INFLIGHT, std::uint32_t{2});
    }
    template <class Set, class Ticks, class Ns>
    Message& latency(const Set& set, Ticks ticks, Ns ns) {
        return put(BLKFERRY_A_LATENCY, set).put(BLKFERRY_A_TICKS, ticks).put(BLKFERRY_A_TICKS_NS, ns);
    }
    [[nodiscard]] Result<TrackerInfo> read() {
        const auto length = static_cast<std::uint32_t>(bytes_.size());
        std::memcpy(bytes_.data(), &length, sizeof(length));
        netlink::Messages messages(bytes_);
        nlmsghdr* first = messages.next();
        netlink::Attrs attrs{};
        BOOST_REQUIRE(first != nullptr);
        BOOST_REQUIRE(netlink::parse_attrs(first, attrs));
        return netlink::parse_info(attrs);
    }

private:
    std::vector<std::byte> bytes_;
};

}  // namespace

BOOST_AUTO_TEST_SUITE(latency)

BOOST_AUTO_TEST_CASE(a_quantile_is_the_longest_time_of_its_bucket) {
    blkferry_latency raw{};
    raw.count[10] = 98;  // 1024..2047 ticks
    raw.count[12] = 1;   // 4096..8191
    raw.count[20] = 1;
    raw.max = (1U << 20) + 5;
    const LatencySet set(raw, 1, 1);
    BOOST_TEST(set.samples() == 100U);
    BOOST_TEST(set.quantile_ns(1) == 2047U);
    BOOST_TEST(set.quantile_ns(500) == 2047U);
    BOOST_TEST(set.quantile_ns(980) == 2047U);
    BOOST_TEST(set.quantile_ns(981) == 8191U);  // the 99th of 100
    BOOST_TEST(set.quantile_ns(990) == 8191U);
    BOOST_TEST(set.quantile_ns(991) == raw.max);  // never above the exact maximum
    BOOST_TEST(set.quantile_ns(1000) == raw.max);
    BOOST_TEST(set.max_ns() == raw.max);
    const auto buckets = set.buckets();
    BOOST_REQUIRE(buckets.size() == 3U);
    BOOST_TEST(buckets[0].first == 2047U);
    BOOST_TEST(buckets[0].second == 98U);
    BOOST_TEST(buckets[2].first == (1U << 21) - 1);
}

BOOST_AUTO_TEST_CASE(ticks_become_ns_rounded_up) {
    blkferry_latency raw{};
    raw.count[11] = 1;
    raw.max = 2401;
    const LatencySet set(raw, 2'400'000'123, 1'000'000'000);
    BOOST_TEST(set.max_ns() == 1001U);
    BOOST_TEST(set.quantile_ns(500) == 1001U);
    BOOST_TEST(set.buckets().at(0).first == 1707U);  // 4095 ticks
}

BOOST_AUTO_TEST_CASE(one_sample_and_none) {
    BOOST_TEST(LatencySet().samples() == 0U);
    BOOST_TEST(LatencySet().quantile_ns(990) == 0U);
    BOOST_TEST(LatencySet().max_ns() == 0U);
    BOOST_TEST(LatencySet().buckets().empty());
    blkferry_latency raw{};
    raw.count[0] = 1;
    raw.max = 1;
    const LatencySet set(raw, 1, 3);
    BOOST_TEST(set.quantile_ns(500) == 3U);
    BOOST_TEST(set.max_ns() == 3U);
}

BOOST_AUTO_TEST_CASE(counts_read_while_they_grow) {
    blkferry_latency raw{};
    raw.count[15] = 7;
    raw.max = 0;  // the bucket was counted, the maximum not yet
    const LatencySet behind(raw, 1, 1);
    BOOST_TEST(behind.max_ns() == 1U << 15);
    BOOST_TEST(behind.quantile_ns(990) == 1U << 15);
    raw = {};
    raw.max = 77;  // and the other way round
    const LatencySet ahead(raw, 1, 1);
    BOOST_TEST(ahead.samples() == 0U);
    BOOST_TEST(ahead.max_ns() == 0U);
}

BOOST_AUTO_TEST_CASE(any_numbers_are_survived) {
    blkferry_latency raw;
    std::memset(&raw, 0xff, sizeof(raw));
    for (const auto& [ticks, ns] : {std::pair<std::uint64_t, std::uint64_t>{1, u64_max}, {u64_max, 1}, {u64_max, u64_max}}) {
        const LatencySet set(raw, ticks, ns);
        BOOST_TEST(set.samples() == u64_max);
        BOOST_TEST(set.quantile_ns(500) <= set.quantile_ns(990));
        BOOST_TEST(set.quantile_ns(990) <= set.max_ns());
        BOOST_TEST(set.buckets().size() == 64U);
    }
}

BOOST_AUTO_TEST_CASE(what_the_module_sends_is_checked) {
    blkferry_latency raw{};
    raw.count[3] = 4;
    raw.max = 15;
    const auto good = parse_latency(bytes_of(raw), 2, 1);
    BOOST_REQUIRE(good);
    BOOST_REQUIRE(good->size() == 1U);
    BOOST_TEST(good->front().max_ns() == 8U);
    const auto corrupt = [](const auto& result) { return !result && result.error().code == Errc::corrupt; };
    BOOST_TEST(corrupt(parse_latency({}, 1, 1)));
    BOOST_TEST(corrupt(parse_latency(bytes_of(raw).first(sizeof(raw) - 1), 1, 1)));
    BOOST_TEST(corrupt(parse_latency(bytes_of(raw), 0, 1)));
    BOOST_TEST(corrupt(parse_latency(bytes_of(raw), 1, 0)));
    const std::vector<blkferry_latency> many(latency_sets_max + 1);
    BOOST_TEST(corrupt(parse_latency(std::as_bytes(std::span(many)), 1, 1)));
    BOOST_TEST(parse_latency(std::as_bytes(std::span(many).first(latency_sets_max)), 1, 1).has_value());
}

BOOST_AUTO_TEST_CASE(garbage_in_a_reply_is_refused) {
    blkferry_latency raw{};
    raw.count[12] = 3;
    raw.max = 5000;
    const auto none = Message().info().read();
    BOOST_REQUIRE(none);
    BOOST_TEST(none->latency.empty());
    const auto good = Message().info().latency(raw, one, one).read();
    BOOST_REQUIRE(good);
    BOOST_REQUIRE(good->latency.size() == 1U);
    BOOST_TEST(good->latency.front().max_ns() == 5000U);

    const auto refused = [](Message& m) {
        const auto r = m.read();
        return !r && r.error().code == Errc::corrupt && r.error().text.find("malformed") != std::string::npos;
    };
    BOOST_TEST(refused(Message().info().put(BLKFERRY_A_LATENCY, raw)));
    BOOST_TEST(refused(Message().info().put(BLKFERRY_A_LATENCY, raw).put(BLKFERRY_A_TICKS, one)));
    BOOST_TEST(refused(Message().info().latency(raw, std::uint64_t{0}, one)));
    BOOST_TEST(refused(Message().info().latency(raw, std::uint32_t{1}, one)));
    BOOST_TEST(refused(Message().info().latency(one, one, one)));
    BOOST_TEST(refused(Message().info().add(BLKFERRY_A_LATENCY, {}).put(BLKFERRY_A_TICKS, one).put(BLKFERRY_A_TICKS_NS, one)));
}

BOOST_AUTO_TEST_SUITE_END()
