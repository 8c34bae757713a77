// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

/// The states of a source: one table, from which docs/states.md is generated and which the console texts come from.
namespace blkferry::agent {

enum class SourceState : std::uint8_t {
    stopped,
    initiating,
    initial_sync,
    flushing_backlog,
    creating_snapshot,
    continuous,
    backlog,
    rescan,
    paused,
    stalled,
    disconnected,
};
inline constexpr std::size_t source_states = 11;

/// A set of states, one bit for each.
using StateSet = std::uint16_t;
[[nodiscard]] constexpr StateSet bit(SourceState s) noexcept {
    return static_cast<StateSet>(1U << static_cast<unsigned>(s));
}

struct StateRow {
    SourceState state;
    std::string_view name;     ///< as in JSON and docs
    std::string_view console;  ///< as shown to people
    std::string_view meaning;
    StateSet next;             ///< states that may follow directly
};

/// All rows, in the order of the enumeration.
[[nodiscard]] std::span<const StateRow, source_states> state_table() noexcept;
[[nodiscard]] const StateRow& row(SourceState s) noexcept;
[[nodiscard]] std::string_view to_string(SourceState s) noexcept;
[[nodiscard]] bool may_follow(SourceState from, SourceState to) noexcept;
[[nodiscard]] std::optional<SourceState> parse_state(std::string_view name) noexcept;

/// docs/states.md as a whole.
[[nodiscard]] std::string states_markdown();

/// What the state is derived from. Everything is a fact that the agent knows at this moment; nothing is remembered here.
struct StateFacts {
    std::size_t disks = 0;          ///< protected disks
    bool paused = false;            ///< by the operator
    bool connected_once = false;    ///< a session was established, or one attempt failed, since the agent started
    bool session = false;           ///< WELCOME was accepted
    bool stalled = false;           ///< nothing moves although there is something to move; the cause is named elsewhere
    bool initial = false;           ///< a disk has not finished its initial sync
    bool rescan = false;            ///< a disk is compared by hash
    bool gap = false;               ///< a disk has a gap
    bool first_point = false;       ///< the server holds a recovery point of this source
    bool flushed = false;           ///< a consistent mark at or behind the end of the last resync is durable
};
[[nodiscard]] SourceState derive_state(const StateFacts& facts) noexcept;

}  // namespace blkferry::agent
