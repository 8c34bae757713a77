// SPDX-License-Identifier: Apache-2.0
#include "agent/verify.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace blkferry::agent {

namespace {
constexpr std::uint64_t block_sectors = proto::hash_block_bytes_max / sector_bytes;
constexpr std::size_t running_max = 8;
constexpr unsigned rounds_max = 12;
/// Suspects of one round; a replica that differs more is found so by the first of them.
constexpr std::size_t suspects_max = 4096;
}  // namespace

Verify::Verify(Parts parts, std::vector<Target> targets, VerifyPlace from, Found found, Done done)
    : parts_(parts), targets_(std::move(targets)), found_(std::move(found)), done_(std::move(done)) {
    for (const Target& t : targets_) {
        const std::uint64_t sectors = t.disk->geometry().nr_sectors;
        total_bytes_ += sectors * sector_bytes;
        // Disks that went away since `from` was noted are passed over, and so is a place behind the end of one that shrank.
        if (t.disk->slot() < from.slot || (t.disk->slot() == from.slot && from.sector >= sectors))
            ++pass_target_;
        else if (t.disk->slot() == from.slot)
            pass_sector_ = from.sector / block_sectors * block_sectors;
    }
    throttle_ = parts_.loop.after(0, [this] { compare_more(); });
    throttle_.stop();
}

Verify::Where Verify::watermark() const noexcept {
    Where low{pass_target_, pass_sector_};
    for (const Job& j : jobs_)
        low = std::min(low, {j.target, j.extent.sector});
    if (!running_.empty())
        low = std::min(low, *running_.begin());
    for (const Suspect& s : suspects_)
        low = std::min(low, {s.target, s.block.sector});
    return low;
}

VerifyPlace Verify::place() const noexcept {
    const auto [target, sector] = watermark();
    if (target < targets_.size())
        return {targets_[target].disk->slot(), sector};
    return {static_cast<std::uint16_t>(targets_.empty() ? 0 : targets_.back().disk->slot()), proto::disk_sectors_max};
}

Verify::Progress Verify::progress() const noexcept {
    const auto [target, sector] = watermark();
    std::uint64_t done = sector * sector_bytes;
    for (std::size_t i = 0; i < target; ++i)
        done += targets_[i].disk->geometry().nr_sectors * sector_bytes;
    return {std::min(done, total_bytes_), total_bytes_, outcome_.differing_bytes};
}

/// Whether the next block may be read now; if not, it is looked at again in time.
bool Verify::may_read() {
    const std::uint64_t now = loop::Loop::now_ns();
    if (parts_.bucket.available(now) != 0)
        return true;
    throttle_.restart(parts_.bucket.wait_ns(now));
    return false;
}

bool Verify::settled() const noexcept {
    return std::ranges::all_of(targets_, [](const Target& t) {
        const auto st = t.disk->ring->status();
        return t.resync->settled() && st.state == capture::DiskState::ring && st.gap_seq == 0;
    });
}

bool Verify::take_number() {
    const auto info = parts_.tracker.info();
    if (!info) {
        finish(std::unexpected(info.error()));
        return false;
    }
    seq_ = info->seq;
    return true;
}

bool Verify::durable_up_to(std::uint64_t seq) const noexcept {
    return parts_.shipper.durable_mark() >= seq || parts_.shipper.idle();
}

void Verify::step() {
    switch (phase_) {
        case Phase::settling:
            if (!settled() || !durable_up_to(seq_))
                return;
            epochs_ = 0;
            for (const Target& t : targets_)
                epochs_ += t.resync->epochs();
            phase_ = Phase::comparing;
            compare_more();
            return;
        case Phase::comparing: compare_more(); return;
        case Phase::judging:
            if (durable_up_to(seq_))
                judge();
            return;
        case Phase::over: return;
    }
}

