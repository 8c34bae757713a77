// SPDX-License-Identifier: Apache-2.0
#include "capture/merger.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace blkferry::capture {

void Merger::add(Ring& ring, std::uint16_t slot) {
    BLKFERRY_ASSERT(std::ranges::none_of(members_, [&](const Member& m) { return m.slot == slot; }));
    members_.push_back({&ring, ++serial_, slot});
    front_seq_.push_back(no_seq);
    front_.emplace_back();
    ready_.push_back(0);
    load_front(members_.size() - 1);
}

void Merger::remove(std::uint16_t slot) {
    const auto it = std::ranges::find(members_, slot, &Member::slot);
    if (it == members_.end())
        return;
    const auto at = it - members_.begin();
    members_.erase(it);
    front_seq_.erase(front_seq_.begin() + at);
    front_.erase(front_.begin() + at);
    ready_.erase(ready_.begin() + at);
    last_ = 0;
}

void Merger::restart(std::uint64_t next_seq) {
    next_ = first_ = next_seq;
    hole_ = 0;
    hole_fenced_ = false;
    time_ns_ = 0;
    dropped_ = 0;
    bad_ = false;
    error_ = {};
    for (std::size_t i = 0; i < members_.size(); ++i) {
        members_[i].ring->rewind();
        load_front(i);
    }
}

void Merger::set_error(Error error) {
    bad_ = true;
    error_ = std::move(error);
}

/// Looks at the ring's cursor; false if the ring is bad.
bool Merger::load_front(std::size_t member) {
    CapturedOp& op = front_[member];
    switch (members_[member].ring->peek(op)) {
        case Ring::Peek::ready:
            front_seq_[member] = op.seq;
            ready_[member] = 1;
            return true;
        case Ring::Peek::unfinished:
            front_seq_[member] = op.seq;
            ready_[member] = 0;
            return true;
        case Ring::Peek::empty:
            front_seq_[member] = no_seq;
            ready_[member] = 0;
            return true;
        case Ring::Peek::bad:
            break;
    }
    front_seq_[member] = no_seq;
    ready_[member] = 0;
    set_error(members_[member].ring->error());
    return false;
}

/// Re-reads the heads of rings that looked empty; true if one of them has something now.
bool Merger::refresh_empty() {
    bool found = false;
    for (std::size_t i = 0; i < members_.size() && !bad_; ++i) {
        if (front_seq_[i] != no_seq)
            continue;
        if (!members_[i].ring->refresh()) {
            set_error(members_[i].ring->error());
            break;
        }
        found |= load_front(i) && front_seq_[i] != no_seq;
    }
    return found;
}

void Merger::give(std::size_t member, CapturedOp& op) {
    op = front_[member];
    op.slot = members_[member].slot;
    members_[member].ring->advance();
    last_ = member;
    load_front(member);
}

/// No ring shows the next number. idle, hole, bad; or op, which means: look again (next_ moved over void numbers, or
/// an operation that is durable already was dropped).
Merger::Status Merger::no_front() {
    const auto lowest = std::ranges::min_element(front_seq_);
    const std::uint64_t seq = lowest == front_seq_.end() ? no_seq : *lowest;
    if (seq < next_) {
        const auto member = static_cast<std::size_t>(lowest - front_seq_.begin());
        if (seq >= first_) {
            set_error({Errc::corrupt, 0,
                       fmt::format("the ring of disk {} shows operation {} after the merge passed it; mark all disks "
                                   "dirty and rescan them",
                                   members_[member].ring->geometry().disk, seq)});
            return Status::bad;
        }
        if (ready_[member] == 0 && (!load_front(member) || ready_[member] == 0))
            return bad_ ? Status::bad : Status::waiting;
        CapturedOp dropped;
        ++dropped_;
        give(member, dropped);
        return Status::op;
    }
    if (next_ <= void_seq_) {
        next_ = std::min(seq, void_seq_ + 1);
        return Status::op;
    }
    if (seq == no_seq)
        return Status::idle;
    if (hole_ == next_ && hole_fenced_) {
        set_error({Errc::corrupt, 0,
                   fmt::format("operation {} is in no ring although {} is there (void up to {}); mark all disks dirty and "
                               "rescan them",
                               next_, seq, void_seq_)});
        return Status::bad;
    }
    if (hole_ != next_)
        hole_fenced_ = false;
    hole_ = next_;
    return Status::hole;
}

Merger::Status Merger::next(CapturedOp& op) {
    while (!bad_) {
        std::size_t i = last_;
        if (i >= front_seq_.size() || front_seq_[i] != next_)
            i = static_cast<std::size_t>(std::ranges::find(front_seq_, next_) - front_seq_.begin());
        if (i < front_seq_.size()) {
            if (ready_[i] == 0 && (!load_front(i) || ready_[i] == 0))
                return bad_ ? Status::bad : Status::waiting;
            give(i, op);
            ++next_;
            time_ns_ = std::max(time_ns_, op.time_ns);
            return Status::op;
        }
        if (refresh_empty() || bad_)
            continue;
        if (const Status s = no_front(); s != Status::op)
            return s;
    }
    return Status::bad;
}

Merger::Status Merger::take(std::vector<CapturedOp>& out, std::size_t max) {
    CapturedOp op;
    for (std::size_t n = 0; n < max; ++n) {
        if (const Status s = next(op); s != Status::op)
            return s;
        out.push_back(op);
        if (is_marker(op.op))
            break;
    }
    return Status::op;
}

void Merger::fence(std::uint64_t void_seq) {
    void_seq_ = std::max(void_seq_, void_seq);
    hole_fenced_ = hole_ != 0;
}

std::vector<Merger::Position> Merger::positions() const {
    std::vector<Position> out;
    out.reserve(members_.size());
    for (const Member& m : members_)
        out.push_back({m.serial, m.ring->cursor()});
    return out;
}

void Merger::ack(const std::vector<Position>& positions) noexcept {
    for (const Position& p : positions) {
        const auto it = std::ranges::find(members_, p.member, &Member::serial);
        if (it != members_.end())
            it->ring->ack(p.index);
    }
}

bool Merger::arm() noexcept {
    const auto it = std::ranges::find(front_seq_, next_);
    if (it != front_seq_.end())
        return members_[static_cast<std::size_t>(it - front_seq_.begin())].ring->arm();
    for (std::size_t i = 0; i < members_.size(); ++i)
        if (front_seq_[i] == no_seq && !members_[i].ring->arm()) {
            disarm();
            return false;
        }
    return true;
}

void Merger::disarm() noexcept {
    for (const Member& m : members_)
        m.ring->disarm();
}

}  // namespace blkferry::capture
