// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstring>

#include "capture/netlink_reply.hpp"
#include "exact_copy.hpp"

/// A datagram of the module: messages, attributes, acknowledgements, and every reply. The first byte says whether the length of
/// the first message is made right (so that the fuzzer gets into it).
using namespace blkferry;
using namespace blkferry::capture;

namespace {

void check_latency(const std::vector<LatencySet>& sets) {
    BLKFERRY_ASSERT(sets.size() <= latency_sets_max);
    for (const LatencySet& set : sets) {
        const std::uint64_t p50 = set.quantile_ns(500);
        const std::uint64_t p99 = set.quantile_ns(990);
        BLKFERRY_ASSERT(p50 <= p99 && p99 <= set.quantile_ns(1000) && set.quantile_ns(1000) <= set.max_ns());
        BLKFERRY_ASSERT(set.buckets().empty() == (set.samples() == 0));
    }
}

void check_attrs(const netlink::Attrs& attrs) {
    if (const auto d = netlink::parse_disk(attrs)) {
        BLKFERRY_ASSERT(d->state <= DiskState::ring && d->counters.size() <= 64);
        BLKFERRY_ASSERT(d->name.find('\0') == std::string::npos);
        BLKFERRY_ASSERT(!to_string(d->state).empty());
        check_latency(d->latency);
    }
    if (const auto i = netlink::parse_info(attrs)) {
        BLKFERRY_ASSERT(i->version.find('\0') == std::string::npos);
        check_latency(i->latency);
    }
    if (const auto e = netlink::parse_event(attrs))
        BLKFERRY_ASSERT(e->state <= DiskState::ring && !e->lost);
    (void)netlink::parse_u64(attrs, BLKFERRY_A_SEQ, "fuzz");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const ExactCopy input(data, size);
    const std::span<std::byte> bytes = input.bytes();
    if ((data[0] & 1U) != 0 && bytes.size() >= sizeof(nlmsghdr)) {
        const auto length = static_cast<std::uint32_t>(bytes.size());
        std::memcpy(bytes.data(), &length, sizeof(length));
    }
    netlink::Messages messages(bytes);
    while (nlmsghdr* h = messages.next()) {
        const netlink::Outcome o = netlink::read_outcome(h);
        BLKFERRY_ASSERT(o.err >= 0 && o.err <= 4095 && o.text.size() <= bytes.size());
        netlink::Attrs attrs{};
        if (netlink::parse_attrs(h, attrs))
            check_attrs(attrs);
    }
    return 0;
}
