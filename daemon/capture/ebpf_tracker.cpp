// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf_tracker.hpp"

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <unistd.h>

#include <fmt/format.h>

#include "capture/block_device.hpp"

namespace blkferry::capture {

namespace {

constexpr std::uint64_t second_ns = 1'000'000'000;
/// The module's limit for a write that does not end, too.
constexpr std::uint64_t old_requests_ns = 180 * second_ns;
constexpr std::uint64_t map_bytes_max = 512ULL << 20;
constexpr std::uint64_t ram_share = 64;
constexpr std::uint32_t block_shift_min = 3;  // sectors: 4 KiB

std::uint64_t now_ns() noexcept {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * second_ns + static_cast<std::uint64_t>(t.tv_nsec);
}

/// As the module: a bit per 4 KiB, coarser when a half of the map would exceed 512 MiB or 1/64 of the memory.
std::uint32_t shift_of(std::uint64_t sectors) noexcept {
    const std::uint64_t ram = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    const std::uint64_t bits_max = std::min(map_bytes_max, ram / ram_share) * 8;
    std::uint32_t shift = block_shift_min;
    while (((sectors - 1) >> shift) + 1 > bits_max)
        ++shift;
    return shift;
}

std::unexpected<Error> no_disk(std::uint32_t disk) {
    return std::unexpected(Error{Errc::not_found, ENODEV, fmt::format("disk {} is not tracked", disk)});
}

}  // namespace

EbpfTracker::EbpfTracker(std::unique_ptr<BlockProbe> probe)
    : probe_(std::move(probe)), load_id_(Uuid::random()), skipped_(probe_->skipped()) {}

Result<std::unique_ptr<EbpfTracker>> EbpfTracker::open() {
    BLKFERRY_TRY_ASSIGN(auto probe, BlockProbe::load());
    return std::unique_ptr<EbpfTracker>(new EbpfTracker(std::move(probe)));
}

Result<EbpfTracker::Entry*> EbpfTracker::find(std::uint32_t disk) {
    const auto it = disks_.find(disk);
    if (it == disks_.end())
        return no_disk(disk);
    return &it->second;
}

/// The next number. Every disk is looked at after it was drawn, so that a write before it opens the gap at it.
std::uint64_t EbpfTracker::draw() noexcept {
    const std::uint64_t seq = ++seq_;
    look_for_losses();
    const std::uint64_t now = now_ns();
    for (auto& [id, e] : disks_)
        e.disk.observe(seq, now);
    return seq;
}

void EbpfTracker::look_for_losses() noexcept {
    const auto skipped = probe_->skipped();
    if (BlockProbe::may_have_lost(skipped_, skipped))
        for (auto& [id, e] : disks_)
            e.disk.suspect();
    skipped_ = skipped;
}

void EbpfTracker::look_at_device(Entry& e, std::uint64_t now) {
    const auto facts = read_block_facts(e.dev);
    if (!facts || facts->diskseq != e.facts.diskseq) {
        e.disk.stop(BLKFERRY_CTL_GONE);
        return;
    }
    if (facts->sectors != e.facts.sectors)
        MarkerRing::publish(e.disk.ring().ctl().flags, e.disk.info().flags | BLKFERRY_CTL_RESIZED);
    if (!e.disk.drained() && ((facts->counts && facts->writes_inflight == 0) || now - e.attached_ns >= old_requests_ns))
        e.disk.set_drained();
}

void EbpfTracker::observe() {
    const std::uint64_t now = now_ns();
    const bool look = now - looked_ns_ >= second_ns;
    if (look) {
        looked_ns_ = now;
        look_for_losses();
    }
    for (auto& [id, e] : disks_) {
        if (look || !e.disk.drained())
            look_at_device(e, now);
        e.disk.observe(seq_ + 1, now);
    }
}

std::string EbpfTracker::skipped_text() const {
    const auto s = probe_->skipped();
    return fmt::format("issue {}/{}/{}, complete {}/{}/{}", s.issue[0], s.issue[1], s.issue[2], s.complete[0], s.complete[1], s.complete[2]);
}

Result<TrackerInfo> EbpfTracker::info() {
    TrackerInfo i;
    i.abi = BLKFERRY_ABI_VERSION;
    i.version = "ebpf";
    i.load_id = load_id_;
    i.seq = seq_;
    i.void_seq = void_seq_;
    return i;
}

DiskInfo EbpfTracker::info_of(const Entry& e) const {
    DiskInfo i = e.disk.info();
    i.name = e.facts.name;
    return i;
}

Result<std::vector<DiskInfo>> EbpfTracker::list() {
    observe();
    std::vector<DiskInfo> out;
    for (const auto& [id, e] : disks_)
        out.push_back(info_of(e));
    return out;
}

Result<DiskInfo> EbpfTracker::disk_get(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    e->disk.observe(seq_ + 1, now_ns());
    return info_of(*e);
}

Result<std::uint64_t> EbpfTracker::find_device(const std::string& path) { return block_device_number(path); }

Result<DiskInfo> EbpfTracker::attach(const AttachRequest& request) {
    if (std::ranges::any_of(disks_, [&](const auto& d) { return d.second.dev == request.dev; }))
        return std::unexpected(Error{Errc::exists, EEXIST, "the disk is attached already"});
    BLKFERRY_TRY_ASSIGN(const BlockFacts facts, read_block_facts(request.dev));
    const std::uint32_t shift = shift_of(facts.sectors);
    BLKFERRY_TRY_ASSIGN(auto memory, probe_->add(request.dev, facts.sectors, shift, facts.tags));
    auto ring = MarkerRing::make({.disk = memory.slot,
                                  .dev = request.dev,
                                  .sectors = facts.sectors,
                                  .block_shift = shift + BLKFERRY_SECTOR_SHIFT,
                                  .logical_block = facts.logical_block,
                                  .attach_id = Uuid::random()});
    if (!ring) {
        probe_->remove(request.dev, facts.tags);
        return std::unexpected(std::move(ring).error());
    }
    const std::uint32_t id = memory.slot;
    const auto [it, added] = disks_.emplace(id, Entry{EbpfDisk(std::move(*ring), std::move(memory)), facts, request.dev, now_ns()});
    return info_of(it->second);
}

Result<std::uint64_t> EbpfTracker::detach(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    e->disk.stop(0);
    probe_->remove(e->dev, e->facts.tags);
    disks_.erase(disk);
    void_seq_ = seq_;
    return void_seq_;
}

Result<RingMemory> EbpfTracker::open_ring(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    return e->disk.ring().open();
}

Result<std::uint64_t> EbpfTracker::resync_begin(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    if (e->disk.state() == DiskState::stopped)
        return no_disk(disk);
    const auto refuse = [&](int err, std::string_view text) {
        return std::unexpected(Error{Errc::busy, err, fmt::format("disk {}: {}", e->facts.name, text)});
    };
    if (e->disk.state() == DiskState::resync && e->disk.info().snap_blocks != 0)
        return refuse(EBUSY, "the snapshot map is not empty");
    if (!e->disk.ring().room())
        return refuse(ENOSPC, "the ring of markers is full");
    // Behind the snapshot: what is under way now counts for the round after this one.
    const std::uint64_t seq = draw();
    BLKFERRY_TRY(e->disk.begin(seq));
    if (e->disk.busy()) {
        const auto facts = read_block_facts(e->dev);
        (void)probe_->sweep(e->disk.memory(), facts && facts->counts && facts->writes_inflight == 0);
    }
    return seq;
}

Result<void> EbpfTracker::resync_clear(std::uint32_t disk, std::span<const Extent> ranges, std::optional<std::uint64_t> epoch) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    return e->disk.clear(ranges, epoch);
}

