// SPDX-License-Identifier: Apache-2.0
#include "store/disk_table.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace blkferry::store {

Result<void> DiskTable::check_session(const Session& s) const {
    if (!disks_.empty() && s.source_id != source_id)
        return fail(Errc::denied, fmt::format("this replica belongs to machine {}, machine {} is refused (remove the replica "
                                              "or give the machine a name of its own)",
                                              source_id.str(), s.source_id.str()));
    for (const proto::DiskInfo& info : s.disks)
        for (const auto& [slot, disk] : disks_) {
            if (slot == info.slot && disk.info.disk_id != info.disk_id)
                return fail(Errc::conflict, fmt::format("disk slot {} holds disk {}, disk {} is refused there", slot,
                                                        disk.info.disk_id.str(), info.disk_id.str()));
            if (slot != info.slot && disk.info.disk_id == info.disk_id)
                return fail(Errc::conflict, fmt::format("disk {} is in slot {}, slot {} is refused", info.disk_id.str(),
                                                        slot, info.slot));
        }
    return {};
}

Result<void> DiskTable::begin_session(const Session& s) {
    BLKFERRY_TRY(check_session(s));
    const bool module_changed = s.load_id != load_id;
    const auto untrack = [](Disk& disk) {
        disk.synced = false;
        disk.covering = false;
        disk.epoch.reset();
        disk.last.reset();
    };
    for (auto& [slot, disk] : disks_) {
        const bool announced = std::ranges::any_of(s.disks, [&](const auto& info) { return info.slot == slot; });
        if (!announced || module_changed)
            untrack(disk);  // operations may have passed that no batch holds
        disk.present = announced;
    }
    for (const proto::DiskInfo& info : s.disks) {
        Disk& disk = disks_[info.slot];
        if (disk.info.attach_id != info.attach_id)
            untrack(disk);
        disk.info = info;
    }
    session = s.session;
    source_id = s.source_id;
    load_id = s.load_id;
    return {};
}

const Disk* DiskTable::find(std::uint16_t slot) const noexcept {
    const auto it = disks_.find(slot);
    return it == disks_.end() || !it->second.present ? nullptr : &it->second;
}

Disk* DiskTable::find(std::uint16_t slot) noexcept {
    return const_cast<Disk*>(std::as_const(*this).find(slot));
}

bool DiskTable::settled() const noexcept {
    std::size_t present = 0;
    for (const auto& [slot, disk] : disks_) {
        if (!disk.present)
            continue;
        if (disk.epoch || !disk.synced)
            return false;
        ++present;
    }
    return present > 0;
}

void DiskTable::begin_epoch(Disk& disk, const proto::EpochBegin& begin, Position position) {
    disk.epoch = Epoch{begin, position};
    disk.last.reset();
    disk.known = true;
    if (begin.kind != proto::EpochKind::gap)
        disk.covering = true;
}

void DiskTable::end_epoch(Disk& disk, EpochOutcome outcome) {
    if (outcome.known) {
        if (!outcome.ok)
            disk.synced = false;
        else if (disk.covering)
            disk.synced = true;
        disk.covering = false;
    }
    disk.epoch.reset();
    disk.last = std::move(outcome);
}

}  // namespace blkferry::store
