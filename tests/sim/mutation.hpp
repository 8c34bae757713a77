// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace blkferry::sim {

/// A lie of the simulation itself, to see that the oracle notices.
enum class Mutation : std::uint8_t {
    none,
    lose_sync,      ///< a sync of the journal says that it is done and did nothing
    wrong_payload,  ///< now and then the ring gets another byte than the disk
};

}  // namespace blkferry::sim
