// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "store/source_store.hpp"

namespace blkferry::server {

/// Something is wrong with what is stored of a source, and an administrator has to look. The source goes on.
struct Alarm {
    std::string reason;  ///< a word, for programs
    std::string point;   ///< the recovery point, if it is about one
    std::string error;
    std::string action;  ///< what was done, and what to do
};

/// As of now; any thread.
[[nodiscard]] std::vector<Alarm> alarms_of(store::SourceStore& store);

}  // namespace blkferry::server
