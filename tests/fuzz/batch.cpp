// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <vector>

#include "proto/batch.hpp"
#include "proto/control.hpp"
#include "proto/hashing.hpp"

/// Every binary body. The first byte chooses the decoder; what is accepted must be encoded to the same bytes again, so that
/// each value has one encoding.
using namespace blkferry;
using namespace blkferry::proto;

namespace {

template <class D>
void check(std::span<const std::byte> body, D decode) {
    const auto m = decode(body);
    if (!m)
        return;
    std::vector<std::byte> out;
    encode(*m, out);
    BLKFERRY_ASSERT(std::ranges::equal(out, body));
}

void check_extents(std::span<const std::byte> body) {
    const auto view = decode_extents(body);
    if (!view)
        return;
    BLKFERRY_ASSERT(!view->entries.empty() && view->entries.size() <= frame_extents_max);
    std::size_t payload = 0;
    for (const ExtentEntry& e : view->entries) {
        BLKFERRY_ASSERT(e.slot < disks_max && e.extent.count > 0);
        BLKFERRY_ASSERT(e.extent.sector < disk_sectors_max && e.extent.end() <= disk_sectors_max);
        payload += e.payload_bytes();
    }
    BLKFERRY_ASSERT(payload == view->payload.size());
    std::vector<std::byte> out;
    encode_extents_head(view->entries, out);
    out.insert(out.end(), view->payload.begin(), view->payload.end());
    BLKFERRY_ASSERT(std::ranges::equal(out, body));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    const std::span body(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
    switch (data[0] % 11) {
        case 0: check_extents(body); break;
        case 1: check(body, decode_batch_begin); break;
        case 2: check(body, decode_epoch_begin); break;
        case 3: check(body, decode_epoch_end); break;
        case 4: check(body, decode_point_request); break;
        case 5: check(body, decode_batch_end); break;
        case 6: check(body, decode_ack); break;
        case 7: check(body, decode_epoch_result); break;
        case 8: check(body, decode_point_result); break;
        case 9: check(body, decode_hash_ask); break;
        case 10: check(body, decode_hash_reply); break;
        default: break;
    }
    return 0;
}
