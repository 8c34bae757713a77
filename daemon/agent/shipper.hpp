// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "agent/link.hpp"
#include "agent/out_batch.hpp"
#include "agent/workers.hpp"
#include "capture/merger.hpp"
#include "fold/encoder.hpp"
#include "fold/folder.hpp"
#include "proto/control.hpp"

namespace blkferry::agent {

/// When a batch closes.
struct BatchLimits {
    std::uint64_t interval_ns = 200'000'000;
    std::uint64_t bytes = 8U << 20;  ///< captured payload before folding
};

/// Who joins in while batches are made. Called from the loop's thread, never from inside another call of the shipper but
/// pump() and on_ack().
class ShipperObserver {
public:
    virtual ~ShipperObserver() = default;
    /// Something must go into a batch although the rings hold nothing (an EPOCH_BEGIN is due).
    [[nodiscard]] virtual bool wants_batch() = 0;
    /// A batch is about to take its first operation: EPOCH_BEGINs go in now (Shipper::add_epoch_begin).
    virtual void batch_opens() = 0;
    /// A marker came up; the batch closes at it.
    virtual void marker(const capture::CapturedOp& op) = 0;
    /// The batch closes at `mark`: point requests go in now (Shipper::add_point).
    virtual void batch_closes(std::uint64_t mark, bool consistent) = 0;
    /// Captured sectors of the batch that closes (for a running verification).
    virtual void batch_wrote(const fold::Folded& folded) = 0;
    /// The server holds the batch. Ring space was given back already.
    virtual void batch_durable(const OutBatch& batch) = 0;
    /// A number is missing in all rings although each was looked at: the module broke its promise.
    virtual void tracking_broken(const Error& why) = 0;
    /// Fence the merger (info, list, fence); false: the tracker failed.
    virtual bool fence(capture::Merger& merger) = 0;
};

/// Figures since start; all only grow.
struct ShipperCounters {
    std::uint64_t ops = 0;             ///< captured operations shipped
    std::uint64_t payload_in = 0;      ///< their payload before folding
    std::uint64_t payload_folded = 0;  ///< after folding
    std::uint64_t resync_bytes = 0;    ///< of the disk that a resync covered: shipped, zeroes, or found equal
    std::uint64_t resync_payload = 0;  ///< of them shipped as data, before compression
    std::uint64_t payload_durable = 0; ///< captured payload (before folding) acknowledged
    std::uint64_t batches = 0;
    std::uint64_t batch_bytes = 0;     ///< of batches, handed to the link; without heartbeats and questions
};

/// Makes batches of what the rings hold and ships them: merge, fold, encode in the pool, hand to the link in order.
/// Keeps no data: operations stay in the ring until their batch is acknowledged.
///
///     pump(): merger -> folder ... close -> OutBatch -> encode jobs -> front()/consume() of the link -> on_ack()
///
/// One thread (the loop's).
class Shipper final : public Outbox {
public:
    Shipper(WorkerPool& pool, BatchLimits limits);

    void set_observer(ShipperObserver* observer) noexcept { observer_ = observer; }
    void set_limits(BatchLimits limits) noexcept { limits_ = limits; }
    void set_compression(Compression c) noexcept { compression_ = c; }
    /// Called when front() has something new.
    void set_kick(std::function<void()> kick) { kick_ = std::move(kick); }
    /// Called when the link took something: a batch that waited may close now.
    void set_room(std::function<void()> room) { room_ = std::move(room); }
    /// A protected disk is not attached: no mark is consistent.
    void set_incomplete(bool incomplete) noexcept { incomplete_ = incomplete; }

    void add_ring(std::uint16_t slot, std::shared_ptr<capture::Ring> ring);
    void remove_ring(std::uint16_t slot);

    struct Start {
        std::uint64_t durable_batch = 0;
        std::uint64_t durable_mark = 0;
        std::uint64_t skip_to = 0;  ///< >= durable_mark: operations up to it are not shipped (the dirty maps hold them)
        std::uint64_t window_bytes = 0;
    };
    /// A session begins: what is durable is skipped, everything else starts again at the rings' tails.
    void start(const Start& from);
    /// The session ended: open and unacknowledged batches are forgotten (their data is still in the rings).
    void stop();
    [[nodiscard]] bool running() const noexcept { return running_; }
    /// Paused: nothing new is taken from the rings; what is on its way goes on.
    void set_paused(bool paused) noexcept { paused_ = paused; }

    /// Takes what the rings hold and closes batches that are due. Returns the time in nanoseconds after which it wants to
    /// be called again; 0: the rings were armed, call when one of them wakes.
    [[nodiscard]] std::uint64_t pump();
    /// Makes the open batch close as soon as the link takes it.
    void hurry() noexcept { hurry_ = true; }

    void add_epoch_begin(const proto::EpochBegin& begin);
    void add_epoch_end(const proto::EpochEnd& end);
    void add_point(proto::PointRequest request);
    /// Whether the open batch takes resync data now. Its share is bounded by what the link drains, so that records of the
    /// rings never wait long behind it.
    [[nodiscard]] bool resync_room() const noexcept;
    /// Adds a piece of the epoch `seq0`; `buffer` owns its bytes (null for kinds without payload).
    void add_resync(const fold::Piece& piece, std::shared_ptr<const void> buffer, std::uint64_t seq0);

