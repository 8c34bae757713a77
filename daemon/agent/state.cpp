// SPDX-License-Identifier: Apache-2.0
#include "agent/state.hpp"

#include <fmt/format.h>

namespace blkferry::agent {

namespace {

using enum SourceState;

template <class... S>
constexpr StateSet set(S... s) noexcept {
    return static_cast<StateSet>((0U | ... | bit(s)));
}

/// Every state of a running source can be left for these at any moment.
constexpr StateSet always = set(stopped, paused, stalled, disconnected, rescan, initial_sync);
/// Where a source goes when nothing holds it any more: the first of them that its facts allow.
constexpr StateSet resumed = set(initial_sync, rescan, flushing_backlog, creating_snapshot, continuous, backlog);

constexpr std::array<StateRow, source_states> table{{
    {stopped, "STOPPED", "Stopped", "No disk is protected; nothing is captured.",
     set(initiating, paused, stalled, disconnected) | resumed},
    {initiating, "INITIATING", "Initiating",
     "Disks are attached and captured; the first session with the server is being set up.",
     set(stopped, paused, stalled, disconnected) | resumed},
    {initial_sync, "INITIAL_SYNC", "Initial sync",
     "At least one disk is being read as a whole; writes are captured and shipped at the same time.",
     static_cast<StateSet>((always & ~bit(initial_sync)) | set(flushing_backlog, creating_snapshot, continuous, backlog))},
    {flushing_backlog, "FLUSHING_BACKLOG", "Finalizing initial sync - flushing backlog",
     "Every disk was read; gaps are closed on all disks and what was captured meanwhile becomes durable up to a mark.",
     always | set(creating_snapshot, continuous, backlog)},
    {creating_snapshot, "CREATING_SNAPSHOT", "Finalizing initial sync - creating first launchable snapshot",
     "The backlog was flushed up to a consistent mark; the server makes the first recovery point.",
     always | set(flushing_backlog, continuous, backlog)},
    {continuous, "CONTINUOUS", "Continuous replication",
     "Every write is in the ring and follows within the lag; each batch ends at a consistent mark.",
     always | set(backlog, flushing_backlog, creating_snapshot)},
    {backlog, "BACKLOG", "Backlog - closing a gap",
     "A gap is open: writes went to a dirty map and are re-read; the last recovery point before the gap stays the newest.",
     always | set(continuous, flushing_backlog, creating_snapshot)},
    {rescan, "RESCAN", "Rescan",
     "Tracking was interrupted; disks are compared with the replica by hash and only what differs is shipped.",
     static_cast<StateSet>((always & ~bit(rescan)) | set(flushing_backlog, creating_snapshot, continuous, backlog))},
    {paused, "PAUSED", "Paused", "The operator paused shipping; writes are still captured.",
     set(stopped, initiating, disconnected, stalled) | resumed},
    {stalled, "STALLED", "Stalled", "Something to ship does not move; the cause is named beside the state.",
     set(stopped, paused, disconnected) | resumed},
    {disconnected, "DISCONNECTED", "Disconnected",
     "There is no session with the server; writes are captured and the agent tries again.",
     set(stopped, paused, stalled, initiating) | resumed},
}};

constexpr bool in_order() {
    for (std::size_t i = 0; i < table.size(); ++i)
        if (static_cast<std::size_t>(table[i].state) != i || (table[i].next & bit(table[i].state)) != 0)
            return false;
    return true;
}
static_assert(in_order(), "rows follow the enumeration and no state follows itself");

}  // namespace

std::span<const StateRow, source_states> state_table() noexcept {
    return table;
}

const StateRow& row(SourceState s) noexcept {
    return table[static_cast<std::size_t>(s)];
}

std::string_view to_string(SourceState s) noexcept {
    return row(s).name;
}

bool may_follow(SourceState from, SourceState to) noexcept {
    return (row(from).next & bit(to)) != 0;
}

std::optional<SourceState> parse_state(std::string_view name) noexcept {
    for (const StateRow& r : table)
        if (r.name == name)
            return r.state;
    return std::nullopt;
}

std::string states_markdown() {
    std::string out =
        "# States of a source\n\n"
        "Generated from `daemon/agent/state.cpp` by `blkferry-states`; do not edit.\n\n"
        "| state | shown as | meaning | may be followed by |\n| --- | --- | --- | --- |\n";
    for (const StateRow& r : table) {
        std::string next;
        for (const StateRow& n : table)
            if (may_follow(r.state, n.state))
                next += fmt::format("{}{}", next.empty() ? "" : ", ", n.name);
        out += fmt::format("| `{}` | {} | {} | {} |\n", r.name, r.console, r.meaning, next);
    }
    out += "\nThe state is derived from facts at each moment (no disk protected, paused, no session, nothing moves, a disk in\n"
           "initial sync, a disk in rescan, no recovery point yet, a gap), the first that holds decides. `STALLED` and\n"
           "`DISCONNECTED` always come with a cause.\n";
    return out;
}

SourceState derive_state(const StateFacts& f) noexcept {
    if (f.disks == 0)
        return stopped;
    if (f.paused)
        return paused;
    if (!f.session)
        return f.connected_once ? disconnected : initiating;
    if (f.stalled)
        return stalled;
    if (f.initial)
        return initial_sync;
    if (f.rescan)
        return rescan;
    if (!f.first_point)
        return f.gap || !f.flushed ? flushing_backlog : creating_snapshot;
    return f.gap ? backlog : continuous;
}

}  // namespace blkferry::agent
