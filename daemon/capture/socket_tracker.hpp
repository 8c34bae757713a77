// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>

#include "capture/tracker.hpp"

namespace blkferry::capture {

/// A process that acts as the module, behind a Unix SOCK_SEQPACKET socket (messages: capture/socket_protocol.hpp). Its
/// rings are memfds with the layout of kmod/uapi/blkferry.h; a pipe stands for the character device's poll.
/// Calls block for at most `timeout_ms` (cut: plus freeze_ms), then Errc::timeout and the connection is unusable.
class SocketTracker final : public Tracker {
public:
    [[nodiscard]] static Result<std::unique_ptr<SocketTracker>> connect(const std::filesystem::path& socket,
                                                                       std::uint32_t timeout_ms = 30'000);
    ~SocketTracker() override;

    [[nodiscard]] Result<TrackerInfo> info() override;
    [[nodiscard]] Result<std::vector<DiskInfo>> list() override;
    [[nodiscard]] Result<DiskInfo> disk_get(std::uint32_t disk) override;
    /// What the producer calls its disk: the path of the backing file.
    [[nodiscard]] Result<std::uint64_t> find_device(const std::string& path) override;
    [[nodiscard]] Result<DiskInfo> attach(const AttachRequest& request) override;
    [[nodiscard]] Result<std::uint64_t> detach(std::uint32_t disk) override;
    [[nodiscard]] Result<RingMemory> open_ring(std::uint32_t disk) override;
    [[nodiscard]] Result<std::uint64_t> resync_begin(std::uint32_t disk) override;
    [[nodiscard]] Result<void> resync_clear(std::uint32_t disk, std::span<const Extent> ranges,
                                            std::optional<std::uint64_t> epoch = std::nullopt) override;
    [[nodiscard]] Result<std::uint64_t> resync_end(std::uint32_t disk) override;
    [[nodiscard]] Result<void> mark_dirty(std::uint32_t disk, std::span<const Extent> ranges) override;
    [[nodiscard]] Result<std::uint64_t> cut(std::span<const std::uint64_t> freeze, std::uint32_t freeze_ms) override;
    [[nodiscard]] Result<void> seq_floor(std::uint64_t seq) override;
    [[nodiscard]] int events_fd() const noexcept override;
    [[nodiscard]] Result<void> subscribe() override;
    [[nodiscard]] Result<std::vector<TrackerEvent>> read_events() override;

private:
    struct Impl;
    explicit SocketTracker(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace blkferry::capture
