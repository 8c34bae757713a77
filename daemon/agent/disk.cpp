// SPDX-License-Identifier: Apache-2.0
#include "agent/disk.hpp"

namespace blkferry::agent {

DiskPlan plan_disk(const PlanFacts& f) noexcept {
    if (!f.known)
        return DiskPlan::whole_initial;
    if (f.went_back)
        return DiskPlan::whole_rescan;
    if (f.owed == f.attach && !f.owed.is_nil())
        return DiskPlan::carry_on;  // begun before: the snapshot map holds what is left of it
    return f.same_load && f.server_attach == f.attach ? DiskPlan::carry_on : DiskPlan::whole_rescan;
}

}  // namespace blkferry::agent
