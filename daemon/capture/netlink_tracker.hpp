// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "capture/tracker.hpp"

namespace blkferry::capture {

/// The module behind generic netlink family "blkferry" and /dev/blkferry/<disk id>. Needs CAP_SYS_ADMIN, or the opener.
/// Replies are parsed strictly: a missing or malformed attribute is Errc::corrupt; attributes of newer modules are ignored.
class NetlinkTracker final : public Tracker {
public:
    /// Errc::not_found (ENOENT) if the module is not loaded; Errc::unsupported if it speaks another ABI.
    /// `opener`: socket of the process that has the capability (ModuleChannel::through_opener()); empty: this one has it.
    [[nodiscard]] static Result<std::unique_ptr<NetlinkTracker>> open(const std::string& opener = {});
    ~NetlinkTracker() override;

    [[nodiscard]] Result<TrackerInfo> info() override;
    [[nodiscard]] Result<std::vector<DiskInfo>> list() override;
    [[nodiscard]] Result<DiskInfo> disk_get(std::uint32_t disk) override;
    /// stat(2): the path must be a block device.
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
    explicit NetlinkTracker(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace blkferry::capture
