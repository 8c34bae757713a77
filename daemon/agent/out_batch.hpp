// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "extent/extent.hpp"
#include "fold/encoder.hpp"

namespace blkferry::agent {

/// A run that was shipped in an epoch: cleared in the module's snapshot map when its batch is durable, if the epoch is
/// still the same.
struct ResyncClear {
    std::uint16_t slot = 0;
    std::uint64_t seq0 = 0;
    Extent extent;
};

/// A closed batch on its way: encoded frame by frame, sent in order, kept (without its frames) until it is durable.
class OutBatch {
public:
    OutBatch(fold::BatchPlan plan, bool consistent);

    // Set by the shipper when it closes the batch.
    std::map<std::uint16_t, std::uint64_t> positions;  ///< ring index up to which each disk was consumed
    std::vector<ResyncClear> clears;
    std::vector<std::shared_ptr<const void>> keep;     ///< what the payload lies in
    std::uint64_t oldest_time_ns = 0;                  ///< of its first captured operation, 0 if it has none
    std::uint64_t payload_in = 0;                      ///< captured payload before folding
    std::uint64_t ops = 0;                             ///< captured operations
    std::uint64_t charged_bytes = 0;                   ///< its share of the server's window

    [[nodiscard]] const fold::BatchPlan& plan() const noexcept { return plan_; }
    [[nodiscard]] std::uint64_t number() const noexcept { return plan_.parts().batch; }
    [[nodiscard]] std::uint64_t mark() const noexcept { return plan_.parts().begin.mark; }
    [[nodiscard]] bool consistent() const noexcept { return consistent_; }
    /// Bytes of its frames; grows while it is encoded.
    [[nodiscard]] std::uint64_t wire_bytes() const noexcept { return wire_bytes_; }

    [[nodiscard]] bool all_dispatched() const noexcept { return next_job_ == plan_.jobs(); }
    /// The next job to give to the pool.
    [[nodiscard]] std::size_t dispatch_next() noexcept { return next_job_++; }
    /// A job ended with this frame.
    void encoded(std::size_t job, fold::FrameBuffer frame, const fold::JobTotals& totals);
    [[nodiscard]] bool all_encoded() const noexcept { return jobs_done_ == plan_.jobs(); }

    /// What to send next; empty if it is not encoded yet or everything was sent.
    [[nodiscard]] std::span<const std::byte> front() const noexcept;
    /// Which frame is being sent: 0 is BATCH_BEGIN, then EXTENTS from 1 on.
    [[nodiscard]] std::size_t frame_index() const noexcept { return frame_; }
    /// Sent `bytes` of front(). Gives back the buffer of an EXTENTS frame that was sent whole, with `released` set.
    fold::FrameBuffer consume(std::size_t bytes, bool& released);
    [[nodiscard]] bool sent() const noexcept { return frame_ == plan_.jobs() + 2; }
    /// The payload is not needed any more (everything is encoded).
    void release_payload() noexcept { keep.clear(); }

private:
    void finish_if_encoded();

    fold::BatchPlan plan_;
    bool consistent_;
    std::vector<std::byte> begin_;
    std::vector<std::byte> end_;
    std::vector<fold::FrameBuffer> frames_;
    std::vector<bool> ready_;
    fold::JobTotals totals_;
    std::size_t next_job_ = 0;
    std::size_t jobs_done_ = 0;
    std::size_t frame_ = 0;  ///< 0: begin, 1 .. jobs: EXTENTS, jobs + 1: end
    std::size_t at_ = 0;
    std::uint64_t wire_bytes_ = 0;
};

}  // namespace blkferry::agent
