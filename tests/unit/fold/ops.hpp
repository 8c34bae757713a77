// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "capture/ring.hpp"

namespace blkferry::fold::test {

/// Makes captured operations with payloads of their own, laid out one after another as in a data ring.
class Payloads {
public:
    capture::CapturedOp write(std::uint16_t slot, std::uint64_t sector, std::uint32_t sectors) {
        capture::CapturedOp op = payloadless(capture::OpKind::write, slot, sector, sectors);
        op.data = take(std::size_t{sectors} * sector_bytes);
        return op;
    }
    capture::CapturedOp payloadless(capture::OpKind kind, std::uint16_t slot, std::uint64_t sector, std::uint64_t sectors) {
        capture::CapturedOp op;
        op.seq = ++seq_;
        op.op = kind;
        op.slot = slot;
        op.sector = sector;
        op.nr_sectors = static_cast<std::uint32_t>(sectors);
        return op;
    }
    /// Bytes that stay where they are; consecutive calls give consecutive memory as long as a slab lasts.
    std::byte* take(std::size_t n) {
        constexpr std::size_t slab_bytes = 4U << 20;
        if (slabs_.empty() || used_ + n > slab_bytes) {
            slabs_.emplace_back(slab_bytes);
            used_ = 0;
        }
        std::byte* p = slabs_.back().data() + used_;
        used_ += n;
        return p;
    }

private:
    std::deque<std::vector<std::byte>> slabs_;
    std::size_t used_ = 0;
    std::uint64_t seq_ = 0;
};

}  // namespace blkferry::fold::test
