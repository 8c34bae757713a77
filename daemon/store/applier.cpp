// SPDX-License-Identifier: Apache-2.0
#include "store/applier.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "base/hash.hpp"

namespace blkferry::store {

using proto::ExtentKind;
using proto::FrameType;

namespace {
/// What each disk of a source with very many disks has: of open files, and of pages per map. Up to few_disks all have all pages.
constexpr std::size_t open_files_least = 4;
constexpr std::size_t map_pages_least = 2;
constexpr std::size_t few_disks = 8;
constexpr std::string_view no_parent = "0000000000000000000000000000000000000000000000000000000000000000";

std::unexpected<Error> corrupt(Position at, std::string_view why) {
    return fail(Errc::corrupt, fmt::format("journal at position {}: {}", at, why));
}
}  // namespace

Applier::Applier(FileSystem& files, const Clock& clock, const SnapshotEngine& engine, PointStore& points,
                 std::filesystem::path dir, const Uuid& store, std::string source, Options options,
                 Checkpoint checkpoint, HandOff* hand_off)
    : files_(files),
      clock_(clock),
      engine_(engine),
      points_(points),
      dir_(std::move(dir)),
      store_(store),
      source_(std::move(source)),
      options_(options),
      state_(std::move(checkpoint)),
      stored_(state_),
      opened_generation_(state_.generation),
      entries_(files, dir_ / "journal", store, hand_off),
      stored_at_ns_(clock.monotonic_ns()) {}

Result<std::unique_ptr<Applier>> Applier::open(FileSystem& files, const Clock& clock, const SnapshotEngine& engine,
                                               PointStore& points, std::filesystem::path dir, const Uuid& store,
                                               std::string source, Options options, Checkpoint checkpoint,
                                               HandOff* hand_off) {
    std::unique_ptr<Applier> applier(new Applier(files, clock, engine, points, std::move(dir), store, std::move(source),
                                                 options, std::move(checkpoint), hand_off));
    BLKFERRY_TRY(applier->restore());
    return applier;
}

Result<void> Applier::restore() {
    BLKFERRY_TRY(files_.make_dir(dir_ / "disks"));
    BLKFERRY_TRY(files_.make_dir(dir_ / "maps"));
    for (const auto& [slot, disk] : state_.table.disks()) {
        BLKFERRY_TRY_ASSIGN(const DiskStore* opened, disk_store(slot));
        (void)opened;
    }
    BLKFERRY_TRY(restore_maps());
    return publish_pending();
}

/// Of what a source may hold open or in memory, for one of its disks: a source with 256 disks takes no more than one with a few.
std::size_t Applier::share(std::size_t of_source, std::size_t least) const noexcept {
    return std::max(of_source / std::max<std::size_t>(state_.table.disks().size(), 1), std::min(of_source, least));
}

std::size_t Applier::map_pages() const noexcept {
    return std::min(options_.map_pages_max, share(options_.map_pages_max * few_disks, map_pages_least));
}

std::filesystem::path Applier::map_path(std::uint16_t slot, Position epoch, const char* kind) const {
    return dir_ / "maps" / fmt::format("{:03}.{:016x}.{}", slot, epoch, kind);
}

Result<void> Applier::restore_maps() {
    BLKFERRY_TRY_ASSIGN(const std::vector<std::string> names, files_.list(dir_ / "maps"));
    std::vector<std::filesystem::path> used;
    const std::size_t pages = map_pages();
    for (const auto& [slot, disk] : state_.table.disks()) {
        if (!disk.epoch)
            continue;
        DiskStore& d = disks_.at(slot);
        d.epoch = disk.epoch->position;
        used.push_back(map_path(slot, d.epoch, "newer"));
        used.push_back(map_path(slot, d.epoch, "received"));
        BLKFERRY_TRY_ASSIGN(d.newer, SectorMap::open(files_, used[used.size() - 2], SectorMap::Damaged::full, pages));
        BLKFERRY_TRY_ASSIGN(d.received, SectorMap::open(files_, used.back(), SectorMap::Damaged::empty, pages));
    }
    for (const std::string& name : names)
        if (std::ranges::find(used, dir_ / "maps" / name) == used.end())
            BLKFERRY_TRY(files_.remove(dir_ / "maps" / name));
    return {};
}

Result<Applier::DiskStore*> Applier::disk_store(std::uint16_t slot) {
    const auto it = disks_.find(slot);
    if (it != disks_.end())
        return &it->second;
    DiskStore d;
    BLKFERRY_TRY_ASSIGN(d.chunks, ChunkStore::open(files_, dir_ / "disks" / fmt::format("{:03}", slot), engine_,
                                                   {.chunk_bytes = state_.chunk_bytes,
                                                    .open_files_max = share(options_.open_files_max, open_files_least),
                                                    .direct_bytes_min = options_.direct_bytes_min},
                                                   state_.generation));
    return &disks_.emplace(slot, std::move(d)).first->second;
}

Result<ApplyReport> Applier::apply_some(Position limit, std::uint64_t budget_bytes) {
    if (failed_)
        return fail(Errc::io, fmt::format("applying source {} stopped at an error: open it again", source_));
    ApplyReport report;
    const std::uint64_t began_ns = clock_.monotonic_ns();
    while (state_.position < limit && report.bytes < budget_bytes && clock_.monotonic_ns() - began_ns < options_.turn_ns) {
        const Position before = state_.position;
        auto r = apply_step(limit, report);
        if (r && (!state_.pending.empty() || checkpoint_due())) {
            r = store_checkpoint();
            report.checkpointed = true;
        }
        if (!r) {
            failed_ = true;
            return std::unexpected(std::move(r).error().with(fmt::format("source {}", source_)));
        }
        report.bytes += state_.position - before;
    }
    report.idle = state_.position >= limit;
    return report;
}

Result<void> Applier::apply_step(Position limit, ApplyReport& report) {
    BLKFERRY_TRY_ASSIGN(const JournalEntry head, entries_.next(state_.position, limit));
    switch (head.type) {
        case EntryType::session: BLKFERRY_TRY(apply_session(head.body)); break;
        case EntryType::point: {
            BLKFERRY_TRY_ASSIGN(PointEntry point, decode_point_entry(head.body));
            make_point(true, point.request, point.kind, std::move(point.name), report);
            break;
        }
        case EntryType::frame: {
            BLKFERRY_TRY_ASSIGN(const EntrySource::BatchEnd end, entries_.batch_end(head, limit));
            if (!end.is_void)
                BLKFERRY_TRY(apply_batch(head.position, end.position, report));
            state_.position = end.position;
            return {};
        }
        case EntryType::pad: break;
    }
    state_.position = head.end;
    return {};
}

Result<void> Applier::apply_batch(Position begin, Position end, ApplyReport& report) {
    requests_.clear();
    for (Position at = begin; at < end;) {
        BLKFERRY_TRY_ASSIGN(const JournalEntry entry, entries_.next(at, end));
        if (entry.type != EntryType::frame)
            return corrupt(entry.position, "a frame of a batch is expected");
        BLKFERRY_TRY(apply_frame(entry, report));
        at = entry.end;
    }
    ++report.batches;
    return {};
}

Result<void> Applier::apply_frame(const JournalEntry& entry, ApplyReport& report) {
    const proto::FrameHeader& header = entry.header;
    if (header.batch != state_.batch + 1)
        return corrupt(entry.position, fmt::format("batch {} follows batch {}", header.batch, state_.batch));
    switch (header.type) {
        case FrameType::batch_begin: {
            BLKFERRY_TRY_ASSIGN(batch_, proto::decode_batch_begin(entry.body));
            return {};
        }
        case FrameType::extents: return apply_extents(entry.body);
        case FrameType::epoch_begin: return begin_epoch(entry.body, entry.position);
        case FrameType::epoch_end: return end_epoch(entry.body, entry.position, report);
        case FrameType::point_request: {
            BLKFERRY_TRY_ASSIGN(proto::PointRequest request, proto::decode_point_request(entry.body));
            requests_.push_back(std::move(request));
            return {};
        }
        case FrameType::batch_end: return end_batch(entry.body, report);
        case FrameType::hello:
        case FrameType::welcome:
        case FrameType::ack:
        case FrameType::epoch_result:
        case FrameType::point_result:
        case FrameType::hash_ask:
        case FrameType::hash_reply:
        case FrameType::heartbeat:
        case FrameType::error:
        case FrameType::cert_request:
        case FrameType::cert_reply:
        case FrameType::retire: break;
    }
    return corrupt(entry.position, fmt::format("{} in a batch", to_string(header.type)));
}

Result<void> Applier::apply_extents(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const proto::ExtentsView view, proto::decode_extents(body));
    std::span<const std::byte> payload = view.payload;
    Run run;
    for (const proto::ExtentEntry& e : view.entries) {
        const auto data = payload.first(e.payload_bytes());
        payload = payload.subspan(data.size());
        const ExtentKind kind = e.kind == ExtentKind::discard ? ExtentKind::zero : e.kind;
        if (run.extent.count > 0 && run.slot == e.slot && run.kind == kind && run.extent.end() == e.extent.sector) {
            run.extent.count += e.extent.count;
            run.data = {run.data.data(), run.data.size() + data.size()};
            continue;
        }
        BLKFERRY_TRY(apply_run(run));
        run = {e.slot, kind, e.extent, data};
    }
    return apply_run(run);
}

