// SPDX-License-Identifier: Apache-2.0
#include "capture/marker_ring.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "capture/dirty_words.hpp"

namespace blkferry::capture {

namespace {

constexpr std::uint32_t descs = BLKFERRY_DESCS_MIN;
constexpr std::size_t page_bytes = 4096;

std::uint64_t realtime_ns() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(t.tv_nsec);
}

std::uint64_t blocks_of(const MarkerRing::Geometry& g) noexcept {
    const std::uint32_t shift = g.block_shift - BLKFERRY_SECTOR_SHIFT;
    return ((g.sectors - 1) >> shift) + 1;
}

}  // namespace

Result<MarkerRing> MarkerRing::make(const Geometry& g) {
    MarkerRing ring;
    // The data ring is there because the contract wants one; it is never touched and costs no memory.
    const std::array<std::size_t, 5> bytes = {page_bytes, page_bytes, descs * sizeof(blkferry_desc), BLKFERRY_DATA_BYTES_MIN,
                                              static_cast<std::size_t>(fine_words(blocks_of(g)) * 8)};
    for (std::size_t i = 0; i < ring.regions_.size(); ++i) {
        Region& r = ring.regions_[i];
        r.fd = Fd(::memfd_create("blkferry-markers", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        if (!r.fd || ::ftruncate(r.fd.get(), static_cast<off_t>(bytes[i])) != 0 ||
            ::fcntl(r.fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
            return fail_errno(errno, "cannot make memory for a dirty map");
        BLKFERRY_TRY_ASSIGN(r.map, Mapping::map(r.fd.get(), bytes[i], PROT_READ | PROT_WRITE, 0, "dirty map"));
    }
    ring.wake_ = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!ring.wake_)
        return fail_errno(errno, "cannot make an eventfd");
    blkferry_ctl& c = ring.ctl();
    c.magic = BLKFERRY_CTL_MAGIC;
    c.abi = BLKFERRY_ABI_VERSION;
    c.disk = g.disk;
    c.desc_count = descs;
    c.data_bytes = BLKFERRY_DATA_BYTES_MIN;
    c.nr_sectors = g.sectors;
    c.dev_major = static_cast<std::uint32_t>(g.dev >> 32);
    c.dev_minor = static_cast<std::uint32_t>(g.dev);
    c.block_shift = g.block_shift;
    c.logical_block = g.logical_block;
    c.map_bytes = fine_words(blocks_of(g)) * 8;
    std::ranges::copy(g.attach_id.bytes, c.attach_id);
    return ring;
}

blkferry_ctl& MarkerRing::ctl() const noexcept {
    return *static_cast<blkferry_ctl*>(static_cast<void*>(regions_[BLKFERRY_REGION_CTL].map.data()));
}

std::span<std::uint64_t> MarkerRing::snap() const noexcept {
    const Mapping& m = regions_[BLKFERRY_REGION_SNAP].map;
    return {static_cast<std::uint64_t*>(static_cast<void*>(m.data())), m.size() / 8};
}

std::uint64_t MarkerRing::memory() const noexcept {
    return 2 * page_bytes + descs * sizeof(blkferry_desc) + regions_[BLKFERRY_REGION_SNAP].map.size();
}

bool MarkerRing::room() noexcept {
    const auto* cons = static_cast<const blkferry_cons*>(static_cast<const void*>(regions_[BLKFERRY_REGION_CONS].map.data()));
    const std::uint64_t tail = __atomic_load_n(&cons->tail, __ATOMIC_ACQUIRE);
    if (tail - tail_ > head_ - tail_)
        return false;
    tail_ = tail;
    publish(ctl().kernel_tail, tail_);
    return head_ - tail_ < descs;
}

bool MarkerRing::empty() noexcept {
    (void)room();
    return head_ == tail_;
}

void MarkerRing::append(blkferry_op op, std::uint64_t seq) noexcept {
    BLKFERRY_ASSERT(head_ - tail_ < descs);
    auto* all = static_cast<blkferry_desc*>(static_cast<void*>(regions_[BLKFERRY_REGION_DESC].map.data()));
    blkferry_desc& d = all[head_ & (descs - 1)];
    d = {};
    d.seq = seq;
    d.time_ns = realtime_ns();
    d.op = static_cast<__u16>(op);
    publish(d.state, BLKFERRY_D_DONE);
    publish(ctl().head, ++head_);
    wake();
}

void MarkerRing::wake() noexcept {
    const std::uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof(one));
}

Result<RingMemory> MarkerRing::open() const {
    RingMemory m;
    m.poll = Fd(::fcntl(wake_.get(), F_DUPFD_CLOEXEC, 0));
    if (!m.poll)
        return fail_errno(errno, "cannot open a dirty map");
    m.drain_poll = true;
    const auto map = [&](blkferry_region which, int prot) {
        const Region& r = regions_[which];
        return Mapping::map(r.fd.get(), r.map.size(), prot, 0, "dirty map");
    };
    BLKFERRY_TRY_ASSIGN(m.ctl, map(BLKFERRY_REGION_CTL, PROT_READ));
    BLKFERRY_TRY_ASSIGN(m.cons, map(BLKFERRY_REGION_CONS, PROT_READ | PROT_WRITE));
    BLKFERRY_TRY_ASSIGN(m.desc, map(BLKFERRY_REGION_DESC, PROT_READ));
    BLKFERRY_TRY_ASSIGN(m.data, map(BLKFERRY_REGION_DATA, PROT_READ));
    BLKFERRY_TRY_ASSIGN(m.snap, map(BLKFERRY_REGION_SNAP, PROT_READ));
    return m;
}

}  // namespace blkferry::capture
