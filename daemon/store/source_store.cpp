// SPDX-License-Identifier: Apache-2.0
#include "store/source_store.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "store/checkpoint_rebuild.hpp"

namespace blkferry::store {

namespace {
constexpr std::size_t wanted_points_max = 16;
constexpr std::size_t small_body_bytes = 1024;
/// Buffers for bodies that travelled compressed.
constexpr std::size_t arena_buffer_bytes = 1280U << 10;
constexpr std::size_t arena_buffers_kept_max = 6;
static_assert(proto::frame_body_bytes_max <= arena_buffer_bytes);

std::span<const std::byte> bytes_of(const std::string& text) noexcept {
    return std::as_bytes(std::span(text));
}
}  // namespace

SourceStore::SourceStore(Context context, std::filesystem::path dir, std::string name, SourceOptions options)
    : context_(context),
      dir_(std::move(dir)),
      name_(std::move(name)),
      options_(options),
      raw_pool_(arena_buffer_bytes, arena_buffers_kept_max),
      arena_(raw_pool_),
      hand_off_(options.hand_off_bytes) {}

SourceStore::~SourceStore() = default;

Result<std::unique_ptr<SourceStore>> SourceStore::open(Context context, std::filesystem::path dir, std::string name,
                                                       SourceOptions options) {
    if (!proto::valid_name(name))
        return fail(Errc::invalid, fmt::format("\"{}\" is no name for a source", name));
    std::unique_ptr<SourceStore> store(new SourceStore(context, std::move(dir), std::move(name), options));
    if (auto r = store->recover(); !r)
        return std::unexpected(std::move(r).error().with(fmt::format("source {}", store->name_)));
    return store;
}

Result<void> SourceStore::recover() {
    FileSystem& files = context_.files;
    BLKFERRY_TRY(files.make_dir(dir_));
    BLKFERRY_TRY(files.make_dir(dir_ / "journal"));
    BLKFERRY_TRY_ASSIGN(FoundCheckpoint found,
                        find_checkpoint(files, dir_, context_.store, context_.signer, options_.applier.chunk_bytes));
    checkpoint_damage_ = std::move(found.damage);
    Checkpoint checkpoint = std::move(found.checkpoint);
    table_ = checkpoint.table;
    receiver_ = std::make_unique<Receiver>(table_, checkpoint.batch, checkpoint.mark, checkpoint.mark_time_ns,
                                           checkpoint.consistent);
    complete_end_ = checkpoint.position;
    BLKFERRY_TRY_ASSIGN(const JournalScan scan,
                        journal_scan(files, dir_ / "journal", context_.store, checkpoint.position,
                                     [this](const EntryView& entry) { return replay(entry); }));
    receiver_->reset();
    BLKFERRY_TRY_ASSIGN(journal_, Journal::resume(files, dir_ / "journal", context_.store, options_.journal, scan,
                                                  complete_end_));
    damage_ = scan.damage;
    if (damage_)
        BLKFERRY_TRY(distrust());
    durable_ = {receiver_->batch(), receiver_->mark(), receiver_->time_ns(), complete_end_, receiver_->consistent()};
    BLKFERRY_TRY_ASSIGN(points_, PointStore::open(files, dir_ / "points", context_.signer));
    BLKFERRY_TRY_ASSIGN(applier_, Applier::open(files, context_.clock, context_.engine, *points_, dir_, context_.store,
                                                name_, options_.applier, std::move(checkpoint), &hand_off_));
    if (points_->damaged().empty())
        if (auto r = points_->verify_chain(applier_->stored().head_serial, applier_->stored().head_hash); !r)
            chain_damage_ = std::move(r).error();
    publish_state();
    if (context_.catalogue != nullptr) {
        BLKFERRY_TRY(context_.catalogue->put_checkpoint(name_, applier_->stored(), context_.clock.realtime_ns()));
        BLKFERRY_TRY(context_.catalogue->put_points(name_, points_->list()));
        (void)applier_->take_published();
    }
    return {};
}

/// A SESSION that no agent asked for: the present one, with its disks as they are.
Session SourceStore::own_session(std::string_view why) const {
    Session session;
    session.session = table_.session;
    session.source_id = table_.source_id;
    session.load_id = table_.load_id;
    session.time_ns = context_.clock.realtime_ns();
    session.agent_version = fmt::format("none: {}", why);
    for (const auto& [slot, disk] : table_.disks())
        if (disk.present)
            session.disks.push_back(disk.info);
    return session;
}

/// A part of the journal that was acknowledged is gone, and with it writes and resync data that the source will not send again.
/// So every disk counts as not in step with the source, as if its tracking had been interrupted: a session of a load that
/// no module has says so to both halves of the store and, at the next WELCOME, to the agent, which compares all blocks.
Result<void> SourceStore::distrust() {
    if (table_.disks().empty())
        return {};
    Session session = own_session("journal damaged");
    ++session.session;
    session.load_id = {};
    BLKFERRY_TRY(append_session(session));
    BLKFERRY_TRY(journal_->commit());
    return {};
}

/// The table takes it over once it is in the journal.
Result<void> SourceStore::append_session(const Session& session) {
    const std::string text = encode(session);
    BLKFERRY_TRY_ASSIGN(const Position end, append_text(EntryType::session, text));
    BLKFERRY_TRY(table_.begin_session(session));
    complete_end_ = end;
    return {};
}

/// One entry of the journal behind the checkpoint: only what the loop's half needs; redo applies it later.
Result<void> SourceStore::replay(const EntryView& entry) {
    switch (entry.header.type) {
        case EntryType::session: {
            BLKFERRY_TRY_ASSIGN(const Session session, decode_session(entry.body));
            receiver_->reset();
            BLKFERRY_TRY(table_.begin_session(session));
            complete_end_ = entry.end();
            return {};
        }
        case EntryType::point: complete_end_ = entry.end(); return {};
        case EntryType::pad: return {};
        case EntryType::frame: break;
    }
    if (entry.body.size() < proto::frame_header_bytes)
        return fail(Errc::corrupt, fmt::format("journal entry at position {} is too short for a frame", entry.position()));
    BLKFERRY_TRY_ASSIGN(const proto::FrameHeader header,
                        proto::decode_header(entry.body.first<proto::frame_header_bytes>()));
    BLKFERRY_TRY_ASSIGN(const auto body, proto::decode_body(header, entry.body.subspan(proto::frame_header_bytes),
                                                            decompressor_, scratch_));
    auto step = receiver_->take(header, body, entry.position());
    if (!step)
        return fail(Errc::corrupt, fmt::format("journal at position {}: {}", entry.position(), step.error().text));
    if (step->batch_end)
        complete_end_ = entry.end();
    return {};
}

// ---- loop ----

/// The apply side may know by now how the last epoch ended.
void SourceStore::resolve(Disk& disk) {
    if (!disk.last || disk.last->known)
        return;
    const std::scoped_lock guard(lock_);
    const Disk* applied = applied_table_.find(disk.info.slot);
    if (applied == nullptr || applied->info.attach_id != disk.info.attach_id || applied->epoch || !applied->last ||
        applied->last->position != disk.last->position)
        return;
    disk.synced = applied->synced;
    disk.covering = applied->covering;
    disk.last = applied->last;
}

/// Staging takes only what is written, but the maps of an epoch take a 4096th of what is merely named.
Result<void> SourceStore::check_sizes(const proto::Hello& hello) const {
    std::uint64_t sectors = 0;
    for (const proto::DiskInfo& info : hello.disks)
        sectors += info.sectors;  // disks_max * disk_sectors_max is no overflow
    const std::uint64_t allowed = options_.disks_bytes_max / sector_bytes;
    if (sectors > allowed)
        return fail(Errc::no_space, fmt::format("the disks of source {} have {} sectors together, {} are allowed: raise source_size on the "
                                                "server or protect fewer disks",
                                                name_, sectors, allowed));
    return {};
}

Result<void> SourceStore::check_quota(const proto::FrameHeader& header) const {
    const bool epoch = header.type == proto::FrameType::epoch_begin;
    if (options_.quota_bytes == 0 || (header.type != proto::FrameType::batch_begin && !epoch))
        return {};
    std::uint64_t bytes = used_bytes();
    if (epoch)
        for (const auto& [slot, disk] : table_.disks())
            if (disk.present && disk.epoch)
                bytes += disk.info.sectors / 8 * 2;
    if (bytes < options_.quota_bytes)
        return {};
    return fail(Errc::no_space, fmt::format("source {} uses {} bytes{} of its quota of {}: raise source_quota or remove recovery points", name_,
                                            used_bytes(), epoch ? fmt::format(", with the maps of a resync up to {},", bytes) : "",
                                            options_.quota_bytes));
}

Result<proto::Welcome> SourceStore::connect(const proto::Hello& hello) {
    BLKFERRY_TRY(check_sizes(hello));
    Session session;
    session.session = table_.session + 1;
    session.source_id = hello.source_id;
    session.load_id = hello.load_id;
    session.time_ns = context_.clock.realtime_ns();
    session.agent_version = hello.agent_version;
    session.disks = hello.disks;
    // A newcomer that is refused leaves the batch of the live connection alone.
    BLKFERRY_TRY(table_.check_session(session));
    receiver_->reset();
    proto::Welcome welcome;
    welcome.load_id = table_.load_id;
    const DiskTable before = table_;
    BLKFERRY_TRY(append_session(session));
    push_mark();
    BLKFERRY_TRY(append_wanted_points());
    BLKFERRY_TRY_ASSIGN(const Durable now, commit());
    welcome.session = session.session;
    welcome.durable_batch = now.batch;
    welcome.durable_mark = now.mark;
    for (const proto::DiskInfo& info : hello.disks) {
        Disk& disk = *table_.find(info.slot);
        resolve(disk);
        proto::DiskState state;
        state.slot = info.slot;
        const auto old = before.disks().find(info.slot);
        if (old != before.disks().end()) {
            state.known = old->second.known;
            state.attach_id = old->second.info.attach_id;
        }
        state.synced = disk.synced && !disk.epoch;
        if (disk.epoch)
            state.epoch_seq = disk.epoch->begin.seq0;
        else if (disk.last && !disk.last->known)
            state.epoch_seq = disk.last->seq0;  // ended, sets not compared yet: the result is on its way
        welcome.disks.push_back(state);
    }
    return welcome;
}

/// The entry that voids a batch is a SESSION; this one tells the disks as they are and changes nothing else.
Result<void> SourceStore::disconnect() {
    if (!receiver_->in_batch())
        return {};
    receiver_->reset();
    BLKFERRY_TRY(append_session(own_session("connection ended in a batch")));
    push_mark();
    return append_wanted_points();
}

Result<Receiver::Step> SourceStore::take(const proto::FrameReader::View& frame) {
    if (frame.header.type == proto::FrameType::batch_begin)
        BLKFERRY_TRY(check_quota(frame.header));
    BodyArena::Piece raw;
    std::span<const std::byte> body = frame.wire;
    if (frame.header.codec == Codec::none) {
        BLKFERRY_TRY(proto::verify_body(frame.header, body));
    } else {
        raw = arena_.take(frame.header.raw_len);
        BLKFERRY_TRY(proto::decode_body_into(frame.header, frame.wire, decompressor_, raw.bytes));
        body = raw.bytes;
    }
    BLKFERRY_TRY_ASSIGN(const Position position, journal_->reserve(frame.whole.size()));
    BLKFERRY_TRY_ASSIGN(const Receiver::Step step, receiver_->take(frame.header, body, position));
    if (frame.header.type == proto::FrameType::epoch_begin)
        BLKFERRY_TRY(check_quota(frame.header));
    BLKFERRY_TRY_ASSIGN(const Journal::Appended put, journal_->append(EntryType::frame, frame.whole));
    if (step.batch_begin)
        batch_begin_ = put.position;
    JournalEntry entry{EntryType::frame, put.position, put.end, frame.header, body, raw.owner};
    if (!raw.owner) {
        entry.body = put.body.subspan(proto::frame_header_bytes);
        entry.owner = put.owner;
    }
    hand_over(std::move(entry));
    if (step.batch_end) {
        complete_end_ = put.end;
        hand_off_.push_batch(batch_begin_, put.end);
        push_mark();
        BLKFERRY_TRY(append_wanted_points());
    }
    return step;
}

/// A small body moves into memory of its own: it would keep a whole buffer from its next use.
void SourceStore::hand_over(JournalEntry entry) {
    if (entry.body.size() <= small_body_bytes) {
        auto copy = std::make_shared<std::vector<std::byte>>(entry.body.begin(), entry.body.end());
        entry.body = *copy;
        entry.owner = std::move(copy);
    }
    hand_off_.push(std::move(entry));
}

Result<Position> SourceStore::append_text(EntryType type, const std::string& text) {
    BLKFERRY_TRY_ASSIGN(const Journal::Appended put, journal_->append(type, bytes_of(text)));
    hand_over({type, put.position, put.end, {}, put.body, put.owner});
    return put.end;
}

/// The journal holds a complete batch or entry up to complete_end_.
void SourceStore::push_mark() {
    marks_.push_back(
        {complete_end_, receiver_->batch(), receiver_->mark(), receiver_->time_ns(), receiver_->consistent()});
}

Durable SourceStore::advance(Position committed) {
    const std::scoped_lock guard(lock_);
    while (!marks_.empty() && marks_.front().end <= committed) {
        const Mark& m = marks_.front();
        durable_ = {m.batch, m.mark, m.time_ns, m.end, m.consistent};
        marks_.pop_front();
    }
    return durable_;
}

std::vector<WriteTicket> SourceStore::take_writes() {
    return journal_->take_writes();
}

Result<void> SourceStore::end_write(std::uint64_t number, int sys_result) {
    return journal_->end_write(number, sys_result);
}

std::uint64_t SourceStore::in_flight_bytes() const noexcept {
    return journal_->in_flight_bytes();
}

bool SourceStore::is_written(const SyncTicket& ticket) const noexcept {
    return journal_->is_written(ticket);
}

bool SourceStore::journal_direct() const noexcept {
    return journal_->direct();
}

void SourceStore::trim() {
    if (applied() < durable().position || journal_->in_flight_bytes() > 0)
        return;
    journal_->trim();
    arena_.trim();
    raw_pool_.trim();
    hand_off_.trim();
}

Result<std::optional<SyncTicket>> SourceStore::begin_commit() {
    return journal_->begin_commit();
}

Result<Durable> SourceStore::end_commit(const SyncTicket& ticket, int sys_result) {
    BLKFERRY_TRY_ASSIGN(const Position committed, journal_->end_commit(ticket, sys_result));
    return advance(committed);
}

Result<Durable> SourceStore::commit() {
    BLKFERRY_TRY_ASSIGN(const Position committed, journal_->commit());
    return advance(committed);
}

Durable SourceStore::durable() const {
    const std::scoped_lock guard(lock_);
    return durable_;
}

std::uint64_t SourceStore::uncommitted_bytes() const noexcept {
    return journal_->end() - journal_->committed();
}

Result<void> SourceStore::append_point(const PointEntry& entry) {
    const std::string text = encode(entry);
    BLKFERRY_TRY_ASSIGN(complete_end_, append_text(EntryType::point, text));
    push_mark();
    return {};
}

Result<void> SourceStore::append_wanted_points() {
    while (!wanted_points_.empty()) {
        BLKFERRY_TRY(append_point(wanted_points_.front()));
        wanted_points_.erase(wanted_points_.begin());
    }
    return {};
}

Result<void> SourceStore::request_point(std::uint64_t request, proto::PointKind kind, std::string name) {
    if (!name.empty() && !proto::valid_name(name))
        return fail(Errc::invalid, fmt::format("\"{}\" is no name for a recovery point", name));
    PointEntry entry{request, kind, std::move(name), context_.clock.realtime_ns()};
    if (!receiver_->in_batch())
        return append_point(entry);
    if (wanted_points_.size() >= wanted_points_max)
        return fail(Errc::busy, fmt::format("{} recovery points of source {} wait for the end of a batch", wanted_points_max,
                                            name_));
    wanted_points_.push_back(std::move(entry));
    return {};
}

// ---- worker ----

void SourceStore::publish_state() {
    const Checkpoint& state = applier_->state();
    const std::vector<Manifest> points = points_->list();
    {
        const std::scoped_lock guard(lock_);
        if (applied_table_ != state.table)
            applied_table_ = state.table;
        applied_status_.applied_batch = state.batch;
        applied_status_.applied_mark = state.mark;
        applied_status_.applied_time_ns = state.mark_time_ns;
        applied_status_.settled = state.table.settled();
        applied_status_.points = points.size();
        applied_status_.newest_point_mark = points.empty() ? 0 : points.back().mark;
    }
    staging_bytes_.store(applier_->allocated_bytes(), std::memory_order_relaxed);
    applied_.store(state.position, std::memory_order_release);
}

Result<void> SourceStore::after_checkpoint() {
    const Position stored = applier_->stored().position;
    const Position keep =
        options_.quota_bytes == 0 ? options_.journal_keep_bytes : std::min(options_.journal_keep_bytes, options_.quota_bytes / 4);
    BLKFERRY_TRY(journal_->drop_below(stored > keep ? stored - keep : 0));
    if (context_.catalogue == nullptr)
        return {};
    BLKFERRY_TRY(context_.catalogue->put_checkpoint(name_, applier_->stored(), context_.clock.realtime_ns()));
    if (catalogue_behind_)
        BLKFERRY_TRY(context_.catalogue->put_points(name_, points_->list()));
    catalogue_behind_ = false;
    for (const Manifest& m : applier_->take_published())
        BLKFERRY_TRY(context_.catalogue->put_point(m));
    return {};
}

Result<ApplyReport> SourceStore::apply_some(std::uint64_t budget_bytes) {
    BLKFERRY_TRY_ASSIGN(ApplyReport report, applier_->apply_some(durable().position, budget_bytes));
    if (report.checkpointed)
        BLKFERRY_TRY(after_checkpoint());
    journal_->prepare_next();
    publish_state();
    return report;
}

Result<proto::HashReply> SourceStore::compare(const proto::HashAsk& ask) {
    return applier_->compare(ask);
}

Result<void> SourceStore::checkpoint() {
    BLKFERRY_TRY(applier_->checkpoint());
    BLKFERRY_TRY(after_checkpoint());
    publish_state();
    return {};
}

Result<std::size_t> SourceStore::collect() {
    BLKFERRY_TRY_ASSIGN(const std::size_t removed, applier_->collect());
    publish_state();
    return removed;
}

Result<void> SourceStore::remove_point(std::string_view name) {
    BLKFERRY_TRY(applier_->forget_pending());
    BLKFERRY_TRY(points_->remove(name, context_.clock.realtime_ns(),
                                 {applier_->stored().head_serial, applier_->stored().head_hash}));
    // The point is gone whether its index knows or not.
    if (context_.catalogue != nullptr)
        catalogue_behind_ = !context_.catalogue->remove_point(name_, name) || catalogue_behind_;
    publish_state();
    return {};
}

// ---- any thread ----

std::uint64_t SourceStore::used_bytes() const {
    return journal_->file_bytes() + staging_bytes_.load(std::memory_order_relaxed);
}

SourceStatus SourceStore::status() const {
    SourceStatus out;
    {
        const std::scoped_lock guard(lock_);
        out = applied_status_;
        out.durable = durable_;
    }
    const Position at = applied();
    out.backlog_bytes = out.durable.position > at ? out.durable.position - at : 0;
    out.used_bytes = used_bytes();
    return out;
}

}  // namespace blkferry::store
