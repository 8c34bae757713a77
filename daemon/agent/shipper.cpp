// SPDX-License-Identifier: Apache-2.0
#include "agent/shipper.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

namespace blkferry::agent {

namespace {
/// What the folder may hold: keeps the agent's memory bounded however slow the link is.
constexpr fold::FoldLimits fold_limits{65536, 256ULL << 20};
/// Room that a batch takes in the server's window beside its payload.
constexpr std::uint64_t batch_overhead_bytes = 4096;
/// Batches up to this payload are encoded by the loop itself.
constexpr std::uint64_t inline_payload_bytes = 32U << 10;
constexpr std::uint64_t tick_ns = 10'000'000;
constexpr std::uint64_t resync_piece_overhead = 256;
}  // namespace

Shipper::Shipper(WorkerPool& pool, BatchLimits limits)
    : pool_(pool), limits_(limits), folder_(fold_limits), budget_(fold_limits) {}

void Shipper::add_ring(std::uint16_t slot, std::shared_ptr<capture::Ring> ring) {
    merger_.add(*ring, slot);
    rings_[slot] = std::move(ring);
    measure_rings();
}

void Shipper::remove_ring(std::uint16_t slot) {
    merger_.remove(slot);
    rings_.erase(slot);
    measure_rings();
}

void Shipper::measure_rings() noexcept {
    ring_share_bytes_ = ~0ULL;
    ring_share_ops_ = ~0ULL;
    for (const auto& [slot, ring] : rings_) {
        ring_share_bytes_ = std::min(ring_share_bytes_, ring->geometry().data_bytes / 4);
        ring_share_ops_ = std::min<std::uint64_t>(ring_share_ops_, ring->geometry().desc_count / 4);
    }
}

void Shipper::start(const Start& from) {
    stop();
    running_ = true;
    next_batch_ = from.durable_batch + 1;
    mark_ = durable_mark_ = from.durable_mark;
    window_bytes_ = from.window_bytes;
    merger_.restart(std::max(from.skip_to, from.durable_mark) + 1);
    dropped_seen_ = merger_.dropped();
    if (from.skip_to > from.durable_mark) {
        // An empty batch takes the mark there, so that the first epoch may begin behind it.
        open_ = at_marker_ = true;
        opened_ns_ = loop::Loop::now_ns();
        open_taken_ = 1;
        open_mark_ = from.skip_to;
    }
}

void Shipper::stop() {
    running_ = false;
    ++session_;
    reset_open();
    held_.reset();
    out_.clear();
    sending_ = encoding_ = frames_ahead_ = 0;
    control_.clear();
    control_at_ = 0;
    feeding_ = Feeding::none;
    unacked_bytes_ = unsent_bytes_ = 0;
    merger_.restart(durable_mark_ + 1);
}

void Shipper::reset_open() {
    open_ = at_marker_ = full_ = hurry_ = false;
    open_taken_ = open_time_ns_ = open_oldest_ns_ = open_resync_bytes_ = open_mark_ = 0;
    open_positions_.clear();
    folder_.clear();
    parts_ = {};
    budget_ = fold::ResyncBudget(fold_limits);
    open_keep_.clear();
    open_clears_.clear();
}

void Shipper::open_batch() {
    if (open_)
        return;
    open_ = true;
    opened_ns_ = loop::Loop::now_ns();
    observer_->batch_opens();
}

std::uint64_t Shipper::pump() {
    if (!running_)
        return tick_ns * 100;
    fenced_ = false;
    std::uint64_t now = loop::Loop::now_ns();
    for (;;) {
        if (!open_ && observer_->wants_batch())
            open_batch();
        consume_rings();
        now = loop::Loop::now_ns();
        if (!running_ || !open_ || !due(now) || !link_ready())
            break;
        close_batch();
        dispatch();
    }
    give_back_idle();
    if (!running_ || paused_)
        return tick_ns * 10;
    if (open_)
        return due(now) ? tick_ns : std::min(tick_ns, opened_ns_ + limits_.interval_ns - now);
    return merger_.arm() ? 0 : tick_ns / 10;
}

void Shipper::consume_rings() {
    if (paused_)
        return;
    if (held_) {
        if (at_marker_ || full_)
            return;
        if (!take(*held_)) {
            full_ = true;
            return;
        }
        held_.reset();
    }
    capture::CapturedOp op;
    rings_empty_ = false;
    while (running_ && !at_marker_ && !full_ && !(large() && link_ready())) {
        switch (merger_.next(op)) {
            case capture::Merger::Status::op:
                if (!take(op)) {
                    held_ = op;
                    full_ = true;
                }
                break;
            case capture::Merger::Status::idle: rings_empty_ = true; return;
            case capture::Merger::Status::waiting: return;
            case capture::Merger::Status::hole:
                if (std::exchange(fenced_, true) || !observer_->fence(merger_))
                    return;
                break;
            case capture::Merger::Status::bad: {
                const Error why = merger_.error();
                observer_->tracking_broken(why);
                return;
            }
        }
    }
}

bool Shipper::take(const capture::CapturedOp& op) {
    open_batch();
    if (!folder_.fits(op))
        return false;
    if (capture::is_marker(op.op)) {
        at_marker_ = op.op != capture::OpKind::overflow;
        observer_->marker(op);
    } else {
        folder_.add(op);
        if (open_oldest_ns_ == 0)
            open_oldest_ns_ = op.time_ns;
    }
    open_positions_[op.slot] = op.index + 1;
    open_mark_ = op.seq;
    open_time_ns_ = std::max(open_time_ns_, op.time_ns);
    ++open_taken_;
    return true;
}

bool Shipper::large() const noexcept {
    return folder_.payload_in() >= std::min(limits_.bytes, ring_share_bytes_) || open_taken_ >= ring_share_ops_;
}

bool Shipper::due(std::uint64_t now_ns) const noexcept {
    return at_marker_ || hurry_ || full_ || large() || !parts_.epoch_begins.empty() || !parts_.epoch_ends.empty() ||
           !parts_.points.empty() || (open_resync_bytes_ > 0 && !resync_room()) ||
           now_ns >= opened_ns_ + limits_.interval_ns;
}

std::uint64_t Shipper::drain_share(std::uint64_t ns, std::uint64_t min, std::uint64_t max) const noexcept {
    if (drain_rate_ == 0)
        return min;
    return std::clamp(static_cast<std::uint64_t>(static_cast<unsigned __int128>(drain_rate_) * ns / 1'000'000'000U), min, max);
}

bool Shipper::link_ready() const noexcept {
    return out_.size() < proto::batches_unacked_max - 1 && !window_full() &&
           unsent_bytes_ <= drain_share(100'000'000, 512U << 10, 4U << 20);
}

bool Shipper::window_full() const noexcept {
    return !out_.empty() && unacked_bytes_ >= window_bytes_;
}

bool Shipper::resync_room() const noexcept {
    return running_ && !paused_ && !at_marker_ && open_resync_bytes_ < drain_share(250'000'000, 512U << 10, 4U << 20);
}

void Shipper::add_epoch_begin(const proto::EpochBegin& begin) {
    BLKFERRY_ASSERT(open_ && open_taken_ == 0);
    parts_.epoch_begins.push_back(begin);
}

void Shipper::add_epoch_end(const proto::EpochEnd& end) {
    open_batch();
    parts_.epoch_ends.push_back(end);
}

void Shipper::add_point(proto::PointRequest request) {
    BLKFERRY_ASSERT(open_ && parts_.points.size() < proto::batch_points_max);
    parts_.points.push_back(std::move(request));
}

void Shipper::add_resync(const fold::Piece& piece, std::shared_ptr<const void> buffer, std::uint64_t seq0) {
    open_batch();
    BLKFERRY_ASSERT(budget_.take(piece));  // resync_room() bounds the batch far below the protocol's limits
    parts_.resync.push_back(piece);
    if (buffer && (open_keep_.empty() || open_keep_.back() != buffer))
        open_keep_.push_back(std::move(buffer));
    open_clears_.push_back({piece.slot, seq0, piece.extent()});
    open_resync_bytes_ += piece.payload_bytes() + resync_piece_overhead;
    counters_.resync_bytes += std::uint64_t{piece.sectors} * sector_bytes;
    counters_.resync_payload += piece.payload_bytes();
}

bool Shipper::consistent_at(std::uint64_t mark) const noexcept {
    return !rings_.empty() && !incomplete_ &&
           std::ranges::all_of(rings_, [&](const auto& r) { return r.second->status().consistent_at(mark); });
}

void Shipper::close_batch() {
    const std::uint64_t mark = open_taken_ > 0 ? open_mark_ : mark_;
    const bool consistent = consistent_at(mark);
    observer_->batch_closes(mark, consistent);
    const std::uint64_t ops = folder_.ops();
    const std::uint64_t payload_in = folder_.payload_in();
    fold::Folded folded = folder_.finish();
    observer_->batch_wrote(folded);
    counters_.ops += ops;
    counters_.payload_in += payload_in;
    counters_.payload_folded += folded.payload_bytes;
    ++counters_.batches;
    parts_.batch = next_batch_++;
    parts_.begin = {mark_, mark, open_time_ns_};
    auto plan = fold::BatchPlan::make(std::move(folded), std::move(parts_));
    if (!plan)
        panic(plan.error().text, __FILE__, __LINE__);  // every limit was asked for before
    auto batch = std::make_shared<OutBatch>(std::move(*plan), consistent);
    batch->positions = std::move(open_positions_);
    batch->clears = std::move(open_clears_);
    batch->oldest_time_ns = open_oldest_ns_;
    batch->payload_in = payload_in;
    batch->ops = ops;
    batch->charged_bytes = batch->plan().payload_bytes() + batch_overhead_bytes;
    if (!batch->all_encoded()) {
        batch->keep = std::move(open_keep_);
        for (const auto& [slot, ring] : rings_)
            batch->keep.push_back(ring);
    }
    unsent_bytes_ += batch->plan().payload_bytes();
    unacked_bytes_ += batch->charged_bytes;
    mark_ = mark;
    out_.push_back(std::move(batch));
    reset_open();
}

fold::FrameBuffer Shipper::spare_buffer() {
    if (spare_.empty())
        return {};
    fold::FrameBuffer b = std::move(spare_.back());
    spare_.pop_back();
    return b;
}

void Shipper::dispatch() {
    while (encoding_ < out_.size() && frames_ahead_ < pool_.threads() * 2 + 2) {
        const std::shared_ptr<OutBatch> batch = out_[encoding_];
        if (batch->all_dispatched()) {
            ++encoding_;
            continue;
        }
        ++frames_ahead_;
        dispatch_job(batch, batch->dispatch_next());
    }
    if (kick_)
        kick_();
}

void Shipper::dispatch_job(const std::shared_ptr<OutBatch>& batch, std::size_t job) {
    if (batch->plan().payload_bytes() <= inline_payload_bytes) {
        fold::FrameBuffer out = spare_buffer();
        const auto totals =
            batch->plan().encode(job, inline_context_.compressor(compression_), inline_context_.scratch, out);
        batch->encoded(job, std::move(out), totals);
        return;
    }
    struct Shared {
        std::shared_ptr<OutBatch> batch;
        std::vector<std::shared_ptr<const void>> keep;  // the job outlives a session that ends meanwhile
        fold::FrameBuffer out;
        fold::JobTotals totals;
    };
    auto shared = std::make_shared<Shared>(batch, batch->keep, spare_buffer());
    pool_.submit(
        [shared, job, compression = compression_](WorkerContext& context) {
            shared->totals = shared->batch->plan().encode(job, context.compressor(compression), context.scratch, shared->out);
        },
        [this, shared, job, session = session_] {
            if (session != session_)
                return;
            shared->batch->encoded(job, std::move(shared->out), shared->totals);
            if (kick_)
                kick_();
        });
}

void Shipper::send_control(std::vector<std::byte> frame) {
    control_.push_back(std::move(frame));
    if (kick_)
        kick_();
}

std::span<const std::byte> Shipper::front() {
    if (feeding_ == Feeding::none) {
        if (!control_.empty())
            feeding_ = Feeding::control;
        else if (sending_ < out_.size())
            feeding_ = Feeding::batch;
    }
    switch (feeding_) {
        case Feeding::control: return std::span(control_.front()).subspan(control_at_);
        case Feeding::batch: return out_[sending_]->front();
        case Feeding::none: break;
    }
    return {};
}

void Shipper::consume(std::size_t bytes) {
    if (feeding_ == Feeding::control) {
        control_at_ += bytes;
        if (control_at_ == control_.front().size()) {
            control_.pop_front();
            control_at_ = 0;
            feeding_ = Feeding::none;
        }
        return;
    }
    BLKFERRY_ASSERT(feeding_ == Feeding::batch);
    counters_.batch_bytes += bytes;
    OutBatch& batch = *out_[sending_];
    bool released = false;
    const std::size_t job = batch.frame_index();
    fold::FrameBuffer buffer = batch.consume(bytes, released);
    if (released) {
        --frames_ahead_;
        unsent_bytes_ -= batch.plan().job_payload_bytes(job - 1);
        if (spare_.size() < pool_.threads() * 2 + 2)
            spare_.push_back(std::move(buffer));
    }
    if (batch.sent()) {
        ++sending_;
        feeding_ = Feeding::none;
    }
    if (released && encoding_ < out_.size())
        dispatch();
    if ((released || feeding_ == Feeding::none) && room_)
        room_();
}

Result<void> Shipper::on_ack(const proto::Ack& ack) {
    window_bytes_ = ack.window_bytes;
    while (!out_.empty() && out_.front()->number() <= ack.batch) {
        if (sending_ == 0)
            return fail(Errc::conflict, fmt::format("the server acknowledged batch {}, which was not sent", ack.batch));
        const std::shared_ptr<OutBatch> batch = std::move(out_.front());
        out_.pop_front();
        --sending_;
        if (encoding_ > 0)
            --encoding_;
        unacked_bytes_ -= batch->charged_bytes;
        durable_mark_ = batch->mark();
        for (const auto& [slot, index] : batch->positions)
            if (const auto it = rings_.find(slot); it != rings_.end())
                (void)it->second->ack(index);
        counters_.payload_durable += batch->payload_in;
        if (batch->number() == ack.batch && batch->mark() != ack.mark)
            return fail(Errc::conflict, fmt::format("the server acknowledged batch {} at mark {}, sent was mark {}", ack.batch,
                                                    ack.mark, batch->mark()));
        observer_->batch_durable(*batch);
        if (!running_)
            return {};
    }
    if (ack.batch >= next_batch_)
        return fail(Errc::conflict, fmt::format("the server acknowledged batch {}, which does not exist", ack.batch));
    return {};
}

void Shipper::give_back_idle() {
    if (!running_ || held_ || !out_.empty() || open_taken_ > 0 || merger_.dropped() == dropped_seen_)
        return;
    dropped_seen_ = merger_.dropped();
    merger_.ack(merger_.positions());
}

std::uint64_t Shipper::oldest_time_ns() const noexcept {
    for (const auto& batch : out_)
        if (batch->oldest_time_ns != 0)
            return batch->oldest_time_ns;
    if (open_oldest_ns_ != 0)
        return open_oldest_ns_;
    return held_ ? held_->time_ns : 0;
}

std::uint64_t Shipper::backlog_bytes() const noexcept {
    std::uint64_t bytes = folder_.payload_in();
    for (const auto& batch : out_)
        bytes += batch->payload_in;
    return bytes;
}

bool Shipper::drained() const noexcept {
    return out_.empty() && !open_ && !held_;
}

}  // namespace blkferry::agent
