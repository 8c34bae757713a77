// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include <blkferry.h>

#include "capture/socket_protocol.hpp"

/// Bodies of what a producer says to a SocketTracker. The first byte chooses the reader; what is accepted is written to
/// something that reads the same.
using namespace blkferry;
using namespace blkferry::capture;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1)
        return 0;
    ByteReader r(std::as_bytes(std::span(data + 1, size - 1)));
    std::vector<std::byte> out;
    ByteWriter w(out);
    switch (data[0] % 3) {
        case 0:
            if (const auto d = wire::get_disk(r)) {
                BLKFERRY_ASSERT(d->state <= DiskState::ring && d->counters.size() <= 64);
                BLKFERRY_ASSERT(d->name.size() <= wire::string_bytes_max && d->device_path.size() <= wire::string_bytes_max);
                wire::put_disk(w, *d);
                BLKFERRY_ASSERT(std::ranges::equal(out, std::as_bytes(std::span(data + 1, out.size()))));
            }
            break;
        case 1:
            if (const auto ranges = wire::get_ranges(r)) {
                BLKFERRY_ASSERT(ranges->size() <= BLKFERRY_RANGES_MAX);
                wire::put_ranges(w, *ranges);
                BLKFERRY_ASSERT(std::ranges::equal(out, std::as_bytes(std::span(data + 1, out.size()))));
            }
            break;
        case 2: {
            const std::string text = wire::get_string(r);
            BLKFERRY_ASSERT(text.size() <= wire::string_bytes_max && (r.ok() || text.empty()));
            (void)wire::get_id(r);
            (void)wire::disk_state(r.get<std::uint32_t>());
            break;
        }
        default: break;
    }
    return 0;
}
