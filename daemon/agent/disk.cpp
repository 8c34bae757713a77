// SPDX-License-Identifier: Apache-2.0
#include "agent/disk.hpp"

namespace blkferry::agent {

DiskPlan plan_disk(const PlanFacts& f) noexcept {
    if (!f.known)
        return DiskPlan::whole_initial;
    // A sync that was begun goes on only where the server has its epoch: the maps hold what is left of it, and what they do not hold
    // any more may be gone from a server that forgot (its journal or checkpoint was damaged).
    const bool follows = f.same_load && f.server_attach == f.attach && f.in_step && !f.went_back;
    return follows ? DiskPlan::carry_on : DiskPlan::whole_rescan;
}

}  // namespace blkferry::agent
