// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace blkferry::capture {

/// The way to the module for what needs CAP_SYS_ADMIN: its requests, and the opening of its rings. This process goes it itself, or the opener
/// does (docs/capture.md). One thread at a time.
class ModuleChannel {
public:
    ModuleChannel() = default;
    ModuleChannel(const ModuleChannel&) = delete;
    ModuleChannel& operator=(const ModuleChannel&) = delete;
    virtual ~ModuleChannel() = default;

    /// Id of the module's netlink family.
    [[nodiscard]] virtual std::uint16_t family() const noexcept = 0;
    /// Sends a request of that family; `fd` is the descriptor that its BLKFERRY_A_FD names, or -1.
    [[nodiscard]] virtual Result<void> send(std::span<std::byte> message, int fd) = 0;
    /// The next datagram of the module, whole, aligned to 8; good until the next call. Errc::timeout: none came.
    [[nodiscard]] virtual Result<std::span<std::byte>> receive() = 0;
    /// Opens a disk's ring, O_RDWR. EBUSY: another consumer has it.
    [[nodiscard]] virtual Result<Fd> open_ring(std::uint32_t disk) = 0;

    /// By this process itself. Errc::not_found (ENOENT): the module is not loaded.
    [[nodiscard]] static Result<std::unique_ptr<ModuleChannel>> direct();
    /// By the opener that listens at `socket`. A connection that was lost is made again at the next request.
    [[nodiscard]] static Result<std::unique_ptr<ModuleChannel>> through_opener(const std::string& socket);
};

}  // namespace blkferry::capture
