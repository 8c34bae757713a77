// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

namespace blkferry::sim {

/// A lie of the simulation itself, to see that the oracle notices.
enum class Mutation : std::uint8_t {
    none,
    lose_sync,        ///< a sync of the journal says that it is done and did nothing
    wrong_payload,    ///< now and then the ring gets another byte than the disk
    assume_clean,     ///< after a reboot of the source the tracker says that nothing was written meanwhile
    lose_discard,     ///< the tracker does not see discards
    lie_about_write,  ///< a write of staging that fails says that it is done
    lose_names,       ///< a sync of a folder says that it is done and did nothing
    hide_rot,         ///< nobody reads the store again after bits of it have turned over
    write_in_freeze,  ///< the source goes on writing while its file systems are frozen
    dead_link,        ///< a link that was cut never comes back
    leak_file,        ///< a descriptor stays open
    leak_memory,      ///< memory is never freed
    orphan,           ///< a file of staging that nobody needs stays
};

struct MutationName {
    std::string_view name;
    Mutation mutation;
};
inline constexpr std::array mutation_names{
    MutationName{"lose-sync", Mutation::lose_sync},
    MutationName{"wrong-payload", Mutation::wrong_payload},
    MutationName{"assume-clean", Mutation::assume_clean},
    MutationName{"lose-discard", Mutation::lose_discard},
    MutationName{"lie-about-write", Mutation::lie_about_write},
    MutationName{"lose-names", Mutation::lose_names},
    MutationName{"hide-rot", Mutation::hide_rot},
    MutationName{"write-in-freeze", Mutation::write_in_freeze},
    MutationName{"dead-link", Mutation::dead_link},
    MutationName{"leak-file", Mutation::leak_file},
    MutationName{"leak-memory", Mutation::leak_memory},
    MutationName{"orphan", Mutation::orphan},
};
[[nodiscard]] constexpr std::optional<Mutation> mutation_of(std::string_view name) noexcept {
    for (const MutationName& m : mutation_names)
        if (m.name == name)
            return m.mutation;
    return std::nullopt;
}

}  // namespace blkferry::sim
