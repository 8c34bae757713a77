// SPDX-License-Identifier: Apache-2.0
#include "store/hand_off.hpp"

#include <algorithm>

#include "base/result.hpp"

namespace blkferry::store {

void HandOff::drop_front() {
    bytes_ -= entries_.front().entry.body.size();
    entries_.pop_front();
}

void HandOff::push(JournalEntry entry) {
    const std::scoped_lock guard(lock_);
    const Position after = last_end_ == 0 ? entry.position : last_end_;
    BLKFERRY_ASSERT(after <= entry.position);
    last_end_ = entry.end;
    bytes_ += entry.body.size();
    entries_.push_back({std::move(entry), after});
    while (bytes_ > bytes_max_ || entries_.size() > entries_max)
        drop_front();
}

void HandOff::push_batch(Position begin, Position end) {
    const std::scoped_lock guard(lock_);
    batches_.push_back({begin, end});
    if (batches_.size() > batches_max)
        batches_.pop_front();
}

std::optional<JournalEntry> HandOff::find(Position at) {
    const std::scoped_lock guard(lock_);
    while (!entries_.empty() && entries_.front().entry.position < at)
        drop_front();
    if (entries_.empty() || entries_.front().after > at)
        return std::nullopt;
    return entries_.front().entry;
}

std::optional<Position> HandOff::batch_end(Position begin) {
    const std::scoped_lock guard(lock_);
    while (!batches_.empty() && batches_.front().begin < begin)
        batches_.pop_front();
    if (batches_.empty() || batches_.front().begin != begin)
        return std::nullopt;
    return batches_.front().end;
}

void HandOff::trim() {
    const std::scoped_lock guard(lock_);
    entries_.clear();
    bytes_ = 0;
}

std::size_t HandOff::bytes() const {
    const std::scoped_lock guard(lock_);
    return bytes_;
}

BodyArena::Piece BodyArena::take(std::size_t bytes) {
    BLKFERRY_ASSERT(bytes <= pool_.buffer_bytes());
    if (!buffer_ || buffer_->size() - used_ < bytes) {
        buffer_ = pool_.take();
        used_ = 0;
    }
    const auto piece = buffer_->bytes().subspan(used_, bytes);
    used_ += (bytes + 63) / 64 * 64;
    used_ = std::min(used_, buffer_->size());
    return {piece, buffer_};
}

}  // namespace blkferry::store
