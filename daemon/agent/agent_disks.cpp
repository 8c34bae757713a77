// SPDX-License-Identifier: Apache-2.0
// Which protected disk is which device, attaching and detaching.
#include "agent/agent.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include <fmt/format.h>
#include <poll.h>

#include "agent/verify.hpp"

namespace blkferry::agent {

namespace {
constexpr std::uint64_t attach_retry_ns = 5'000'000'000;
constexpr std::uint64_t ring_bytes_min = std::uint64_t{1} << 20;
}

/// With a producer, a disk is the file that it calls its disk; its path is its identity.
std::vector<BlockDevice> Agent::devices() const {
    if (options_.tracker_socket.empty())
        return list_devices();
    std::vector<BlockDevice> out;
    for (const ProtectedDisk& d : registry_->disks()) {
        auto found = device(d.identity.name);
        if (found)
            out.push_back(std::move(*found));
    }
    return out;
}

Result<BlockDevice> Agent::device(const std::string& path) const {
    if (options_.tracker_socket.empty())
        return device_of(path);
    BlockDevice d;
    BLKFERRY_TRY_ASSIGN(d.dev, tracker_->find_device(path));
    d.path = path;
    d.identity.name = path;
    d.identity.mapper = "file:" + path;
    std::error_code ec;
    const std::uintmax_t bytes = std::filesystem::file_size(path, ec);
    d.identity.sectors = ec ? 0 : bytes / sector_bytes;
    return d;
}

Agent::Member* Agent::member(std::uint16_t slot) noexcept {
    const auto it = std::ranges::find(members_, slot, [](const auto& m) { return m->disk.slot(); });
    return it == members_.end() ? nullptr : it->get();
}

ResyncParts Agent::resync_parts() {
    return {loop_,       *tracker_, *registry_,
            shipper_,    read_pool_, hashes_,
            resync_options_,
            [this](bool warning, const std::string& line) { warning ? log_.warn("{}", line) : log_.info("{}", line); },
            [this] { work_soon(); }};
}

void Agent::attach_all() {
    attach_retry_ns_ = loop::Loop::now_ns() + attach_retry_ns;
    const std::vector<BlockDevice> found = devices();
    const std::vector<ProtectedDisk> records = registry_->disks();
    std::vector<Missing> missing;
    bool added = false;
    for (const ProtectedDisk& record : records) {
        if (record.held || member(record.slot) != nullptr)
            continue;
        auto r = attach(record, found);
        if (r) {
            added = true;
            continue;
        }
        const auto before = std::ranges::find(missing_, record.slot, [](const Missing& m) { return m.record.slot; });
        if (before == missing_.end() || before->why != r.error().text)
            log_.error("disk={} event=attach error={}", record.identity.name, service::quote(r.error().text));
        missing.push_back({record, std::move(r).error().text});
    }
    missing_ = std::move(missing);
    shipper_.set_incomplete(!missing_.empty());
    if (members_.empty())
        return;
    if (session_->phase() == Session::Phase::idle)
        session_->start();
    else if (added)
        session_->restart("the set of protected disks changed");
}

Result<void> Agent::attach(const ProtectedDisk& record, const std::vector<BlockDevice>& found) {
    BLKFERRY_TRY_ASSIGN(const std::size_t which, find_device(record.identity, found));
    const BlockDevice& d = found[which];
    auto m = std::make_unique<Member>();
    m->disk.record = record;
    m->disk.record.identity = d.identity;
    BLKFERRY_TRY_ASSIGN(auto info, attach_device(d.dev, d.path, d.identity.sectors));
    BLKFERRY_TRY_ASSIGN(auto ring, open_ring(info, d.path));
    m->memory_bytes = info.memory;
    m->disk.id = info.disk;
    m->disk.dev = d.dev;
    m->disk.name = info.name.empty() ? d.identity.name : info.name;
    m->disk.path = info.device_path.empty() ? d.path : info.device_path;
    m->disk.ring = std::make_shared<capture::Ring>(std::move(ring));
    BLKFERRY_TRY_ASSIGN(auto reader, DiskReader::open(loop_, m->disk.path));
    m->disk.reader.emplace(std::move(reader));
    BLKFERRY_TRY(registry_->update(m->disk.record));
    m->resync = std::make_unique<Resync>(resync_parts(), m->disk);
    m->wake = loop_.watch(m->disk.ring->poll_fd(), POLLIN,
                          [this, ring_ptr = m->disk.ring.get(), member_ptr = m.get()](std::uint32_t events) {
                              ring_ptr->clear_wake();
                              if ((events & (POLLHUP | POLLERR | POLLNVAL)) != 0 && (events & POLLIN) == 0)
                                  member_ptr->wake.set_events(0);  // detached or gone: the status page says so
                              work_soon();
                          });
    shipper_.add_ring(record.slot, m->disk.ring);
    log_.info("disk={} event=attached slot={} device={} state={} size_bytes={} memory_bytes={} identity={}", m->disk.name,
              record.slot, m->disk.path, capture::to_string(m->disk.ring->status().state),
              m->disk.geometry().nr_sectors * sector_bytes, m->memory_bytes, service::quote(d.identity.str()));
    members_.push_back(std::move(m));
    std::ranges::sort(members_, {}, [](const auto& x) { return x->disk.slot(); });
    return {};
}

/// The module keeps a disk attached while no agent runs: then this finds it, if it has that size (0: whatever it has).
Result<capture::DiskInfo> Agent::attach_device(std::uint64_t dev, const std::string& path, std::uint64_t sectors) {
    BLKFERRY_TRY_ASSIGN(const auto attached, tracker_->list());
    const auto it = std::ranges::find(attached, dev, &capture::DiskInfo::dev);
    if (it != attached.end() && (sectors == 0 || it->sectors == sectors))
        return *it;
    if (it != attached.end()) {  // it was resized while no agent ran
        log_.warn("disk={} event=resized size_bytes={} before={}", it->name, sectors * sector_bytes, it->sectors * sector_bytes);
        BLKFERRY_TRY(tracker_->detach(it->disk));
    }
    capture::AttachRequest request;
    request.dev = dev;
    request.path = path;
    for (std::uint64_t bytes = config_.ring_bytes;; bytes /= 2) {
        request.data_bytes = bytes;
        auto info = tracker_->attach(request);
        // The module takes at most a sixteenth of the memory for one ring. A smaller ring protects as well, it only
        // falls back to the dirty map earlier.
        if (info || info.error().sys_errno != ENOMEM || bytes / 2 < ring_bytes_min)
            return info;
        log_.warn("device={}:{} event=ring_reduced bytes={} error={}", dev >> 32, dev & 0xffffffffU, bytes / 2,
                  service::quote(info.error().text));
    }
}

/// A ring that breaks the contract is of no use: the disk is attached anew, which marks all of it.
Result<capture::Ring> Agent::open_ring(capture::DiskInfo& info, const std::string& path) {
    BLKFERRY_TRY_ASSIGN(auto memory, tracker_->open_ring(info.disk));
    auto ring = capture::Ring::open(std::move(memory));
    if (ring)
        return ring;
    log_.error("disk={} event=bad_ring error={}", info.name, service::quote(ring.error().text));
    BLKFERRY_TRY(tracker_->detach(info.disk));
    BLKFERRY_TRY_ASSIGN(info, attach_device(info.dev, path, 0));
    BLKFERRY_TRY_ASSIGN(memory, tracker_->open_ring(info.disk));
    return capture::Ring::open(std::move(memory));
}

void Agent::detach(std::uint16_t slot, bool from_module) {
    const auto it = std::ranges::find(members_, slot, [](const auto& m) { return m->disk.slot(); });
    if (it == members_.end())
        return;
    std::unique_ptr<Member> m = std::move(*it);
    if (verify_)
        verify_->session_ended();  // it reads this disk
    members_.erase(it);
    shipper_.stop();  // no batch under way may speak of the disk
    shipper_.remove_ring(slot);
    m->wake.reset();
    m->resync->session_ended();
    if (m->disk.reader)
        m->disk.reader->cancel();
    if (from_module)
        if (auto r = tracker_->detach(m->disk.id); !r)
            log_.warn("disk={} event=detach error={}", m->disk.name, service::quote(r.error().text));
    log_.info("disk={} event=detached slot={}", m->disk.name, slot);
}

Result<void> Agent::reattach_all() {
    while (!members_.empty())
        detach(members_.front()->disk.slot(), true);
    const std::vector<BlockDevice> found = devices();
    for (const ProtectedDisk& record : std::vector<ProtectedDisk>(registry_->disks()))
        if (!record.held)
            BLKFERRY_TRY(attach(record, found));
    return {};
}

void Agent::tracker_events() {
    const auto events = tracker_->read_events();
    if (!events) {
        if (events.error().code == Errc::closed) {
            events_.reset();
            log_.error("source={} event=tracker_closed error={}", config_.source, service::quote(events.error().text));
            failed_ = true;
            loop_.stop();
        }
        return;
    }
    for (const auto& e : *events) {
        const auto it = std::ranges::find(members_, e.disk, [](const auto& m) { return m->disk.id; });
        if (it == members_.end())
            continue;
        if (e.kind == BLKFERRY_EV_GONE)
            log_.warn("disk={} event=gone", (*it)->disk.name);
        if (e.kind == BLKFERRY_EV_RESIZED)
            resized((*it)->disk.slot());
    }
    work_soon();
}

/// What lies beyond the size at attach is not captured: the disk is attached anew, with its size of now, and compared.
void Agent::resized(std::uint16_t slot) {
    const Disk& disk = member(slot)->disk;
    ProtectedDisk record = disk.record;
    const auto found = device(disk.path);
    if (!found) {
        log_.error("disk={} event=resized error={}", disk.name, service::quote(found.error().text));
        return;
    }
    log_.warn("disk={} event=resized size_bytes={} before={}", disk.name, found->identity.sectors * sector_bytes,
              disk.geometry().nr_sectors * sector_bytes);
    if (found->identity.sectors == disk.geometry().nr_sectors)
        return;
    record.identity.sectors = found->identity.sectors;
    if (auto r = registry_->update(record); !r)
        log_.error("disk={} event=resized error={}", disk.name, service::quote(r.error().text));
    detach(slot, true);
    attach_all();
    session_->restart("a disk has another size now");
}

}  // namespace blkferry::agent
