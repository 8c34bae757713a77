// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "capture/dirty_words.hpp"
#include "capture/ebpf/block_probe.h"

namespace blkferry::capture {

/// What the kernel's programs write about one disk. The mappings live as long as the probe and this object do.
struct ProbeMemory {
    std::uint32_t slot = 0;
    bf_probe_disk* disk = nullptr;
    DirtyWords dirty;
    Mapping words;

    [[nodiscard]] std::uint64_t bytes() const noexcept { return words.size(); }
};

/// The eBPF programs of capture/ebpf/block_probe.bpf.c, loaded and attached; they end with this object. Needs CAP_BPF and CAP_PERFMON, or
/// CAP_SYS_ADMIN. One thread.
class BlockProbe {
public:
    /// Checks, loads and attaches. Errc::unsupported: the kernel cannot do it (no BTF, too old); Errc::denied: no permission. The text
    /// says what is missing, and what the verifier said if it refused.
    [[nodiscard]] static Result<std::unique_ptr<BlockProbe>> load();
    BlockProbe(const BlockProbe&) = delete;
    BlockProbe& operator=(const BlockProbe&) = delete;
    ~BlockProbe();

    /// Begins to track a disk (device_number()) with every block marked. `block_shift` is log2 of sectors per block, `tags` the
    /// number of requests that it can have (Errc::no_space: more than there is room for). ENOSPC: 256 disks were added in this life.
    [[nodiscard]] Result<ProbeMemory> add(std::uint64_t dev, std::uint64_t sectors, std::uint32_t block_shift, std::uint64_t tags);
    void remove(std::uint64_t dev, std::uint64_t tags) noexcept;

    /// Marks what the table of requests under way holds of a disk, once more: should the end of a write not be seen, its blocks are read
    /// in every round until its request is used again. An entry that is there since `sweeps_max` sweeps, while the kernel says that
    /// nothing is under way (`idle`), is taken out. Returns how many there are.
    std::uint64_t sweep(const ProbeMemory& memory, bool idle);
    static constexpr std::uint32_t sweeps_max = 3;

    /// Runs that the kernel skipped because the program was running on that CPU already; of each program.
    struct Skipped {
        std::array<std::uint64_t, BF_PROBE_COPIES> issue{};
        std::array<std::uint64_t, BF_PROBE_COPIES> complete{};
    };
    [[nodiscard]] Skipped skipped() const noexcept;
    /// Between two readings the issue of a write may have been skipped by all copies of the program. A completion that was is found in
    /// the table, see sweep().
    [[nodiscard]] static bool may_have_lost(const Skipped& before, const Skipped& now) noexcept;

private:
    struct Impl;
    struct Seen {
        std::uint32_t slot = 0;
        std::uint64_t sector = 0;
        std::uint32_t sweeps = 0;
    };
    void forget(const ProbeMemory& memory, std::uint64_t key, const bf_probe_request& r) noexcept;
    explicit BlockProbe(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
    std::uint32_t next_slot_ = 0;
    std::uint64_t tags_max_ = 0;
    std::uint64_t tags_used_ = 0;
    std::map<std::uint64_t, Seen> seen_;
};

}  // namespace blkferry::capture
