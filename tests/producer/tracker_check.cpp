// SPDX-License-Identifier: Apache-2.0
// Runs in a guest with the module: attaches a disk over netlink, brings it to RING, writes to it, and compares what was
// captured, folded, encoded and applied with the disk. usage: blkferry-tracker-check DEVICE
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fcntl.h>
#include <memory>
#include <random>
#include <unistd.h>

#include <fmt/format.h>

#include "capture/netlink_tracker.hpp"
#include "mini_agent.hpp"

using namespace blkferry;
using namespace blkferry::producer;

namespace {

constexpr auto deadline = std::chrono::seconds(60);

Result<void> expect(bool ok, std::string_view what) {
    if (ok)
        return {};
    return fail(Errc::conflict, fmt::format("expected: {}", what));
}

Result<void> settle(capture::Tracker& t, MiniAgent& agent) {
    const auto end = std::chrono::steady_clock::now() + deadline;
    for (;;) {
        BLKFERRY_TRY_ASSIGN(const bool shipped, agent.ship());
        BLKFERRY_TRY(agent.resync());
        BLKFERRY_TRY_ASSIGN(const capture::TrackerInfo info, t.info());
        if (!shipped && agent.mark() >= info.seq && agent.consistent())
            return {};
        if (std::chrono::steady_clock::now() > end)
            return fail(Errc::timeout, fmt::format("not consistent after 60 s: mark {}, seq {}", agent.mark(), info.seq));
    }
}

Result<void> compare(const std::string& device, const std::vector<std::byte>& image) {
    std::vector<std::byte> raw(image.size());
    BLKFERRY_TRY_ASSIGN(const Fd fd, open_file(device, O_RDONLY));
    BLKFERRY_TRY(read_full_at(fd.get(), raw, 0, device));
    return expect(raw == image, "replica equals the disk");
}

Result<void> write_some(const std::string& device, std::uint64_t sectors, std::uint64_t seed) {
    BLKFERRY_TRY_ASSIGN(const Fd fd, open_file(device, O_WRONLY | O_DIRECT));
    const std::unique_ptr<void, decltype(&std::free)> memory(std::aligned_alloc(4096, 64U << 10), &std::free);
    auto* bytes = static_cast<std::byte*>(memory.get());
    std::mt19937_64 rng(seed);
    for (int i = 0; i < 500; ++i) {
        const std::size_t n = 512U << (rng() % 8);
        for (std::size_t k = 0; k < n; k += 64)
            bytes[k] = static_cast<std::byte>(rng());
        const std::uint64_t sector = rng() % (sectors - n / sector_bytes);
        BLKFERRY_TRY(write_full_at(fd.get(), {bytes, n}, sector * sector_bytes, device));
    }
    return {};
}

Result<void> refusals(capture::Tracker& t, const capture::DiskInfo& d) {
    capture::AttachRequest again;
    again.dev = d.dev;
    const auto r = t.attach(again);
    BLKFERRY_TRY(expect(!r && r.error().sys_errno == EEXIST, "a second attach is refused with EEXIST"));
    BLKFERRY_TRY(expect(r.error().text.find("attached already") != std::string::npos, "its text comes through"));
    BLKFERRY_TRY(expect(t.disk_get(200).error().sys_errno == ENODEV, "an unknown disk is ENODEV"));
    BLKFERRY_TRY(expect(t.open_ring(d.disk).error().sys_errno == EBUSY, "a second consumer is EBUSY"));
    const Extent beyond{d.sectors, 8};
    return expect(t.mark_dirty(d.disk, {&beyond, 1}).error().sys_errno == EINVAL, "a range beyond the disk is EINVAL");
}

Result<void> run(const std::string& device) {
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<capture::NetlinkTracker> t, capture::NetlinkTracker::open());
    BLKFERRY_TRY(t->subscribe());
    capture::AttachRequest request;
    BLKFERRY_TRY_ASSIGN(request.dev, t->find_device(device));
    request.data_bytes = 4U << 20;
    BLKFERRY_TRY_ASSIGN(capture::DiskInfo d, t->attach(request));
    fmt::print("attached disk={} name={} sectors={} memory={}\n", d.disk, d.name, d.sectors, d.memory);
    d.device_path = device;
    MiniAgent agent(*t);
    BLKFERRY_TRY(agent.add(d));
    BLKFERRY_TRY(refusals(*t, d));
    BLKFERRY_TRY(settle(*t, agent));
    BLKFERRY_TRY(compare(device, agent.image(0)));
    for (std::uint64_t round = 1; round <= 3; ++round) {
        BLKFERRY_TRY(write_some(device, d.sectors, round));
        BLKFERRY_TRY(settle(*t, agent));
        BLKFERRY_TRY(compare(device, agent.image(0)));
    }
    BLKFERRY_TRY_ASSIGN(const std::uint64_t cut, t->cut({}, 0));
    BLKFERRY_TRY(settle(*t, agent));
    BLKFERRY_TRY(expect(agent.mark() >= cut, "the cut is in the ring"));
    BLKFERRY_TRY_ASSIGN(const auto disks, t->list());
    BLKFERRY_TRY(expect(disks.size() == 1 && disks[0].state == capture::DiskState::ring, "one disk in RING"));
    BLKFERRY_TRY_ASSIGN(const auto events, t->read_events());
    BLKFERRY_TRY(expect(!events.empty() && events[0].disk == d.disk, "events came"));
    fmt::print("ops={} batches={} epochs={} events={}\n", agent.counters().ops, agent.counters().batches,
               agent.counters().epochs, events.size());
    BLKFERRY_TRY_ASSIGN(const std::uint64_t void_seq, t->detach(d.disk));
    return expect(void_seq >= cut, "the numbers of a detached disk are void");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        fmt::print(stderr, "usage: blkferry-tracker-check DEVICE\n");
        return 2;
    }
    if (const auto r = run(argv[1]); !r) {
        fmt::print(stderr, "blkferry-tracker-check: {}\n", r.error().text);
        return 1;
    }
    fmt::print("tracker-check: ok\n");
    return 0;
}