Result<void> Applier::apply_run(const Run& run) {
    if (run.extent.count == 0)
        return {};
    const Disk* disk = state_.table.find(run.slot);
    if (disk == nullptr || run.extent.end() > disk->info.sectors)
        return fail(Errc::corrupt, fmt::format("journal holds an extent for disk slot {} at sector {} outside of the disk",
                                               run.slot, run.extent.sector));
    BLKFERRY_TRY_ASSIGN(DiskStore * d, disk_store(run.slot));
    if (!proto::is_resync(run.kind)) {
        if (d->newer)
            BLKFERRY_TRY(d->newer->set(run.extent));
        return run.kind == ExtentKind::data ? d->chunks->write(run.extent, run.data) : d->chunks->zero(run.extent);
    }
    if (!d->newer)
        return fail(Errc::corrupt, fmt::format("journal holds resync data for disk slot {} outside of an epoch", run.slot));
    BLKFERRY_TRY(d->received->set(run.extent));
    if (run.kind == ExtentKind::resync_same)
        return {};
    // Whatever was captured since the epoch began is newer, in whatever order it came.
    BLKFERRY_TRY_ASSIGN(const std::vector<Extent> parts, d->newer->missing(run.extent));
    for (const Extent& part : parts) {
        if (run.kind == ExtentKind::resync_zero) {
            BLKFERRY_TRY(d->chunks->zero(part));
        } else {
            const std::uint64_t skip = (part.sector - run.extent.sector) * sector_bytes;
            BLKFERRY_TRY(d->chunks->write(part, run.data.subspan(static_cast<std::size_t>(skip),
                                                                 static_cast<std::size_t>(part.count * sector_bytes))));
        }
    }
    return {};
}

