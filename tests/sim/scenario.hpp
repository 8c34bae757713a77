// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "mutation.hpp"

namespace blkferry::sim {

/// What is done to a seed beside its own faults.
struct Plan {
    Mutation mutation = Mutation::none;
    std::uint64_t die_at = 0;  ///< the server dies at this operation of its store, and the seed has no other fault; 0: not so
};

struct Outcome {
    std::string problem;             ///< empty: the seed passed
    std::uint64_t digest = 0;        ///< of the trace
    std::uint64_t virtual_ns = 0;
    std::uint64_t writes = 0;
    std::uint64_t points = 0;
    std::uint64_t agent_crashes = 0;
    std::uint64_t server_crashes = 0;
    std::uint64_t reboots = 0;       ///< of the source
    std::uint64_t rots = 0;          ///< bits turned over in the store
    std::uint64_t freezes = 0;       ///< cuts with frozen file systems
    std::uint64_t deletions = 0;     ///< of points, confirmed
    std::uint64_t store_errors = 0;  ///< operations of the store that failed
    std::uint64_t operations = 0;    ///< of the store
    void add(const Outcome& o);
};

/// Runs one seed from an empty store to the last check.
[[nodiscard]] Outcome run_seed(std::uint64_t seed, bool trace, const Plan& plan);

}  // namespace blkferry::sim