Result<std::uint64_t> EbpfTracker::resync_end(std::uint32_t disk) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    look_for_losses();
    BLKFERRY_TRY(e->disk.may_end());
    const std::uint64_t seq = draw();
    e->disk.end(seq);
    return seq;
}

Result<void> EbpfTracker::mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) {
    BLKFERRY_TRY_ASSIGN(Entry * e, find(disk));
    BLKFERRY_TRY(e->disk.mark_dirty(ranges));
    e->disk.observe(seq_ + 1, now_ns());
    return {};
}

Result<std::uint64_t> EbpfTracker::cut(std::span<const std::uint64_t> freeze, std::uint32_t) {
    if (!freeze.empty())
        return fail(Errc::unsupported, "eBPF tracking freezes no file systems");
    const auto it = std::ranges::find_if(disks_, [](auto& d) {
        return (d.second.disk.state() == DiskState::ring || d.second.disk.state() == DiskState::resync) && d.second.disk.ring().room();
    });
    if (it == disks_.end())
        return fail_errno(ENODEV, "no disk is in step with the replica yet");
    const std::uint64_t seq = draw();
    it->second.disk.append_cut(seq);
    return seq;
}

Result<void> EbpfTracker::seq_floor(std::uint64_t seq) {
    if (seq >= 1ULL << 62)
        return fail_errno(EINVAL, fmt::format("the number {} is out of range", seq));
    for (auto& [id, e] : disks_)
        if ((e.disk.state() != DiskState::bitmap && e.disk.state() != DiskState::stopped) || !e.disk.ring().empty())
            return fail_errno(EBUSY, fmt::format("disk {} is in use", e.facts.name));
    seq_ = std::max(seq_, seq);
    void_seq_ = seq_;
    return {};
}

}  // namespace blkferry::capture