Result<void> Applier::apply_session(std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const Session session, decode_session(body));
    std::map<std::uint16_t, std::uint64_t> sizes;
    for (const auto& [slot, disk] : state_.table.disks())
        sizes[slot] = disk.info.sectors;
    BLKFERRY_TRY(state_.table.begin_session(session));
    for (const auto& [slot, disk] : state_.table.disks()) {
        BLKFERRY_TRY_ASSIGN(const DiskStore* d, disk_store(slot));
        if (d->newer && !disk.epoch)
            drop_maps(slot);
        const auto old = sizes.find(slot);
        if (old != sizes.end() && old->second > disk.info.sectors)
            BLKFERRY_TRY(d->chunks->zero({disk.info.sectors, old->second - disk.info.sectors}));
    }
    return {};
}

void Applier::drop_maps(std::uint16_t slot) {
    DiskStore& d = disks_.at(slot);
    d.newer.reset();
    d.received.reset();
    old_maps_.push_back(map_path(slot, d.epoch, "newer"));
    old_maps_.push_back(map_path(slot, d.epoch, "received"));
}

Result<void> Applier::begin_epoch(std::span<const std::byte> body, Position position) {
    BLKFERRY_TRY_ASSIGN(const proto::EpochBegin m, proto::decode_epoch_begin(body));
    Disk* disk = state_.table.find(m.slot);
    if (disk == nullptr)
        return corrupt(position, fmt::format("EPOCH_BEGIN for unknown disk slot {}", m.slot));
    BLKFERRY_TRY_ASSIGN(DiskStore * d, disk_store(m.slot));
    if (d->newer)
        drop_maps(m.slot);
    d->epoch = position;
    maps_changed_ = true;
    const std::size_t pages = map_pages();
    BLKFERRY_TRY_ASSIGN(d->newer, SectorMap::create(files_, map_path(m.slot, position, "newer"), SectorMap::Damaged::full, pages));
    BLKFERRY_TRY_ASSIGN(d->received, SectorMap::create(files_, map_path(m.slot, position, "received"), SectorMap::Damaged::empty, pages));
    state_.table.begin_epoch(*disk, m, position);
    return {};
}

