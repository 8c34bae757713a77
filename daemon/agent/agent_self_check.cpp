// SPDX-License-Identifier: Apache-2.0
// Once a second the disks' own counters of written sectors against what the module captured, and how long it took to do so.
#include "agent/agent.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>

namespace blkferry::agent {

namespace {
constexpr std::uint64_t self_check_ns = 1'000'000'000;
}

void Agent::self_check(std::uint64_t now) {
    if (members_.empty() || !can_self_check_ || now - self_check_ns_ < self_check_ns)
        return;
    self_check_ns_ = now;
    // The disks' counters first: see SelfCheck. A disk that is just being removed has none.
    std::map<std::uint32_t, std::uint64_t> own;
    for (const auto& m : members_)
        if (const auto sectors = read_disk_stat(m->disk.dev))
            own.emplace(m->disk.id, *sectors);
    const auto disks = tracker_->list();
    if (!disks)
        return;  // a module that does not answer is told by the calls that need it
    can_self_check_ = disks->empty() || disks->front().writes.has_value();
    if (const auto module = tracker_->info(); module && can_self_check_)
        frozen_ = module->latency;
    for (const auto& m : members_) {
        const auto info = std::ranges::find(*disks, m->disk.id, &capture::DiskInfo::disk);
        const auto sectors = own.find(m->disk.id);
        if (info == disks->end())
            continue;
        m->latency = info->latency;
        if (!info->writes || sectors == own.end())
            continue;
        const auto missed = m->self_check.feed(sectors->second, *info);
        if (!missed)
            continue;
        m->untracked_bytes += *missed * sector_bytes;
        m->resync->untracked(fmt::format("{} bytes were written to {} that the module did not see; something writes below the block "
                                         "layer's queue, see the manual",
                                         *missed * sector_bytes, m->disk.path));
    }
}

}  // namespace blkferry::agent
