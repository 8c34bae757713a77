// SPDX-License-Identifier: Apache-2.0
#include "agent/resync.hpp"

#include <algorithm>
#include <cerrno>

#include <fmt/format.h>

#include "codec/zero.hpp"

namespace blkferry::agent {

namespace {
constexpr std::uint64_t retry_ns = 20'000'000;         ///< of a call that the module asked to repeat
constexpr std::uint64_t round_pause_ns = 100'000'000;  ///< between small rounds
constexpr std::uint64_t read_retry_ns = 5'000'000'000;
constexpr std::uint64_t compare_sectors = proto::hash_block_bytes_max / sector_bytes;
}  // namespace

Resync::Resync(ResyncParts parts, Disk& disk) : parts_(std::move(parts)), disk_(disk) {}

void Resync::say(bool warning, std::string_view what) const {
    parts_.log(warning, fmt::format("disk={} {}", disk_.name, what));
}

bool Resync::whole_owed() const noexcept {
    return disk_.record.sync_attach == disk_.geometry().attach_id;
}

void Resync::owe(bool on, SyncKind kind) {
    disk_.record.sync_attach = on ? disk_.geometry().attach_id : Uuid{};
    disk_.record.sync_kind = kind;
    // Only a label: what is missing is in the module's maps, whatever this file says.
    if (auto r = parts_.registry.update(disk_.record); !r)
        say(true, fmt::format("error=\"{}\"", r.error().text));
}

Result<void> Resync::mark_whole() {
    const auto st = disk_.ring->status();
    if (std::max(st.active_blocks, st.snap_blocks) >= disk_.geometry().blocks())
        return {};
    return parts_.tracker.mark_dirty(disk_.id, {});
}

Result<void> Resync::session_started(DiskPlan plan, bool known, std::uint64_t from_mark) {
    forget_reads();
    known_ = known;
    seq0_ = 0;
    cause_.clear();
    next_try_ns_ = 0;
    if (plan != DiskPlan::carry_on) {
        BLKFERRY_TRY(mark_whole());
        owe(true, plan == DiskPlan::whole_initial ? SyncKind::initial : SyncKind::rescan);
    }
    const auto st = disk_.ring->status();
    phase_ = Phase::settled;
    if (st.state == capture::DiskState::resync) {
        // Left by an older session or agent: what its snapshot map still holds is announced again.
        seq0_ = st.epoch_seq;
        drained_ = (st.flags & BLKFERRY_CTL_DRAINING) == 0;
        switch_passed_ = st.epoch_seq <= from_mark;
        phase_ = switch_passed_ ? Phase::announcing : Phase::switching;
    }
    return {};
}

void Resync::session_ended() {
    forget_reads();
    phase_ = Phase::off;
}

void Resync::forget_reads() {
    epoch_alive_ = std::make_shared<bool>(true);
    ready_.clear();
    retries_.clear();
    durable_.clear();
    reads_ = compares_ = 0;
    cursor_block_ = 0;
    cursor_end_ = false;
}

Result<void> Resync::demand_rescan(const std::string& why) {
    say(true, fmt::format("event=rescan reason=\"{}\"", why));
    BLKFERRY_TRY(parts_.tracker.mark_dirty(disk_.id, {}));
    owe(true, known_ ? SyncKind::rescan : SyncKind::initial);
    owed_anew_ = true;
    return {};
}

void Resync::untracked(const std::string& why) {
    say(true, fmt::format("event=untracked reason=\"{}\"", why));
    if (auto r = demand_rescan(why); !r)
        cause_ = r.error().text;
}

void Resync::want(std::string_view why) {
    forget_reads();
    if (!routine())
        say(false, fmt::format("event=gap_open reason=\"{}\"", why));
    phase_ = Phase::wanted;
    seq0_ = 0;
    switch_passed_ = drained_ = false;
}

void Resync::look_at_module(const capture::RingStatus& st) {
    using capture::DiskState;
    if (st.state == DiskState::stopped) {
        cause_ = (st.flags & BLKFERRY_CTL_GONE) != 0 ? "the disk was removed" : "the disk is not tracked any more";
        return;
    }
    if ((st.flags & BLKFERRY_CTL_UNTRACKED) != 0)
        untracked("a write bypassed tracking (passthrough, or an event that the kernel may have skipped)");
    const bool epoch = phase_ == Phase::switching || phase_ == Phase::announcing || phase_ == Phase::reading ||
                       phase_ == Phase::ending || phase_ == Phase::closing;
    if (st.state == DiskState::bitmap && (epoch || phase_ == Phase::settled))
        want(epoch          ? "the ring was full during a resync"
             : whole_owed() ? "the whole disk is to be synced"
                            : "the ring was full");
    else if (phase_ == Phase::settled && st.gap_seq != 0 && loop::Loop::now_ns() >= cycle_due_ns_)
        want("a write had no room or no payload in the ring");
}

void Resync::step() {
    if (phase_ == Phase::off)
        return;
    const auto st = disk_.ring->status();
    look_at_module(st);
    if (st.state == capture::DiskState::stopped)
        return;
    switch (phase_) {
        case Phase::wanted: begin(); break;
        case Phase::switching:
        case Phase::announcing:
            if (!drained_)
                begin();
            break;
        case Phase::reading:
            if (!drained_)
                begin();
            if (phase_ == Phase::reading)
                read_on();
            break;
        case Phase::closing: close_gap(); break;
        case Phase::off:
        case Phase::settled:
        case Phase::ending: break;
    }
}

void Resync::begin() {
    const std::uint64_t now = loop::Loop::now_ns();
    if (now < next_try_ns_ || !parts_.shipper.running())
        return;
    const bool fresh = phase_ == Phase::wanted;
    // Nothing is added to the ring in BITMAP: let it run empty, so that the epoch starts with all of its room.
    if (fresh && disk_.ring->status().state == capture::DiskState::bitmap && (!disk_.ring->refresh() || disk_.ring->pending() > 0))
        return;
    const auto seq0 = parts_.tracker.resync_begin(disk_.id);
    if (seq0) {
        drained_ = true;
        if (fresh) {
            seq0_ = *seq0;
            phase_ = Phase::switching;
            ++epochs_;
            if (const std::uint64_t cycle = parts_.options.cycle_ns; cycle != 0)
                cycle_due_ns_ = (now / cycle + 1) * cycle;
        }
        cause_.clear();
        return;
    }
    next_try_ns_ = now + retry_ns;
    const int err = seq0.error().sys_errno;
    if (err == EAGAIN && fresh) {
        // The epoch exists; its drain goes on.
        seq0_ = disk_.ring->status().epoch_seq;
        if (seq0_ != 0) {
            phase_ = Phase::switching;
            ++epochs_;
        }
    } else if (err != EAGAIN && err != ENOSPC) {
        cause_ = seq0.error().text;
        next_try_ns_ = now + 1'000'000'000;
    }
}

void Resync::switch_seen(std::uint64_t seq) {
    const auto st = disk_.ring->status();
    if (phase_ != Phase::switching || st.state != capture::DiskState::resync || st.epoch_seq != seq)
        return;  // of an epoch that an overflow ended
    seq0_ = seq;
    switch_passed_ = true;
    phase_ = Phase::announcing;
}

void Resync::batch_opens() {
    if (phase_ != Phase::announcing)
        return;
    const auto summary = disk_.ring->snapshot_summary();
    const bool all = summary.sectors == disk_.geometry().nr_sectors;
    announced_ = {disk_.slot(), proto::EpochKind::gap, disk_.geometry().block_shift, seq0_, summary.sectors, summary.digest};
    if (whole_owed() && disk_.record.sync_kind == SyncKind::rescan)
        announced_.kind = proto::EpochKind::rescan;
    else if (whole_owed() && (all || !known_))
        announced_.kind = proto::EpochKind::initial;
    parts_.shipper.add_epoch_begin(announced_);
    forget_reads();
    owed_anew_ = false;
    phase_ = Phase::reading;
    if (!routine())
        say(false, fmt::format("event=epoch_begin kind={} seq0={} bytes={}", to_string(announced_.kind), seq0_,
                               summary.sectors * sector_bytes));
}

bool Resync::comparable(const Extent& e) const noexcept {
    return announced_.kind == proto::EpochKind::rescan && e.sector % compare_sectors == 0 &&
           (e.count == compare_sectors || e.end() == disk_.geometry().nr_sectors);
}

/// The next piece to read: never across a compare boundary in a rescan.
bool Resync::next_extent(Extent& extent) {
    if (cursor_end_)
        return false;
    const std::uint64_t block = disk_.geometry().block_sectors();
    std::uint64_t max = parts_.options.read_bytes / sector_bytes;
    if (announced_.kind == proto::EpochKind::rescan)
        max = compare_sectors - (cursor_block_ * block) % compare_sectors;
    capture::SnapshotCursor cursor(*disk_.ring, cursor_block_);
    if (!cursor.next(extent, max)) {
        cursor_end_ = true;
        return false;
    }
    const std::uint64_t boundary = (extent.sector / compare_sectors + 1) * compare_sectors;
    if (announced_.kind == proto::EpochKind::rescan && extent.end() > boundary)
        extent.count = boundary - extent.sector;
    cursor_block_ = (extent.end() + block - 1) / block;
    return true;
}

void Resync::read_on() {
    if (!drained_)
        return;
    flush_ready();
    const std::uint64_t now = loop::Loop::now_ns();
    while (!retries_.empty() && retries_.front().at_ns <= now && reads_ < parts_.options.queue_depth) {
        const Extent e = retries_.front().extent;
        // Without a buffer read() puts it back at the front: it waits for room as the others do.
        if (parts_.pool.full(static_cast<std::size_t>(e.count * sector_bytes)))
            break;
        retries_.pop_front();
        read(e);
    }
    while (reads_ + compares_ < parts_.options.queue_depth && ready_.size() < parts_.options.queue_depth) {
        const std::size_t size =
            announced_.kind == proto::EpochKind::rescan ? proto::hash_block_bytes_max : parts_.options.read_bytes;
        if (parts_.pool.full(size))
            break;
        Extent e;
        if (!next_extent(e))
            break;
        read(e);
    }
    end_if_done();
}

void Resync::read(Extent extent) {
    auto buffer = parts_.pool.take(static_cast<std::size_t>(extent.count * sector_bytes));
    if (!buffer) {
        retries_.push_front({extent, 0});
        return;
    }
    ++reads_;
    disk_.reader->read(extent, buffer, [this, extent, buffer, alive = std::weak_ptr<bool>(epoch_alive_)](Result<void> r) mutable {
        if (alive.expired())
            return;
        --reads_;
        if (r)
            have_data(extent, std::move(buffer));
        else
            read_failed(extent, r.error());
        if (phase_ == Phase::reading)
            read_on();
    });
}

void Resync::read_failed(Extent extent, const Error& error) {
    const std::uint64_t block = disk_.geometry().block_sectors();
    if (cause_.empty())
        say(true, fmt::format("event=read_error sector={} sectors={} error=\"{}\"", extent.sector, extent.count, error.text));
    cause_ = fmt::format("source read error at sector {}: {}", extent.sector, error.text);
    if (extent.count <= block) {
        retries_.push_back({extent, loop::Loop::now_ns() + read_retry_ns});
        return;
    }
    // Halves on block boundaries, at once: what can be read is shipped, what cannot is known to the block.
    const std::uint64_t blocks = (extent.count + block - 1) / block;
    const std::uint64_t left = std::min((blocks + 1) / 2 * block, extent.count);
    if (left < extent.count)
        retries_.push_front({{extent.sector + left, extent.count - left}, 0});
    retries_.push_front({{extent.sector, left}, 0});
}

void Resync::have_data(Extent extent, std::shared_ptr<std::byte> data) {
    if (!comparable(extent)) {
        const std::byte* bytes = data.get();
        // Seen here, zeroes take no room in the batch and give their buffer back at once; data ends the look at its first bytes.
        if (is_zero({bytes, static_cast<std::size_t>(extent.count * sector_bytes)})) {
            add(extent, proto::ExtentKind::resync_zero, nullptr, nullptr);
            return;
        }
        add(extent, proto::ExtentKind::resync_data, bytes, std::move(data));
        return;
    }
    ++compares_;
    compare_block(parts_.hashes, disk_.slot(), extent, data,
                  [this, extent, data, alive = std::weak_ptr<bool>(epoch_alive_)](std::vector<Extent> differs) {
                      if (alive.expired())
                          return;
                      --compares_;
                      have_compared(extent, data, differs);
                      if (phase_ == Phase::reading)
                          read_on();
                  });
}

void Resync::have_compared(Extent extent, const std::shared_ptr<std::byte>& data, const std::vector<Extent>& differs) {
    std::uint64_t at = extent.sector;
    for (const Extent& d : differs) {
        if (d.sector > at)
            add({at, d.sector - at}, proto::ExtentKind::resync_same, nullptr, nullptr);
        add(d, proto::ExtentKind::resync_data, data.get() + (d.sector - extent.sector) * sector_bytes, data);
        at = d.end();
    }
    if (at < extent.end())
        add({at, extent.end() - at}, proto::ExtentKind::resync_same, nullptr, nullptr);
}

void Resync::add(Extent extent, proto::ExtentKind kind, const std::byte* data, std::shared_ptr<const void> owner) {
    ready_.push_back({{extent.sector, data, static_cast<std::uint32_t>(extent.count), disk_.slot(), kind}, std::move(owner)});
}

void Resync::flush_ready() {
    // Only what was handed over is news: without room the shipper is already at it, and tells when a batch has closed.
    if (!ready_.empty() && parts_.shipper.resync_room())
        parts_.changed();
    while (!ready_.empty() && parts_.shipper.resync_room()) {
        Ready r = std::move(ready_.front());
        ready_.pop_front();
        parts_.shipper.add_resync(r.piece, std::move(r.owner), seq0_);
    }
}

void Resync::end_if_done() {
    if (!cursor_end_ || reads_ + compares_ > 0 || !ready_.empty() || !retries_.empty())
        return;
    cause_.clear();
    parts_.changed();
    parts_.shipper.add_epoch_end({disk_.slot(), seq0_, announced_.sectors, announced_.digest});
    phase_ = Phase::ending;
}

void Resync::batch_durable(const OutBatch& batch) {
    if (seq0_ == 0 || (phase_ != Phase::reading && phase_ != Phase::ending && phase_ != Phase::closing))
        return;
    // Between this look and RESYNC_CLEAR an overflow may empty the snapshot map: then the call clears nothing. A new snapshot
    // map is only made by begin(), which changes seq0_.
    if (disk_.ring->status().epoch_seq != seq0_)
        return;
    bool any = false;
    for (const ResyncClear& c : batch.clears)
        if (c.slot == disk_.slot() && c.seq0 == seq0_) {
            durable_.insert(c.extent);
            any = true;
        }
    if (!any)
        return;
    const std::uint64_t block = disk_.geometry().block_sectors();
    std::vector<Extent> whole;
    for (const Extent& run : durable_.list()) {
        const std::uint64_t first = (run.sector + block - 1) / block * block;
        const std::uint64_t end = run.end() == disk_.geometry().nr_sectors ? run.end() : run.end() / block * block;
        if (first < end)
            whole.push_back({first, end - first});
    }
    if (whole.empty())
        return;
    if (auto r = parts_.tracker.resync_clear(disk_.id, whole, seq0_); !r) {
        say(true, fmt::format("event=resync_clear_failed error=\"{}\"", r.error().text));
        return;  // kept in durable_: tried again with the next batch
    }
    for (const Extent& run : whole)
        durable_.erase(run);
}

void Resync::epoch_result(const proto::EpochResult& result) {
    if (phase_ != Phase::ending || result.seq0 != seq0_)
        return;
    if (!result.ok) {
        if (auto r = demand_rescan(fmt::format("the server refused the end of the resync: {}", result.text)); !r)
            cause_ = r.error().text;
    } else {
        known_ = true;
        if (whole_owed() && !owed_anew_)
            owe(false, disk_.record.sync_kind);
    }
    phase_ = Phase::closing;
    next_try_ns_ = 0;
    close_gap();
}

void Resync::close_gap() {
    const std::uint64_t now = loop::Loop::now_ns();
    if (now < next_try_ns_)
        return;
    const auto cut = parts_.tracker.resync_end(disk_.id);
    if (cut) {
        if (!routine())
            say(false, fmt::format("event=gap_closed seq={}", *cut));
        ++rounds_;
        phase_ = Phase::settled;
        seq0_ = 0;
        cause_.clear();
        next_try_ns_ = now + round_pause_ns;
        return;
    }
    next_try_ns_ = now + retry_ns;
    switch (cut.error().sys_errno) {
        case EAGAIN:  // bits were set meanwhile: one more, small round
            forget_reads();
            ++rounds_;
            phase_ = parts_.options.cycle_ns != 0 ? Phase::settled : Phase::wanted;  // settled: until the next round is due
            seq0_ = 0;
            drained_ = switch_passed_ = false;
            next_try_ns_ = now + round_pause_ns;
            break;
        case EBUSY:  // the snapshot map is not empty: what it holds was not announced, so announce it
            say(true, "event=resync_incomplete");
            phase_ = Phase::announcing;
            break;
        case ENOSPC: parts_.shipper.hurry(); break;
        default: cause_ = cut.error().text; break;
    }
}

Resync::Progress Resync::progress() const {
    const auto st = disk_.ring->status();
    Progress p;
    p.whole = whole_owed();
    p.kind = disk_.record.sync_kind;
    p.active = p.whole || st.state == capture::DiskState::bitmap || st.state == capture::DiskState::resync || st.gap_seq != 0;
    const std::uint64_t left = (st.active_blocks + st.snap_blocks) * disk_.block_bytes();
    const std::uint64_t size = disk_.geometry().nr_sectors * sector_bytes;
    p.total_bytes = p.whole ? size : announced_.sectors * sector_bytes;
    if (phase_ == Phase::wanted || phase_ == Phase::off)
        p.total_bytes = p.whole ? size : left;
    p.done_bytes = p.total_bytes - std::min(p.total_bytes, left);
    return p;
}

}  // namespace blkferry::agent
