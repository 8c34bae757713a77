// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "base/uuid.hpp"
#include "disk.hpp"

namespace blkferry::producer {

/// A machine of file-backed devices, with the module in it: writes to a device are captured while it is attached.
/// Thread-safe.
class Machine {
public:
    Machine();

    /// Adds a device over an existing file; gives its device number.
    [[nodiscard]] Result<std::uint64_t> add_device(const std::string& path);
    /// The device has that size from now on; an attached disk keeps the one it had, as in the module, and tells of it.
    [[nodiscard]] Result<void> grow(std::uint64_t dev, std::uint64_t bytes);
    [[nodiscard]] std::vector<std::uint64_t> devices() const;
    [[nodiscard]] Result<std::uint64_t> sectors(std::uint64_t dev) const;
    [[nodiscard]] Result<std::string> path(std::uint64_t dev) const;

    /// A write that was submitted and not ended. `data` stays the caller's until execute() returned.
    struct Write {
        capture::OpKind op = capture::OpKind::write;
        std::uint64_t dev = 0;
        std::uint64_t sector = 0;
        std::uint64_t sectors = 0;
        std::span<const std::byte> data;
        std::shared_ptr<Disk> disk;  ///< null: the device was not attached at submit
        InFlight inflight;
    };
    [[nodiscard]] Result<Write> submit(capture::OpKind op, std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors,
                                       std::span<const std::byte> data, std::uint16_t flags = 0);
    /// Does to the backing file what the medium does.
    [[nodiscard]] Result<void> execute(const Write& w);
    void finish(Write& w, End how);
    /// submit, execute, finish.
    [[nodiscard]] Result<void> write(capture::OpKind op, std::uint64_t dev, std::uint64_t sector, std::uint64_t sectors,
                                     std::span<const std::byte> data);

    // The control operations of kmod/uapi/blkferry.h; errors carry its errno.
    [[nodiscard]] capture::TrackerInfo info() const;
    [[nodiscard]] Result<std::uint64_t> find(const std::string& path) const;
    [[nodiscard]] Result<capture::DiskInfo> attach(const capture::AttachRequest& request);
    [[nodiscard]] Result<std::uint64_t> detach(std::uint32_t disk);
    [[nodiscard]] Result<std::shared_ptr<Disk>> disk(std::uint32_t id) const;
    [[nodiscard]] std::vector<std::uint32_t> disks() const;
    /// How long the server lets a cut with frozen file systems take. Set it before anybody asks.
    std::chrono::milliseconds freeze_time{0};
    /// `fs`: as if the file systems had been frozen (nothing is, here).
    [[nodiscard]] Result<std::uint64_t> cut(bool fs);
    [[nodiscard]] Result<void> seq_floor(std::uint64_t seq);

    using EventSink = std::function<void(const capture::TrackerEvent&)>;
    void set_event_sink(EventSink sink);

private:
    struct Device {
        std::string path;
        Fd fd;
        std::atomic<std::uint64_t> sectors = 0;
        std::shared_mutex gate;      ///< exclusive: the disk of the device changes
        std::shared_ptr<Disk> disk;  ///< under gate
    };
    [[nodiscard]] Result<Device*> device(std::uint64_t dev) const;
    void event(std::uint32_t disk, std::uint32_t kind, std::uint32_t state, std::uint32_t flags);

    Uuid load_id_ = Uuid::random();
    Sequence sequence_;
    mutable std::shared_mutex admin_;  ///< as the module's bf_admin_sem; outermost
    std::map<std::uint64_t, std::unique_ptr<Device>> devices_;
    std::map<std::uint32_t, std::shared_ptr<Disk>> disks_;
    std::mutex sink_lock_;
    EventSink sink_;
};

}  // namespace blkferry::producer
