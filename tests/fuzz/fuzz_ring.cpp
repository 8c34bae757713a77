// SPDX-License-Identifier: Apache-2.0
// The ring as the agent sees it: control page, descriptors and snapshot map are whatever the input says, and change
// between two looks. No access may leave the mappings, and what comes out must keep the promises of CapturedOp.
#include <algorithm>
#include <array>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.hpp"
#include "base/hash.hpp"
#include "capture/merger.hpp"
#include "fold/encoder.hpp"
#include "fold/folder.hpp"

using namespace blkferry;
using namespace blkferry::capture;

namespace {

constexpr std::size_t page = 4096;
constexpr std::uint32_t descs = 64;
constexpr std::uint64_t data_bytes = 64U << 10;
constexpr std::uint64_t sectors = 4096;

/// One region on a memfd, made once: mapping for each input would be slow. The agent's view ends with the region.
struct Region {
    Fd fd;
    Mapping ours;
    std::size_t bytes = 0;

    explicit Region(std::size_t n) : fd(::memfd_create("fuzz", MFD_CLOEXEC)), bytes(n) {
        BLKFERRY_ASSERT(fd && ::ftruncate(fd.get(), static_cast<off_t>(n)) == 0);
        ours = view();
    }
    [[nodiscard]] Mapping view() const {
        auto m = Mapping::map(fd.get(), bytes, PROT_READ | PROT_WRITE, 0, "fuzz");
        BLKFERRY_ASSERT(m.has_value());
        return std::move(*m);
    }
};

struct Memory {
    Region ctl{page};
    Region cons{page};
    Region desc{descs * sizeof(blkferry_desc)};
    Region data{data_bytes};
    Region snap{page};

    [[nodiscard]] blkferry_ctl& c() const { return *static_cast<blkferry_ctl*>(static_cast<void*>(ctl.ours.data())); }
    [[nodiscard]] blkferry_desc* d() const { return static_cast<blkferry_desc*>(static_cast<void*>(desc.ours.data())); }

    /// A ring that an honest module could show, for the input to spoil.
    void reset() const {
        std::memset(ctl.ours.data(), 0, page);
        std::memset(cons.ours.data(), 0, page);
        std::memset(desc.ours.data(), 0, desc.bytes);
        std::memset(snap.ours.data(), 0, page);
        blkferry_ctl& k = c();
        k.magic = BLKFERRY_CTL_MAGIC;
        k.abi = BLKFERRY_ABI_VERSION;
        k.desc_count = descs;
        k.data_bytes = data_bytes;
        k.nr_sectors = sectors;
        k.block_shift = 12;
        k.logical_block = 512;
        k.map_bytes = sectors / 8 / 8;
        k.state = BLKFERRY_RING;
        k.head = 16;
        for (std::uint32_t i = 0; i < 16; ++i) {
            d()[i].seq = i + 1;
            d()[i].op = BLKFERRY_OP_WRITE;
            d()[i].state = BLKFERRY_D_DONE;
            d()[i].sector = i * 8;
            d()[i].nr_sectors = 8;
            d()[i].data_len = 4096;
            d()[i].data_pos = i * 4096;
        }
    }
    /// One change: u8 region, u16 offset, u8 length, bytes.
    bool poke(ByteReader& r) const {
        const std::array<const Region*, 4> targets = {&ctl, &cons, &desc, &snap};
        const Region& t = *targets[r.get<std::uint8_t>() % targets.size()];
        const std::size_t offset = r.get<std::uint16_t>() % t.bytes;
        const auto bytes = r.bytes(r.get<std::uint8_t>() % 65);
        if (!r.ok())
            return false;
        std::copy_n(bytes.begin(), std::min(bytes.size(), t.bytes - offset), t.ours.data() + offset);
        return true;
    }
};

void check(const CapturedOp& op, const Region& data, const std::byte* base) {
    if (is_marker(op.op)) {
        BLKFERRY_ASSERT(op.nr_sectors == 0 && !op.has_payload());
        return;
    }
    BLKFERRY_ASSERT(op.nr_sectors > 0 && op.sector < sectors && op.nr_sectors <= sectors - op.sector);
    if (op.has_payload()) {
        BLKFERRY_ASSERT(op.op == OpKind::write && op.state == OpState::done);
        BLKFERRY_ASSERT(op.data >= base && op.payload().size() <= data.bytes);
        BLKFERRY_ASSERT(static_cast<std::size_t>(op.data - base) + op.payload().size() <= data.bytes);
    }
}

void walk_snapshot(const Ring& ring) {
    Extent run;
    std::uint64_t at = 0;
    for (SnapshotCursor c(ring); c.next(run, 64);) {
        BLKFERRY_ASSERT(run.count > 0 && run.sector >= at && run.end() <= ring.geometry().nr_sectors);
        at = run.end();
    }
    (void)ring.snapshot_summary();
}

void encode(fold::Folder& folder) {
    fold::BatchParts parts;
    parts.batch = 1;
    auto plan = fold::BatchPlan::make(folder.finish(), parts);
    BLKFERRY_ASSERT(plan.has_value());
    fold::FrameBuffer scratch;
    fold::FrameBuffer out;
    for (std::size_t i = 0; i < plan->jobs(); ++i)
        (void)plan->encode(i, nullptr, scratch, out);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* input, std::size_t size) {
    static const Memory memory;
    memory.reset();
    ByteReader r(std::as_bytes(std::span(input, size)));
    for (auto n = r.get<std::uint8_t>() % 8; n > 0 && memory.poke(r); --n) {
    }
    RingMemory view;
    view.ctl = memory.ctl.view();
    view.cons = memory.cons.view();
    view.desc = memory.desc.view();
    view.data = memory.data.view();
    view.snap = memory.snap.view();
    const std::byte* base = view.data.data();
    auto ring = Ring::open(std::move(view));
    if (!ring)
        return 0;
    BLKFERRY_ASSERT(ring->geometry().nr_sectors <= sectors * 64);
    const bool honest_size = ring->geometry().nr_sectors == sectors;
    walk_snapshot(*ring);
    Merger merger;
    merger.add(*ring, 3);
    fold::Folder folder;
    CapturedOp op;
    std::uint64_t last = 0;
    for (int steps = 0; steps < 200; ++steps) {
        const auto status = merger.next(op);
        if (status == Merger::Status::op) {
            BLKFERRY_ASSERT(op.seq > last && op.slot == 3);
            last = op.seq;
            if (honest_size)
                check(op, memory.data, base);
            folder.add(op);
            continue;
        }
        if (status == Merger::Status::bad) {
            BLKFERRY_ASSERT(!merger.error().text.empty());
            break;
        }
        if (status == Merger::Status::hole)
            merger.fence(r.get<std::uint64_t>() % 64);
        (void)merger.arm();
        merger.ack(merger.positions());
        if (!memory.poke(r))
            break;
    }
    walk_snapshot(*ring);
    encode(folder);
    return 0;
}
