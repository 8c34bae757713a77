// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstring>
#include <span>
#include <sys/mman.h>
#include <unistd.h>

#include <blkferry.h>

#include "base/fd.hpp"
#include "capture/ring.hpp"

namespace blkferry::capture::test {

/// Ring memory on memfds, with the side of the module in the hands of the test.
class WritableRing {
public:
    struct Shape {
        std::uint32_t disk = 0;
        std::uint32_t descs = 64;
        std::uint64_t data_bytes = 64U << 10;
        std::uint64_t sectors = 1U << 20;
        std::uint32_t block_shift = 12;
    };

    WritableRing() : WritableRing(Shape{}) {}
    explicit WritableRing(const Shape& shape) {
        const std::uint64_t blocks = (shape.sectors * sector_bytes + (1ULL << shape.block_shift) - 1) >> shape.block_shift;
        map_bytes_ = (blocks + 63) / 64 * 8;
        sizes_[0] = sizes_[1] = 4096;
        sizes_[2] = std::size_t{shape.descs} * sizeof(blkferry_desc);
        sizes_[3] = shape.data_bytes;
        sizes_[4] = map_bytes_;
        for (std::size_t i = 0; i < 5; ++i) {
            fds_[i] = Fd(::memfd_create("ring", MFD_CLOEXEC));
            BLKFERRY_ASSERT(fds_[i] && ::ftruncate(fds_[i].get(), static_cast<off_t>(sizes_[i])) == 0);
            ours_[i] = map(i);
        }
        blkferry_ctl& c = ctl();
        c.magic = BLKFERRY_CTL_MAGIC;
        c.abi = BLKFERRY_ABI_VERSION;
        c.disk = shape.disk;
        c.desc_count = shape.descs;
        c.data_bytes = shape.data_bytes;
        c.nr_sectors = shape.sectors;
        c.block_shift = shape.block_shift;
        c.logical_block = 512;
        c.map_bytes = map_bytes_;
        c.state = BLKFERRY_RING;
    }

    [[nodiscard]] blkferry_ctl& ctl() { return *at<blkferry_ctl>(0); }
    [[nodiscard]] blkferry_cons& cons() { return *at<blkferry_cons>(1); }
    [[nodiscard]] blkferry_desc& desc(std::uint64_t i) { return at<blkferry_desc>(2)[i & (ctl().desc_count - 1)]; }
    [[nodiscard]] std::byte* data() { return ours_[3].data(); }
    [[nodiscard]] std::uint64_t* snap() { return at<std::uint64_t>(4); }

    /// Mappings as a tracker would hand them out.
    [[nodiscard]] RingMemory memory() {
        RingMemory m;
        m.ctl = map(0);
        m.cons = map(1);
        m.desc = map(2);
        m.data = map(3);
        m.snap = map(4);
        return m;
    }
    [[nodiscard]] Ring ring() {
        auto r = Ring::open(memory());
        BLKFERRY_ASSERT(r.has_value());
        return std::move(*r);
    }

    /// Appends a descriptor; the payload of a write lies at `pos`.
    blkferry_desc& push(std::uint64_t seq, std::uint16_t op = BLKFERRY_OP_WRITE, std::uint64_t sector = 0,
                        std::uint32_t sectors = 8, std::uint64_t pos = 0, std::uint32_t state = BLKFERRY_D_DONE) {
        blkferry_desc& d = desc(ctl().head);
        d = {};
        d.seq = seq;
        d.op = op;
        d.state = state;
        if (op < BLKFERRY_OP_OVERFLOW) {
            d.sector = sector;
            d.nr_sectors = sectors;
        }
        if (op == BLKFERRY_OP_WRITE && state != BLKFERRY_D_DIRTY) {
            d.data_pos = pos;
            d.data_len = sectors * 512;
        }
        d.time_ns = 1000 + seq;
        ++ctl().head;
        return d;
    }

private:
    [[nodiscard]] Mapping map(std::size_t i) {
        auto m = Mapping::map(fds_[i].get(), sizes_[i], PROT_READ | PROT_WRITE, 0, "test ring");
        BLKFERRY_ASSERT(m.has_value());
        return std::move(*m);
    }
    template <class T>
    [[nodiscard]] T* at(std::size_t i) {
        return static_cast<T*>(static_cast<void*>(ours_[i].data()));
    }

    Fd fds_[5];
    Mapping ours_[5];
    std::size_t sizes_[5] = {};
    std::uint64_t map_bytes_ = 0;
};

}  // namespace blkferry::capture::test
