// SPDX-License-Identifier: Apache-2.0
#include <bitset>
#include <cstdint>

#include "base/bytes.hpp"
#include "base/result.hpp"
#include "extent/extent_set.hpp"

/// A history of inserts, erases and questions against a plain bitmap. 4 bytes an operation: kind, first sector (two), length.
using namespace blkferry;

namespace {

constexpr std::uint64_t sectors = 4096;
using Bits = std::bitset<sectors>;

void check(const std::vector<Extent>& runs, const Bits& bits, Extent within) {
    Bits seen;
    std::uint64_t end = 0;
    bool first = true;
    for (const Extent& e : runs) {
        BLKFERRY_ASSERT(e.count > 0 && (first || e.sector > end));  // ascending, apart
        first = false;
        end = e.end();
        for (std::uint64_t s = e.sector; s < end; ++s)
            seen.set(s);
    }
    for (std::uint64_t s = 0; s < sectors; ++s)
        BLKFERRY_ASSERT(seen[s] == (bits[s] && s >= within.sector && s < within.end()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    ByteReader r(std::as_bytes(std::span(data, std::min<std::size_t>(size, 1024))));
    ExtentSet set;
    Bits bits;
    while (!r.rest().empty()) {
        const auto kind = r.get<std::uint8_t>();
        const std::uint64_t sector = r.get<std::uint16_t>() % sectors;
        const Extent e{sector, std::min<std::uint64_t>(r.get<std::uint8_t>(), sectors - sector)};
        if (!r.ok())
            break;
        bool any = false;
        for (std::uint64_t s = e.sector; s < e.end(); ++s) {
            any = any || bits[s];
            if (kind % 4 < 2)
                bits[s] = kind % 4 == 0;
        }
        switch (kind % 4) {
            case 0: set.insert(e); break;
            case 1: set.erase(e); break;
            case 2: check(set.common(e), bits, e); break;
            case 3: check(set.missing(e), ~bits, e); break;
            default: break;
        }
        if (kind % 4 >= 2)
            BLKFERRY_ASSERT(set.overlaps(e) == any);
        BLKFERRY_ASSERT(set.sectors() == bits.count() && set.empty() == bits.none());
    }
    check(set.list(), bits, {0, sectors});
    return 0;
}