    /// Sends a frame between batches, in order with them.
    void send_control(std::vector<std::byte> frame);
    /// A control frame was not sent yet.
    [[nodiscard]] bool control_waits() const noexcept { return !control_.empty(); }
    /// Errc::conflict: the server acknowledged what was not sent.
    [[nodiscard]] Result<void> on_ack(const proto::Ack& ack);

    // Outbox
    [[nodiscard]] std::span<const std::byte> front() override;
    void consume(std::size_t bytes) override;

    [[nodiscard]] const ShipperCounters& counters() const noexcept { return counters_; }
    [[nodiscard]] std::uint64_t durable_mark() const noexcept { return durable_mark_; }
    /// Mark of the newest batch that was closed.
    [[nodiscard]] std::uint64_t closed_mark() const noexcept { return mark_; }
    /// CLOCK_REALTIME of the oldest operation taken from the rings and not durable; 0 if there is none.
    [[nodiscard]] std::uint64_t oldest_time_ns() const noexcept;
    /// Captured payload taken from the rings and not durable.
    [[nodiscard]] std::uint64_t backlog_bytes() const noexcept;
    [[nodiscard]] std::size_t unacked_batches() const noexcept { return out_.size(); }
    [[nodiscard]] std::uint64_t unsent_bytes() const noexcept { return unsent_bytes_; }
    /// Nothing open, nothing on the way.
    [[nodiscard]] bool drained() const noexcept;
    /// drained(), and the rings held nothing when they were looked at last.
    [[nodiscard]] bool idle() const noexcept { return drained() && rings_empty_; }
    /// Every batch was sent and waits for the server.
    [[nodiscard]] bool waits_for_server() const noexcept { return !out_.empty() && sending_ == out_.size(); }
    [[nodiscard]] bool window_full() const noexcept;
    /// What the link drained lately, bytes per second (for the share of resync).
    void set_drain_rate(std::uint64_t bytes_per_s) noexcept { drain_rate_ = bytes_per_s; }
    [[nodiscard]] const capture::Merger& merger() const noexcept { return merger_; }

private:
    enum class Feeding : std::uint8_t { none, control, batch };

    void open_batch();
    void consume_rings();
    bool take(const capture::CapturedOp& op);
    [[nodiscard]] bool large() const noexcept;
    [[nodiscard]] bool due(std::uint64_t now_ns) const noexcept;
    [[nodiscard]] bool link_ready() const noexcept;
    [[nodiscard]] std::uint64_t drain_share(std::uint64_t ns, std::uint64_t min, std::uint64_t max) const noexcept;
    void close_batch();
    [[nodiscard]] bool consistent_at(std::uint64_t mark) const noexcept;
    void dispatch();
    void dispatch_job(const std::shared_ptr<OutBatch>& batch, std::size_t job);
    [[nodiscard]] fold::FrameBuffer spare_buffer();
    void measure_rings() noexcept;
    void give_back_idle();
    void reset_open();

    WorkerPool& pool_;
    BatchLimits limits_;
    Compression compression_;
    ShipperObserver* observer_ = nullptr;
    std::function<void()> kick_;
    std::function<void()> room_;
    bool incomplete_ = false;
    bool rings_empty_ = false;

    std::map<std::uint16_t, std::shared_ptr<capture::Ring>> rings_;
    capture::Merger merger_;
    fold::Folder folder_;
    std::optional<capture::CapturedOp> held_;  ///< taken from the merger, did not fit the batch before

    // the open batch
    bool open_ = false;
    bool at_marker_ = false;
    bool full_ = false;
    bool hurry_ = false;
    std::uint64_t opened_ns_ = 0;
    std::uint64_t open_taken_ = 0;  ///< operations of any kind
    std::uint64_t open_time_ns_ = 0;
    std::uint64_t open_oldest_ns_ = 0;
    std::uint64_t open_resync_bytes_ = 0;
    std::uint64_t open_mark_ = 0;
    std::map<std::uint16_t, std::uint64_t> open_positions_;
    fold::BatchParts parts_;
    fold::ResyncBudget budget_;
    std::vector<std::shared_ptr<const void>> open_keep_;
    bool fenced_ = false;  ///< the hole in front of the merger was fenced in this pump
    std::vector<ResyncClear> open_clears_;

    // what is on its way
    std::deque<std::shared_ptr<OutBatch>> out_;
    std::size_t sending_ = 0;     ///< index in out_ of the batch being sent
    std::size_t encoding_ = 0;    ///< index in out_ of the batch being encoded
    std::size_t frames_ahead_ = 0;  ///< encoded or being encoded, not sent
    std::deque<std::vector<std::byte>> control_;
    std::size_t control_at_ = 0;
    Feeding feeding_ = Feeding::none;  ///< whose bytes the link holds: TLS may want the same ones again
    bool running_ = false;
    bool paused_ = false;
    std::uint64_t session_ = 0;   ///< counts start()s: results of older ones are dropped
    std::uint64_t next_batch_ = 1;
    std::uint64_t mark_ = 0;
    std::uint64_t durable_mark_ = 0;
    std::uint64_t window_bytes_ = 0;
    std::uint64_t unacked_bytes_ = 0;
    std::uint64_t unsent_bytes_ = 0;
    std::uint64_t drain_rate_ = 0;
    ShipperCounters counters_;
    std::vector<fold::FrameBuffer> spare_;
    WorkerContext inline_context_;  ///< for batches too small to be worth a thread switch
    std::uint64_t ring_share_bytes_ = ~0ULL;
    std::uint64_t ring_share_ops_ = ~0ULL;
    std::uint64_t dropped_seen_ = 0;
};

}  // namespace blkferry::agent
