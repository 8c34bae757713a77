// SPDX-License-Identifier: Apache-2.0
#include "machine.hpp"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace blkferry::producer {

namespace {
constexpr std::uint32_t device_major = 240;  // of the range for local use
}

Machine::Machine() = default;

Result<std::uint64_t> Machine::add_device(const std::string& path) {
    auto d = std::make_unique<Device>();
    d->path = path;
    BLKFERRY_TRY_ASSIGN(d->fd, open_file(path, O_RDWR));
    struct stat st{};
    if (::fstat(d->fd.get(), &st) != 0)
        return fail_errno(errno, fmt::format("cannot look at {}", path));
    d->sectors = static_cast<std::uint64_t>(st.st_size) / sector_bytes;
    const std::unique_lock held(admin_);
    const std::uint64_t dev = capture::device_number(device_major, static_cast<std::uint32_t>(devices_.size()));
    devices_.emplace(dev, std::move(d));
    return dev;
}

std::vector<std::uint64_t> Machine::devices() const {
    const std::shared_lock held(admin_);
    std::vector<std::uint64_t> out;
    for (const auto& [dev, d] : devices_)
        out.push_back(dev);
    return out;
}

/// Devices are never removed, so the pointer stays good without the lock.
Result<Machine::Device*> Machine::device(std::uint64_t dev) const {
    const std::shared_lock held(admin_);
    const auto it = devices_.find(dev);
    if (it == devices_.end())
        return refuse(ENODEV, fmt::format("there is no device {}:{}", dev >> 32, dev & 0xffffffffU));
    return it->second.get();
}

Result<std::uint64_t> Machine::sectors(std::uint64_t dev) const {
    BLKFERRY_TRY_ASSIGN(const Device* d, device(dev));
    return d->sectors.load();
}

Result<void> Machine::grow(std::uint64_t dev, std::uint64_t bytes) {
    BLKFERRY_TRY_ASSIGN(Device* d, device(dev));
    if (bytes / sector_bytes < d->sectors)
        return fail(Errc::invalid, fmt::format("{} is larger than that already", d->path));
    if (::ftruncate(d->fd.get(), static_cast<off_t>(bytes)) != 0)
        return fail_errno(errno, fmt::format("cannot resize {}", d->path));
    d->sectors = bytes / sector_bytes;
    std::shared_ptr<Disk> disk;
    {
        const std::shared_lock gate(d->gate);
        disk = d->disk;
    }
    if (disk)
        event(disk->config().id, BLKFERRY_EV_RESIZED, BLKFERRY_BITMAP, 0);
    return {};
}

Result<std::string> Machine::path(std::uint64_t dev) const {
    BLKFERRY_TRY_ASSIGN(const Device* d, device(dev));
    return d->path;
}

Result<Machine::Write> Machine::submit(capture::OpKind op, std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors,
                                       std::span<const std::byte> data, std::uint16_t flags) {
    BLKFERRY_TRY_ASSIGN(Device* d, device(dev));
    if (sectors == 0 || sector >= d->sectors || sectors > d->sectors - sector ||
        (op == capture::OpKind::write && data.size() != sectors * sector_bytes))
        return fail(Errc::invalid, fmt::format("{}: write of sectors {}+{}", d->path, sector, sectors));
    Write w;
    w.op = op;
    w.dev = dev;
    w.sector = sector;
    w.sectors = sectors;
    w.data = data;
    const std::shared_lock gate(d->gate);
    w.disk = d->disk;
    if (w.disk)
        w.inflight = w.disk->submit(op, sector, sectors, data, flags);
    return w;
}

Result<void> Machine::execute(const Write& w) {
    BLKFERRY_TRY_ASSIGN(const Device* d, device(w.dev));
    if (w.op == capture::OpKind::write)
        return write_full_at(d->fd.get(), w.data, w.sector * sector_bytes, d->path);
    if (::fallocate(d->fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(w.sector * sector_bytes),
                    static_cast<off_t>(w.sectors * sector_bytes)) != 0)
        return fail_errno(errno, fmt::format("cannot discard on {}", d->path));
    return {};
}

void Machine::finish(Write& w, End how) {
    if (w.disk)
        w.disk->finish(w.inflight, how);
    const auto d = device(w.dev);
    if (!d)
        return;
    const std::shared_lock gate((*d)->gate);
    if ((*d)->disk && (*d)->disk != w.disk)
        (*d)->disk->unknown(w.sector, w.sectors);  // attached while it was in flight
}

Result<void> Machine::write(capture::OpKind op, std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors,
                            std::span<const std::byte> data) {
    BLKFERRY_TRY_ASSIGN(Write w, submit(op, dev, sector, sectors, data));
    auto done = execute(w);
    finish(w, done ? End::done : End::failed);
    return done;
}