Result<void> Applier::end_epoch(std::span<const std::byte> body, Position position, ApplyReport& report) {
    BLKFERRY_TRY_ASSIGN(const proto::EpochEnd m, proto::decode_epoch_end(body));
    Disk* disk = state_.table.find(m.slot);
    if (disk == nullptr || (!disk->epoch && (!disk->last || disk->last->seq0 != m.seq0)))
        return corrupt(position, fmt::format("EPOCH_END for disk slot {}, which has no open epoch", m.slot));
    if (disk->epoch) {
        DiskStore& d = disks_.at(m.slot);
        BLKFERRY_TRY_ASSIGN(const SectorMap::Summary got, d.received->summary());
        const proto::EpochBegin& begin = disk->epoch->begin;
        const SectorMap::Summary announced{begin.sectors, begin.digest};
        EpochOutcome outcome{.seq0 = m.seq0, .position = position, .known = true, .ok = true, .text = {}};
        BLKFERRY_TRY_ASSIGN(const bool damaged, d.newer->any_damaged());
        if (damaged) {
            outcome.ok = false;
            outcome.text = "a map of captured sectors was damaged on the server's disk: what came was not applied in full";
        } else if (got != announced || got != SectorMap::Summary{m.sectors, m.digest}) {
            outcome.ok = false;
            outcome.text = fmt::format("{} sectors (digest {:016x}) came, EPOCH_BEGIN announced {} ({:016x}), EPOCH_END {} "
                                       "({:016x})",
                                       got.sectors, got.digest, announced.sectors, announced.digest, m.sectors, m.digest);
        }
        drop_maps(m.slot);
        state_.table.end_epoch(*disk, std::move(outcome));
    }
    report.epochs.push_back({m.slot, disk->last->ok, disk->last->seq0, disk->last->text});
    return {};
}

Result<void> Applier::end_batch(std::span<const std::byte> body, ApplyReport& report) {
    BLKFERRY_TRY_ASSIGN(const proto::BatchEnd m, proto::decode_batch_end(body));
    ++state_.batch;
    state_.mark = batch_.mark;
    state_.mark_time_ns = batch_.time_ns;
    state_.consistent = m.consistent;
    for (proto::PointRequest& request : requests_)
        make_point(false, request.request, request.kind, std::move(request.name), report);
    requests_.clear();
    return {};
}

std::string Applier::why_no_point(const std::string& name) const {
    if (points_.find(name).has_value() ||
        std::ranges::any_of(state_.pending, [&](const Manifest& m) { return m.name == name; }))
        return fmt::format("recovery point {} exists already", name);
    for (const auto& [slot, disk] : state_.table.disks()) {
        if (disk.present && disk.epoch)
            return fmt::format("disk slot {} ({}) has an open resync epoch", slot, disk.info.name);
        if (disk.present && !disk.synced)
            return fmt::format("disk slot {} ({}) has not been synchronized yet", slot, disk.info.name);
    }
    if (!state_.table.settled())
        return "no disk is protected";
    if (!state_.consistent)
        return fmt::format("mark {} lies in a gap: writes before it are not all here yet", state_.mark);
    return {};
}

void Applier::make_point(bool from_server, std::uint64_t request, proto::PointKind kind, std::string name,
                         ApplyReport& report) {
    if (name.empty())
        name = fmt::format("mark-{:020}-{}", state_.mark, state_.head_serial + 1);
    PointOutcome outcome{from_server, {.request = request, .mark = state_.mark, .ok = false, .name = name, .text = {}}};
    outcome.result.text = why_no_point(name);
    if (!from_server && outcome.result.text.empty() && points_.size() + state_.pending.size() >= options_.points_max)
        outcome.result.text = fmt::format("the source has {} recovery points, no more are made on request: remove some", points_.size());
    outcome.result.ok = outcome.result.text.empty();
    outcome.result.text.resize(std::min(outcome.result.text.size(), proto::text_bytes_max));
    report.points.push_back(outcome);
    if (!outcome.result.ok)
        return;
    Manifest m;
    m.serial = state_.head_serial + 1;
    m.name = std::move(name);
    m.source = source_;
    m.source_id = state_.table.source_id;
    m.store = store_;
    m.batch = state_.batch;
    m.mark = state_.mark;
    m.mark_time_ns = state_.mark_time_ns;
    m.made_ns = clock_.realtime_ns();
    m.kind = kind;
    m.scheduled = from_server;
    m.parent_hash = state_.head_hash.empty() ? std::string(no_parent) : state_.head_hash;
    for (const auto& [slot, disk] : state_.table.disks())
        if (disk.present)
            m.disks.push_back({slot, disk.info.disk_id, disk.info.name, disk.info.identity, disk.info.sectors,
                               disk.info.logical_block, state_.chunk_bytes, state_.generation});
    state_.head_serial = m.serial;
    state_.head_hash = m.hash();
    state_.pending.push_back(std::move(m));
    ++state_.generation;
    for (auto& [slot, d] : disks_)
        d.chunks->raise(state_.generation);
}