void Verify::compare_more() {
    while (phase_ == Phase::comparing && running_.size() < running_max && suspects_.size() < suspects_max) {
        if (jobs_.empty() && round_ == 0 && pass_target_ < targets_.size()) {
            const std::uint64_t end = targets_[pass_target_].disk->geometry().nr_sectors;
            jobs_.push_back({pass_target_, {pass_sector_, std::min(block_sectors, end - pass_sector_)}});
            pass_sector_ += block_sectors;
            if (pass_sector_ >= end) {
                pass_sector_ = 0;
                ++pass_target_;
            }
        }
        if (jobs_.empty())
            break;
        if (!may_read())
            return;
        const Job job = jobs_.front();
        auto buffer = parts_.pool.take(static_cast<std::size_t>(job.extent.count * sector_bytes));
        if (!buffer)
            return;
        jobs_.pop_front();
        running_.insert({job.target, job.extent.sector});
        parts_.bucket.take(loop::Loop::now_ns(), job.extent.count * sector_bytes);
        Disk& disk = *targets_[job.target].disk;
        disk.reader->read(job.extent, buffer, [this, job, buffer, alive = std::weak_ptr<bool>(alive_)](Result<void> r) {
            if (alive.expired() || phase_ == Phase::over)
                return;
            if (!r) {
                finish(std::unexpected(std::move(r).error()));
                return;
            }
            compare_block(parts_.hashes, targets_[job.target].disk->slot(), job.extent, buffer,
                          [this, job, alive](std::vector<Extent> differs) {
                              if (!alive.expired() && phase_ != Phase::over)
                                  compared(job, std::move(differs));
                          });
        });
    }
    if (phase_ == Phase::comparing && running_.empty() && (jobs_.empty() || suspects_.size() >= suspects_max) && take_number())
        phase_ = Phase::judging;
}

void Verify::compared(const Job& job, std::vector<Extent> differs) {
    running_.erase({job.target, job.extent.sector});
    if (!differs.empty())
        suspects_.push_back({job.target, job.extent, std::move(differs)});
    compare_more();
}

void Verify::judge() {
    std::uint64_t epochs = 0;
    for (const Target& t : targets_)
        epochs += t.resync->epochs();
    // A gap that was open meanwhile hides writes from batch_wrote(): nothing can be said about this round.
    const bool trustworthy = round_ > 0 && epochs == epochs_ && settled();
    std::vector<Suspect> again;
    std::map<std::size_t, ExtentSet> dirty;
    for (Suspect& s : suspects_) {
        const ExtentSet& written = written_[targets_[s.target].disk->slot()];
        Suspect rest{s.target, s.block, {}};
        for (const Extent& run : s.runs) {
            if (trustworthy && !written.overlaps(run)) {
                report(s, run);
                dirty[s.target].insert(run);
            } else {
                rest.runs.push_back(run);
            }
        }
        if (!rest.runs.empty())
            again.push_back(std::move(rest));
    }
    for (const auto& [target, set] : dirty)
        if (auto r = parts_.tracker.mark_dirty(targets_[target].disk->id, set.list()); !r) {
            finish(std::unexpected(std::move(r).error()));
            return;
        }
    suspects_ = std::move(again);
    next_round();
}

void Verify::report(const Suspect& s, const Extent& run) {
    const std::uint64_t bytes = run.count * sector_bytes;
    outcome_.differing_bytes += bytes;
    const Disk& disk = *targets_[s.target].disk;
    Range range{disk.slot(), disk.path, run.sector * sector_bytes, bytes};
    if (found_)
        found_(range);
    if (outcome_.ranges.size() < ranges_max)
        outcome_.ranges.push_back(std::move(range));
}

void Verify::next_round() {
    watched_.clear();
    written_.clear();
    const bool pass_over = pass_target_ >= targets_.size() && jobs_.empty();
    if (suspects_.empty() && pass_over) {
        finish(std::move(outcome_));
        return;
    }
    if (round_ >= rounds_max && pass_over) {
        for (const Suspect& s : suspects_)
            for (const Extent& run : s.runs)
                outcome_.unsettled_bytes += run.count * sector_bytes;
        finish(std::move(outcome_));
        return;
    }
    if (suspects_.empty() && jobs_.empty()) {  // the pass was interrupted by too many suspects: it goes on
        round_ = 0;
    } else {
        ++round_;
        for (const Suspect& s : suspects_)
            jobs_.push_back({s.target, s.block});
        // Blocks that the round before left unread belong to this one: what is written in them has to be known too.
        for (const Job& job : jobs_)
            watch(job);
        suspects_.clear();
    }
    if (take_number())
        phase_ = Phase::settling;
}

void Verify::batch_wrote(const fold::Folded& folded) {
    if (watched_.empty())
        return;
    for (const fold::Piece& p : folded.pieces) {
        const auto it = watched_.find(p.slot);
        if (it == watched_.end())
            continue;
        for (const Extent& e : it->second.common(p.extent()))
            written_[p.slot].insert(e);
    }
}

void Verify::finish(Result<Outcome> outcome) {
    if (phase_ == Phase::over)
        return;
    phase_ = Phase::over;
    throttle_.stop();
    if (outcome)
        outcome->compared_bytes = total_bytes_;
    alive_ = std::make_shared<bool>(true);
    if (done_)
        std::exchange(done_, nullptr)(std::move(outcome));
}

}  // namespace blkferry::agent
