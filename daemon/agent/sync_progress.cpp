// SPDX-License-Identifier: Apache-2.0
#include "agent/sync_progress.hpp"

#include <algorithm>

#include "extent/extent.hpp"

namespace blkferry::agent {

namespace {
/// The last sector is done when the backlog is empty.
SyncProgress::Sum held_back(SyncProgress::Sum sum, bool backlog) {
    if (backlog && sum.done_bytes >= sum.total_bytes)
        sum.done_bytes = sum.total_bytes - std::min<std::uint64_t>(sum.total_bytes, sector_bytes);
    return sum;
}
}  // namespace

bool SyncProgress::restarts(const DiskProgress& d) const {
    const auto it = parts_.find(d.slot);
    if (!d.whole || it == parts_.end())
        return false;
    const Part& p = it->second;
    return !p.whole || p.kind != d.kind || (d.all_marked && !p.all_marked && p.sum.done_bytes > 0);
}

void SyncProgress::feed(std::span<const DiskProgress> disks, std::uint64_t backlog_bytes) {
    const bool any_whole = std::ranges::any_of(disks, [](const DiskProgress& d) { return d.active && d.whole; });
    if ((any_whole && !syncs_) || std::ranges::any_of(disks, [this](const DiskProgress& d) { return restarts(d); })) {
        parts_.clear();
        syncs_ = true;
    }
    std::erase_if(parts_, [&](const auto& part) { return std::ranges::find(disks, part.first, &DiskProgress::slot) == disks.end(); });
    for (const DiskProgress& d : disks)
        feed_disk(d);
    if (std::ranges::none_of(parts_, [](const auto& part) { return part.second.active; })) {
        parts_.clear();
        syncs_ = false;
        for (const DiskProgress& d : disks)
            feed_disk(d);  // a gap of a disk that was not of the phase
    }
    backlog_ = backlog_bytes > 0;
}

void SyncProgress::feed_disk(const DiskProgress& d) {
    auto it = parts_.find(d.slot);
    if (it == parts_.end()) {
        if (!d.active || (syncs_ && !d.whole))
            return;
        it = parts_.try_emplace(d.slot).first;
        it->second.left_bytes = d.left_bytes;
    }
    Part& p = it->second;
    if (syncs_) {
        p.sum.total_bytes = d.size_bytes;
        // What is dirty again after the sync is of no account: it was copied once.
        const std::uint64_t done = d.whole ? d.size_bytes - std::min(d.size_bytes, d.left_bytes) : d.size_bytes;
        p.sum.done_bytes = std::min(std::max(p.sum.done_bytes, done), d.size_bytes);
    } else {
        p.sum.done_bytes += p.left_bytes - std::min(p.left_bytes, d.left_bytes);
        p.sum.total_bytes = p.sum.done_bytes + d.left_bytes;
    }
    p.left_bytes = d.left_bytes;
    p.kind = d.kind;
    // Once the sync of the disk is over, a second one of it is another phase.
    p.whole = d.whole;
    p.all_marked = d.all_marked;
    p.active = d.active;
}

std::optional<SyncProgress::Sum> SyncProgress::sum() const {
    if (parts_.empty())
        return std::nullopt;
    Sum sum;
    bool active = false;
    for (const auto& [slot, part] : parts_) {
        sum.done_bytes += part.sum.done_bytes;
        sum.total_bytes += part.sum.total_bytes;
        active = active || part.active;
    }
    return held_back(sum, backlog_ || active);
}

std::optional<SyncProgress::Sum> SyncProgress::disk(std::uint16_t slot) const {
    const auto it = parts_.find(slot);
    if (it == parts_.end())
        return std::nullopt;
    return held_back(it->second.sum, it->second.active);
}

}  // namespace blkferry::agent