bool Applier::checkpoint_due() const {
    const std::uint64_t bytes = state_.position - stored_.position;
    return bytes >= options_.checkpoint_bytes ||
           (bytes > 0 && clock_.monotonic_ns() - stored_at_ns_ >= options_.checkpoint_ns);
}

Result<void> Applier::store_checkpoint() {
    for (auto& [slot, d] : disks_) {
        BLKFERRY_TRY(d.chunks->sync());
        if (d.newer) {
            BLKFERRY_TRY(d.newer->sync());
            BLKFERRY_TRY(d.received->sync());
        }
    }
    if (maps_changed_)
        BLKFERRY_TRY(files_.sync_dir(dir_ / "maps"));
    maps_changed_ = false;
    BLKFERRY_TRY(files_.write_text_durable(dir_ / "checkpoint.json", encode(state_)));
    stored_ = state_;
    stored_at_ns_ = clock_.monotonic_ns();
    for (const auto& path : old_maps_)
        BLKFERRY_TRY(files_.remove(path));
    old_maps_.clear();
    return publish_pending();
}

Result<void> Applier::publish_pending() {
    while (!state_.pending.empty()) {
        BLKFERRY_TRY(points_.publish(state_.pending.front()));
        published_.push_back(std::move(state_.pending.front()));
        state_.pending.erase(state_.pending.begin());
    }
    return {};
}

Result<void> Applier::checkpoint() {
    if (failed_)
        return fail(Errc::io, fmt::format("applying source {} stopped at an error: open it again", source_));
    if (state_.position == stored_.position)
        return {};
    auto r = store_checkpoint();
    failed_ = !r;
    return r;
}

Result<void> Applier::forget_pending() {
    if (failed_)
        return fail(Errc::io, fmt::format("applying source {} stopped at an error: open it again", source_));
    if (stored_.pending.empty())
        return {};
    auto r = store_checkpoint();
    failed_ = !r;
    return r;
}

Result<std::size_t> Applier::collect() {
    BLKFERRY_TRY(checkpoint());
    // Nobody knows which generation a damaged point sees; it was made before this store was opened.
    const Generation pinned = points_.damaged().empty() ? 0 : opened_generation_ - 1;
    std::size_t removed = 0;
    for (auto& [slot, d] : disks_) {
        const std::vector<Generation> live = points_.generations(slot);
        BLKFERRY_TRY_ASSIGN(const std::size_t n, d.chunks->collect(live, options_.collect_budget - removed, pinned));
        removed += n;
    }
    return removed;
}

std::uint64_t Applier::allocated_bytes() const noexcept {
    std::uint64_t bytes = 0;
    for (const auto& [slot, d] : disks_) {
        bytes += d.chunks->allocated_bytes();
        for (const SectorMap* map : {d.newer.get(), d.received.get()})
            bytes += map == nullptr ? 0 : map->allocated_bytes();
    }
    return bytes;
}

Result<proto::HashReply> Applier::compare(const proto::HashAsk& ask) {
    const Disk* disk = state_.table.find(ask.slot);
    if (disk == nullptr)
        return fail(Errc::invalid, fmt::format("HASH_ASK for disk slot {}, which HELLO did not announce", ask.slot));
    const std::uint64_t block = ask.block_bytes / sector_bytes;
    const std::uint64_t sectors = disk->info.sectors;
    if (ask.sector >= sectors || ask.hashes.size() > (sectors - ask.sector + block - 1) / block)
        return fail(Errc::invalid, fmt::format("HASH_ASK for disk slot {} reaches beyond the end of the disk", ask.slot));
    BLKFERRY_TRY_ASSIGN(DiskStore * d, disk_store(ask.slot));
    std::vector<std::byte> data(ask.block_bytes);
    std::optional<Sha256> zero;  // of a whole block
    proto::HashReply reply{ask.request, std::vector<bool>(ask.hashes.size())};
    for (std::size_t i = 0; i < ask.hashes.size(); ++i) {
        const std::uint64_t at = ask.sector + i * block;
        const std::uint64_t count = std::min(block, sectors - at);
        const auto part = std::span(data).first(static_cast<std::size_t>(count * sector_bytes));
        const bool whole = count == block;
        const bool absent = d->chunks->absent({at, count}, state_.generation);
        if (absent && whole && zero) {
            reply.differs[i] = *zero != ask.hashes[i];
            continue;
        }
        BLKFERRY_TRY(d->chunks->read(at, part, state_.generation));
        const Sha256 digest = sha256(part);
        if (absent && whole)
            zero = digest;
        reply.differs[i] = digest != ask.hashes[i];
    }
    return reply;
}

}  // namespace blkferry::store
