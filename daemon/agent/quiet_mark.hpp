// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "agent/freezer.hpp"
#include "agent/points.hpp"

namespace blkferry::agent {

/// A mark that was asked for where writes are only marked. It needs an instant at which the replica equals all disks:
///
///     copying: a round of every disk ──→ freezing (file systems, if asked for) ──→ settling: rounds, until every disk is in RING
///                                                                                     │ and unwritten: cut, thaw
///                                                                                     └ in time, or the mark fails
///
/// The first round is there so that little is left to read while file systems are frozen. agent_quiet_mark.cpp moves it on.
struct QuietMark {
    enum class Step : std::uint8_t { copying, freezing, settling };
    Step step = Step::copying;
    Points::Request request;
    Points::Done done;
    std::vector<std::uint64_t> freeze;                ///< devices; empty: none
    std::map<std::uint16_t, std::uint64_t> rounds;    ///< by slot, that had ended when it began
    std::uint64_t until_ns = 0;                       ///< monotonic
    std::unique_ptr<Freezer> freezer;

    static constexpr std::uint64_t copying_ns_max = 110'000'000'000;
    static constexpr std::uint64_t settling_ns_max = 30'000'000'000;  ///< without frozen file systems
};

}  // namespace blkferry::agent
