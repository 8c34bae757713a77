// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

/// Which disk is which, whatever the kernel calls it today.
namespace blkferry::agent {

/// What identifies a disk. Empty texts are unknown. The hardware group stays with the device for life; the content group
/// is written on it and can be changed by its owner.
struct DiskIdentity {
    std::string wwn;         ///< hardware: World Wide Name (NAA, EUI or NVMe UUID)
    std::string serial;      ///< hardware
    std::string mapper;      ///< hardware: UUID of a device-mapper or md device, file behind a loop device
    std::string table_guid;  ///< content: GUID (or DOS id) of the partition table
    std::string fs_uuid;     ///< content: UUID of a file system on the whole disk
    std::string name;        ///< kernel name, for people, and the last resort
    std::uint64_t sectors = 0;

    [[nodiscard]] bool has_hardware() const noexcept { return !wwn.empty() || !serial.empty() || !mapper.empty(); }
    [[nodiscard]] bool has_content() const noexcept { return !table_guid.empty() || !fs_uuid.empty(); }
    /// One line for people and for HELLO.
    [[nodiscard]] std::string str() const;
    bool operator==(const DiskIdentity&) const = default;
};

/// A block device of this machine and what speaks against protecting it.
struct BlockDevice {
    DiskIdentity identity;
    std::string path;            ///< device node
    std::uint64_t dev = 0;       ///< (major << 32) | minor
    std::uint32_t logical_block = 512;
    std::string model;
    std::string label;           ///< of the file system on it, for people
    std::vector<std::string> mounts;  ///< mount points of the disk and its partitions
    std::string obstacle;        ///< why it cannot be protected, empty if it can
    std::string left_out;        ///< why 'all disks of the machine' does not mean it; empty if it does
};

/// The index of the one device that is `wanted`; Errc::not_found if there is none, Errc::conflict if several could be it.
/// Hardware identity decides when both sides know it; then what is on the disk; only a disk that has neither is found by
/// name and size. Pure.
[[nodiscard]] Result<std::size_t> find_device(const DiskIdentity& wanted, std::span<const BlockDevice> devices);

/// Where the machine is described; another root for tests.
struct SystemRoots {
    std::string sys = "/sys";
    std::string proc = "/proc";
    std::string dev = "/dev";
};

/// Every whole disk and every partition with its obstacle, in order of names. Empty drives (size 0) are left out.
[[nodiscard]] std::vector<BlockDevice> list_devices(const SystemRoots& roots = {});
/// The device behind a path: a device node or a kernel name.
[[nodiscard]] Result<BlockDevice> device_of(std::string_view path_or_name, const SystemRoots& roots = {});

}  // namespace blkferry::agent
