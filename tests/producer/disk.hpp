// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "capture/ring.hpp"
#include "capture/socket_protocol.hpp"
#include "capture/tracker.hpp"
#include "core.hpp"

namespace blkferry::producer {

/// An error as the module gives it: errno and the text of the extended acknowledgement.
[[nodiscard]] std::unexpected<Error> refuse(int err, std::string text);

/// The one counter of the machine, and what is void.
struct Sequence {
    std::atomic<std::uint64_t> last{0};
    std::atomic<std::uint64_t> void_up_to{0};
};

/// A write between submit() and finish(): what the module's in-flight table holds.
struct InFlight {
    enum class Kind : std::uint8_t { none, ring, dirty };
    Kind kind = Kind::none;
    std::uint32_t parity = 0;
    std::uint32_t overlap = 0;
    std::uint64_t index = 0;
    std::uint64_t sector = 0;
    std::uint64_t sectors = 0;
};

enum class End : std::uint32_t {
    done = BLKFERRY_D_DONE,
    cancelled = BLKFERRY_D_CANCELLED,
    failed = BLKFERRY_D_FAILED,
};

struct DiskConfig {
    std::uint32_t id = 0;
    std::uint64_t dev = 0;
    std::string path;                   ///< backing file
    std::uint64_t data_bytes = 0;       ///< 0: default
    std::uint32_t descs = 0;            ///< 0: one per 4 KiB of data
    std::uint32_t inline_max = 0;       ///< 0: default
};

/// One protected, file-backed disk: what the module's probes and control operations do to a disk, in user space, with
/// the module's own ring, map and overlap code. Thread-safe: `lock_` stands for the disk's spinlock.
class Disk {
public:
    /// Told about each event (enum blkferry_event), outside of the lock.
    using News = std::function<void(std::uint32_t event, std::uint32_t state, std::uint32_t flags)>;

    [[nodiscard]] static Result<std::shared_ptr<Disk>> make(const DiskConfig& config, Sequence& sequence, News news);

    /// The block_bio_queue probe: draws a number, reserves, copies the payload (of a write).
    [[nodiscard]] InFlight submit(capture::OpKind op, std::uint64_t sector, std::uint64_t sectors,
                                  std::span<const std::byte> data, std::uint16_t flags = 0);
    /// The completion probes.
    void finish(const InFlight& w, End how);
    /// A write of this disk ended that was not captured at its submit.
    void unknown(std::uint64_t sector, std::uint64_t sectors);

    /// Breaks the contract as no module should: `garbage` appends a descriptor that says nothing, else a number is drawn that no
    /// descriptor ever has.
    void spoil(bool garbage);

    /// The control operations of kmod/uapi/blkferry.h.
    [[nodiscard]] Result<std::uint64_t> resync_begin();
    [[nodiscard]] Result<void> resync_clear(std::span<const Extent> ranges, std::uint64_t epoch);
    [[nodiscard]] Result<std::uint64_t> resync_end();
    [[nodiscard]] Result<void> mark_dirty(std::span<const Extent> ranges);
    /// 0: this disk is in no state for it.
    [[nodiscard]] Result<std::uint64_t> cut(std::uint16_t flags);
    [[nodiscard]] bool holds_numbers();
    void stop();
    [[nodiscard]] capture::DiskInfo info();
    /// What is not free in the ring, after the consumer's tail was read: for a writer that waits for room.
    struct Used {
        std::uint64_t bytes = 0;
        std::uint64_t descs = 0;
    };
    [[nodiscard]] Used used();

    /// Descriptors to pass to the consumer; EBUSY while another one has them.
    struct Opened {
        Fd poll;
        std::array<int, capture::wire::ring_regions> fds{};
        std::array<std::uint64_t, capture::wire::ring_regions> bytes{};
    };
    [[nodiscard]] Result<Opened> open_ring();
    [[nodiscard]] const DiskConfig& config() const noexcept { return config_; }

private:
    struct Region {
        Fd fd;
        Mapping map;
        std::uint64_t bytes = 0;
    };
    Disk(const DiskConfig& config, Sequence& sequence, News news);
    [[nodiscard]] Result<void> allocate(std::uint64_t sectors);
    [[nodiscard]] blkferry_ctl& ctl() noexcept;
    [[nodiscard]] blkferry_cons& cons() noexcept;
    [[nodiscard]] blkferry_desc& desc(std::uint64_t index) noexcept;

    // Under lock_, named as in the module.
    int intake(std::uint32_t max);
    int reserve(std::uint64_t sector, std::uint32_t len, std::uint64_t& pos);
    void append();
    std::uint64_t marker(blkferry_op op, std::uint16_t flags);
    void to_bitmap();
    void bad_consumer();
    void mark(std::uint64_t sector, std::uint64_t sectors);
    void gap(std::uint64_t seq);
    void gap_next();
    void set_state(blkferry_state state);
    void set_flags(std::uint32_t set, std::uint32_t clear);
    void publish_map();
    void count(blkferry_counter which, std::uint64_t n);
    void end_dirty(std::uint64_t sector, std::uint64_t sectors, std::uint64_t seq);
    blkferry_desc& record(InFlight& w, capture::OpKind op, std::uint32_t len, std::uint64_t pos, bool dirty,
                          std::uint16_t flags);
    void end_record(const InFlight& w, End how);
    [[nodiscard]] Result<void> switch_epoch();

    [[nodiscard]] Result<void> check_ranges(std::span<const Extent> ranges) const;
    [[nodiscard]] bool drained(std::uint32_t parity);
    void wake();
    void tell(std::unique_lock<std::mutex>& held);

    DiskConfig config_;
    Sequence& sequence_;
    News news_;
    std::array<Region, capture::wire::ring_regions> regions_;
    std::vector<std::uint64_t> active_;
    std::vector<std::uint8_t> moved_;
    std::unique_ptr<bf_overlap> overlap_;
    Fd wake_;  ///< our end of the socket pair that stands for poll()
    std::uint64_t sectors_ = 0;
    std::uint32_t map_shift_ = 0;  ///< log2 of sectors per map block

    std::mutex control_;  ///< outside of lock_, as the module's ctl_lock
    std::mutex lock_;
    bf_ring ring_{};
    bf_map map_{};
    blkferry_state state_ = BLKFERRY_BITMAP;
    std::uint32_t flags_ = 0;
    std::uint32_t parity_ = 0;
    std::array<std::uint32_t, 2> inflight_{};
    std::uint64_t gap_seq_ = 1;
    std::uint64_t news_pending_ = 0;  ///< bits: enum blkferry_event
    bool wake_pending_ = false;
};

}  // namespace blkferry::producer
