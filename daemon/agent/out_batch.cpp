// SPDX-License-Identifier: Apache-2.0
#include "agent/out_batch.hpp"

#include <utility>

namespace blkferry::agent {

OutBatch::OutBatch(fold::BatchPlan plan, bool consistent)
    : plan_(std::move(plan)), consistent_(consistent), frames_(plan_.jobs()), ready_(plan_.jobs()) {
    plan_.begin(begin_);
    wire_bytes_ = begin_.size();
    finish_if_encoded();
}

void OutBatch::encoded(std::size_t job, fold::FrameBuffer frame, const fold::JobTotals& totals) {
    wire_bytes_ += frame.view().size();
    frames_[job] = std::move(frame);
    ready_[job] = true;
    totals_ += totals;
    ++jobs_done_;
    finish_if_encoded();
}

void OutBatch::finish_if_encoded() {
    if (!all_encoded())
        return;
    plan_.end(totals_, consistent_, end_);
    wire_bytes_ += end_.size();
    release_payload();
}

std::span<const std::byte> OutBatch::front() const noexcept {
    if (frame_ == 0)
        return std::span(begin_).subspan(at_);
    if (frame_ <= plan_.jobs())
        return ready_[frame_ - 1] ? frames_[frame_ - 1].view().subspan(at_) : std::span<const std::byte>();
    return all_encoded() && !sent() ? std::span(end_).subspan(at_) : std::span<const std::byte>();
}

fold::FrameBuffer OutBatch::consume(std::size_t bytes, bool& released) {
    const std::size_t left = front().size();
    BLKFERRY_ASSERT(bytes <= left);
    at_ += bytes;
    released = false;
    if (bytes < left)
        return {};
    at_ = 0;
    const std::size_t done = frame_++;
    if (done == 0 || done > plan_.jobs())
        return {};
    released = true;
    return std::move(frames_[done - 1]);
}

}  // namespace blkferry::agent
