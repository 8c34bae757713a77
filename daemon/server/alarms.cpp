// SPDX-License-Identifier: Apache-2.0
#include "server/alarms.hpp"

#include <fmt/format.h>

namespace blkferry::server {

std::vector<Alarm> alarms_of(store::SourceStore& store) {
    std::vector<Alarm> out;
    if (store.damage())
        out.push_back({"journal-damaged", {}, store.damage()->text,
                       "what follows is dropped (damaged files are kept), all disks are compared with the source again"});
    if (store.checkpoint_damage())
        out.push_back({"checkpoint-damaged", {}, store.checkpoint_damage()->text,
                       "a new one was made from the journal and the recovery points (a damaged file is kept as "
                       "checkpoint.json.damaged), all disks are compared with the source again"});
    for (const auto& d : store.points().damaged())
        out.push_back({"point-damaged", d.name, d.error.text,
                       fmt::format("what it may need of staging is kept; put a good copy of its file back and restart the "
                                   "server, or give it up by: blkferry delete {}/{}",
                                   store.name(), d.name)});
    if (const auto& log = store.points().log_damage())
        out.push_back({"removed-log-damaged", {}, log->text,
                       "the rest of it is used; a copy of the damaged file is kept as removed.log.damaged-<n>"});
    if (const auto& chain = store.chain_damage())
        out.push_back({"points-missing", {}, chain->text,
                       "somebody changed the folder of recovery points, or lost files of it: compare it with a backup"});
    return out;
}

}  // namespace blkferry::server
