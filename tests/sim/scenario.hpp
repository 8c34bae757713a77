// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "mutation.hpp"

namespace blkferry::sim {


struct Outcome {
    std::string problem;             ///< empty: the seed passed
    std::uint64_t digest = 0;        ///< of the trace
    std::uint64_t virtual_ns = 0;
    std::uint64_t writes = 0;
    std::uint64_t points = 0;
    std::uint64_t agent_crashes = 0;
    std::uint64_t server_crashes = 0;
};

/// Runs one seed from an empty store to the last check.
[[nodiscard]] Outcome run_seed(std::uint64_t seed, bool trace, Mutation mutation);

}  // namespace blkferry::sim