capture::TrackerInfo Machine::info() const {
    capture::TrackerInfo i;
    i.abi = BLKFERRY_ABI_VERSION;
    i.version = "producer " BLKFERRY_VERSION;
    i.load_id = load_id_;
    i.seq = sequence_.last.load();
    i.void_seq = sequence_.void_up_to.load();
    return i;
}

Result<std::uint64_t> Machine::find(const std::string& path) const {
    const std::shared_lock held(admin_);
    for (const auto& [dev, d] : devices_)
        if (d->path == path)
            return dev;
    return refuse(ENOENT, fmt::format("no device of this machine has the path {}", path));
}

void Machine::set_event_sink(EventSink sink) {
    const std::scoped_lock held(sink_lock_);
    sink_ = std::move(sink);
}

void Machine::event(std::uint32_t disk, std::uint32_t kind, std::uint32_t state, std::uint32_t flags) {
    const std::scoped_lock held(sink_lock_);
    if (sink_)
        sink_({.disk = disk, .kind = kind, .state = static_cast<capture::DiskState>(state), .flags = flags,
               .seq = sequence_.last.load(), .lost = false});
}

Result<capture::DiskInfo> Machine::attach(const capture::AttachRequest& request) {
    const std::unique_lock held(admin_);
    const auto it = devices_.find(request.dev);
    if (it == devices_.end())
        return refuse(ENODEV, "cannot open the device");
    Device& device = *it->second;
    std::uint32_t id = 0;
    while (disks_.contains(id))
        ++id;
    if (id >= BLKFERRY_DISKS_MAX)
        return refuse(ENOSPC, "too many disks are attached");
    DiskConfig config;
    config.id = id;
    config.dev = request.dev;
    config.path = device.path;
    config.data_bytes = request.data_bytes.value_or(0);
    config.descs = request.descs.value_or(0);
    config.inline_max = request.inline_max.value_or(0);
    const std::unique_lock gate(device.gate);
    if (device.disk)
        return refuse(EEXIST, "the disk is attached already");
    BLKFERRY_TRY_ASSIGN(const std::shared_ptr<Disk> disk,
                        Disk::make(config, sequence_, [this, id](std::uint32_t e, std::uint32_t state, std::uint32_t flags) {
                            event(id, e, state, flags);
                        }));
    device.disk = disk;
    disks_.emplace(id, disk);
    event(id, BLKFERRY_EV_ATTACHED, BLKFERRY_BITMAP, 0);
    return disk->info();
}

Result<std::uint64_t> Machine::detach(std::uint32_t id) {
    const std::unique_lock held(admin_);
    const auto it = disks_.find(id);
    if (it == disks_.end())
        return refuse(ENODEV, "no such disk");
    const std::shared_ptr<Disk> disk = it->second;
    {
        Device& device = *devices_.at(disk->config().dev);
        const std::unique_lock gate(device.gate);
        device.disk.reset();
    }
    disk->stop();
    disks_.erase(it);
    sequence_.void_up_to = sequence_.last.load();
    return sequence_.void_up_to.load();
}

Result<std::shared_ptr<Disk>> Machine::disk(std::uint32_t id) const {
    const std::shared_lock held(admin_);
    const auto it = disks_.find(id);
    if (it == disks_.end())
        return refuse(ENODEV, "no such disk");
    return it->second;
}

std::vector<std::uint32_t> Machine::disks() const {
    const std::shared_lock held(admin_);
    std::vector<std::uint32_t> out;
    for (const auto& [id, d] : disks_)
        out.push_back(id);
    return out;
}

Result<std::uint64_t> Machine::cut(bool fs) {
    const std::shared_lock held(admin_);
    Result<std::uint64_t> result = refuse(ENODEV, "no disk is in RING or RESYNC");
    for (const auto& [id, d] : disks_) {
        auto seq = d->cut(fs ? BLKFERRY_F_CUT_FS : 0);
        if (seq)
            return seq;
        if (seq.error().sys_errno == ENOSPC)
            result = std::move(seq);
    }
    return result;
}

Result<void> Machine::seq_floor(std::uint64_t seq) {
    if (seq >= 1ULL << 62)
        return refuse(EINVAL, "the number is not below 2^62");
    const std::unique_lock held(admin_);
    for (const auto& [id, d] : disks_)
        if (d->holds_numbers())
            return refuse(EBUSY, "a disk has numbers in its ring");
    if (seq > sequence_.last.load()) {
        sequence_.last = seq;
        sequence_.void_up_to = seq;
    }
    return {};
}

}  // namespace blkferry::producer
