// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.hpp"

namespace blkferry::opener {

/// A netlink message that the agent wants sent: looked at before anything is done with it. Pure.
struct ModuleRequest {
    std::uint8_t cmd = 0;           ///< enum blkferry_cmd
    bool dump = false;
    std::uint32_t sequence = 0;
    std::uint64_t dev = 0;          ///< of ATTACH
    std::size_t fd_at = 0;          ///< where BLKFERRY_A_FD's value is in the message; 0: it has none
    std::span<std::byte> message;

    /// Which attributes a command may have, of what size, is in a table: anything else, twice, in part or beyond is Errc::invalid, and so is a
    /// descriptor that is missing or not asked for. `message` is aligned to 4.
    [[nodiscard]] static Result<ModuleRequest> check(std::span<std::byte> message, bool has_fd);
    /// Puts in what only the sender knows: the family's id, and the number that the descriptor has in this process (-1: none).
    void address(std::uint16_t family, int fd) noexcept;
};

}  // namespace blkferry::opener
