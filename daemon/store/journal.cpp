// SPDX-License-Identifier: Apache-2.0
#include "store/journal.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "base/hash.hpp"

namespace blkferry::store {

namespace {

/// Holds an entry of full size, and four frames of the size that agents send.
constexpr std::size_t buffer_bytes = 1280U << 10;
constexpr std::size_t buffers_kept_max = 8;
/// Blocks of a fresh segment are taken from the file system ahead of the writes, in steps that grow up to this.
constexpr std::uint64_t allocate_step_min = 1U << 20;
constexpr std::uint64_t allocate_step_max = 16U << 20;
/// Copied and checksummed in pieces that stay in the nearest cache.
constexpr std::size_t copy_step = 16U << 10;
/// Damaged segment files that are kept for people.
constexpr std::size_t damaged_kept = 4;

static_assert(entry_body_bytes_max + 2 * entry_header_bytes + 3 * io_align <= buffer_bytes);
static_assert(segment_header_bytes == io_align && block_bytes == io_align);

std::uint64_t random_salt() {
    const Uuid u = Uuid::random();
    std::uint64_t salt = 0;
    std::memcpy(&salt, u.bytes.data(), 6);  // the bytes of a version 4 uuid in front of its fixed bits
    return salt << 16 | static_cast<std::uint64_t>(u.bytes[14]) << 8 | u.bytes[15];
}

std::uint64_t whole_bytes(std::size_t body_bytes) noexcept {
    return (entry_header_bytes + body_bytes + entry_align - 1) / entry_align * entry_align;
}

/// Copies and returns the CRC-32C on the way.
std::uint32_t copy_crc(std::span<const std::byte> from, std::byte* to) noexcept {
    std::uint32_t crc = 0;
    for (std::size_t at = 0; at < from.size(); at += copy_step) {
        const auto part = from.subspan(at, std::min(copy_step, from.size() - at));
        std::memcpy(to + at, part.data(), part.size());
        crc = crc32c(crc, part);
    }
    return crc;
}

}  // namespace

Journal::Journal(FileSystem& files, std::filesystem::path dir, const Uuid& store, JournalOptions options)
    : files_(files),
      dir_(std::move(dir)),
      store_(store),
      options_(options),
      pool_(buffer_bytes, buffers_kept_max),
      writer_(pool_) {}

Journal::~Journal() = default;

// ---- opening ----------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<Journal>> Journal::resume(FileSystem& files, std::filesystem::path dir, const Uuid& store,
                                                 JournalOptions options, const JournalScan& scan, Position cut) {
    if (options.segment_bytes < segment_bytes_min || options.segment_bytes > segment_bytes_max ||
        options.segment_bytes % block_bytes != 0)
        return fail(Errc::invalid, fmt::format("journal segment size of {} bytes refused: {} to {} allowed, a multiple of {}",
                                               options.segment_bytes, segment_bytes_min, segment_bytes_max, block_bytes));
    BLKFERRY_ASSERT(cut <= scan.end);
    std::unique_ptr<Journal> journal(new Journal(files, std::move(dir), store, options));
    for (const Segment& s : scan.segments.live)
        journal->live_.push_back({s, {}});
    journal->spares_ = scan.segments.spares;
    journal->end_ = cut;
    journal->committed_.store(cut, std::memory_order_release);
    BLKFERRY_TRY(journal->settle_tail(scan));
    BLKFERRY_TRY_ASSIGN(Made first, journal->make_segment(scan.segments.next_number, cut, allocate_step_min));
    journal->enter(std::move(first));
    BLKFERRY_TRY(journal->remove_void(scan, cut));
    return journal;
}

/// What may be written and not durable is written once more before the sync: after a failed sync the system may take its
/// pages for clean, and another sync alone would say "done" for nothing.
Result<void> Journal::settle_tail(const JournalScan& scan) {
    const IoBuffer data(1U << 20);
    const Position from = std::max(scan.from, scan.committed);
    const auto& live = scan.segments.live;
    for (std::size_t i = 0; i < live.size(); ++i) {
        const Position end = i + 1 < live.size() ? std::min(scan.end, live[i + 1].header.first) : scan.end;
        const Position begin = std::max(from, live[i].header.first);
        if (begin >= end)
            continue;
        BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file,
                            files_.open(live[i].path, OpenMode::update, Caching::direct));
        const std::uint64_t last = align_up(live[i].offset_of(end));
        for (std::uint64_t at = align_down(live[i].offset_of(begin)); at < last;) {
            const auto piece = data.bytes().first(static_cast<std::size_t>(std::min<std::uint64_t>(last - at, data.size())));
            BLKFERRY_TRY_ASSIGN(const std::size_t n, file->read(piece, at));
            std::memset(piece.data() + n, 0, piece.size() - n);
            BLKFERRY_TRY(file->write(piece, at));
            at += piece.size();
        }
        BLKFERRY_TRY(file->sync());
    }
    return {};
}

/// Keeps a file that cannot be read any more for its owner to look at, until as many others have followed.
Result<void> Journal::set_aside(const std::filesystem::path& path) {
    std::filesystem::path to = path;
    to.replace_extension(".damaged");
    BLKFERRY_TRY(files_.rename(path, to));
    BLKFERRY_TRY_ASSIGN(std::vector<std::string> names, files_.list(dir_));
    std::erase_if(names, [](const std::string& name) { return !name.ends_with(".damaged"); });
    std::ranges::sort(names);
    for (std::size_t i = 0; i + damaged_kept < names.size(); ++i)
        BLKFERRY_TRY(files_.remove(dir_ / names[i]));
    return {};
}

/// Only with the new segment durable are those superfluous that it takes the place of.
Result<void> Journal::remove_void(const JournalScan& scan, Position cut) {
    std::vector<std::filesystem::path> dead = scan.segments.dead;
    while (live_.size() > 1 && live_[live_.size() - 2].segment.header.first >= cut) {
        dead.push_back(live_[live_.size() - 2].segment.path);
        live_.erase(live_.end() - 2);
    }
    for (const auto& path : dead)
        BLKFERRY_TRY(scan.damage ? set_aside(path) : files_.remove(path));
    for (const DamagedSegment& d : scan.segments.damaged)
        BLKFERRY_TRY(set_aside(d.path));
    while (spares_.size() > options_.spares_max) {
        BLKFERRY_TRY(files_.remove(spares_.back()));
        spares_.pop_back();
    }
    return {};
}

std::unexpected<Error> Journal::stick(Error error) {
    failed_ = true;
    failure_ = error.text;
    return std::unexpected(std::move(error));
}

Result<void> Journal::check() const {
    if (failed_)
        return fail(Errc::io, fmt::format("journal {} is closed for writing since an error: {}", dir_.string(), failure_));
    return {};
}

// ---- segments ---------------------------------------------------------------------------------------------------------

Result<std::filesystem::path> Journal::spare(std::uint64_t number) {
    std::filesystem::path path;
    {
        const std::scoped_lock guard(lock_);
        if (spares_.empty())
            return dir_ / fmt::format("{:020}.spare", number);
        path = spares_.back();
        spares_.pop_back();
    }
    // Its old name must be gone for good before its contents are.
    BLKFERRY_TRY(files_.sync_dir(dir_));
    return path;
}

/// Durable, with its name, before an entry goes into it.
Result<Journal::Made> Journal::make_segment(std::uint64_t number, Position first, std::uint64_t allocate_bytes) {
    Made made;
    made.segment.header = {store_, number, first, random_salt(), committed()};
    made.segment.path = dir_ / segment_name(number);
    BLKFERRY_TRY_ASSIGN(const std::filesystem::path from, spare(number));
    auto opened = files_.open(from, OpenMode::update, Caching::direct);
    if (!opened && opened.error().code == Errc::not_found)
        opened = files_.open(from, OpenMode::create, Caching::direct);
    if (!opened)
        return std::unexpected(std::move(opened).error());
    made.file = std::move(*opened);
    const IoBuffer block(segment_header_bytes);
    std::ranges::copy(encode(made.segment.header), block.data());
    BLKFERRY_TRY(made.file->write(block.bytes(), 0));
    BLKFERRY_TRY_ASSIGN(std::uint64_t bytes, made.file->size());
    if (bytes > options_.segment_bytes) {
        BLKFERRY_TRY(made.file->truncate(options_.segment_bytes));
        bytes = options_.segment_bytes;
    }
    // A full disk shows when it is written to.
    if (bytes < allocate_bytes && made.file->allocate(bytes, allocate_bytes - bytes))
        bytes = allocate_bytes;
    made.segment.file_bytes = bytes;
    BLKFERRY_TRY(made.file->sync());
    BLKFERRY_TRY(files_.rename(from, made.segment.path));
    BLKFERRY_TRY(files_.sync_dir(dir_));
    const std::scoped_lock guard(lock_);
    live_.push_back({made.segment, made.file});
    return made;
}

void Journal::enter(Made made) {
    if (file_)
        unsynced_.push_back({std::move(file_), writer_.last_number()});
    file_ = std::move(made.file);
    segment_ = std::move(made.segment);
    allocated_ = segment_.file_bytes;
    writer_.begin(file_, segment_header_bytes);
}

std::uint64_t Journal::room() const noexcept {
    return segment_.header.first + (options_.segment_bytes - segment_header_bytes) - end();
}

/// Fills the segment up: the next one begins at a position that is known beforehand.
Result<void> Journal::next_segment() {
    if (room() > 0)
        pad(room());
    writer_.fill_block();
    emit();
    const std::scoped_lock guard(making_);
    if (!prepared_) {
        auto made = make_segment(segment_.header.number + 1, end(), allocate_step_min);
        if (!made)
            return stick(std::move(made).error());
        prepared_ = std::move(*made);
    }
    BLKFERRY_ASSERT(prepared_->segment.header.first == end());
    enter(std::move(*prepared_));
    prepared_.reset();
    return {};
}

void Journal::prepare_next() {
    const std::scoped_lock guard(making_);
    if (prepared_)
        return;
    SegmentHeader current;
    {
        const std::scoped_lock held(lock_);
        current = live_.back().segment.header;
    }
    const std::uint64_t capacity = options_.segment_bytes - segment_header_bytes;
    if (end() - current.first < capacity / 2)
        return;
    auto made = make_segment(current.number + 1, current.first + capacity, options_.segment_bytes);
    if (made)
        prepared_ = std::move(*made);
}

// ---- appending --------------------------------------------------------------------------------------------------------

void Journal::put_header(EntryType type, std::span<std::byte> to, std::uint32_t length, std::uint32_t body_crc) {
    EntryHeader header;
    header.type = type;
    header.length = length;
    header.body_crc = body_crc;
    header.position = end();
    header.committed = committed();
    header.salt = segment_.header.salt;
    std::ranges::copy(encode(header), to.begin());
}

/// An entry that means nothing. The body is not there: fill_block() writes zeroes up to the end of the block.
void Journal::pad(std::uint64_t bytes) {
    const auto piece = writer_.reserve(entry_header_bytes);
    put_header(EntryType::pad, piece.bytes, static_cast<std::uint32_t>(bytes - entry_header_bytes), 0);
    end_ += bytes;
}

Result<Position> Journal::reserve(std::size_t body_bytes) {
    BLKFERRY_TRY(check());
    if (body_bytes > entry_body_bytes_max)
        return fail(Errc::invalid, fmt::format("journal entry of {} bytes refused, {} allowed", body_bytes,
                                               entry_body_bytes_max));
    if (end() > position_max - segment_bytes_max)
        return fail(Errc::no_space, fmt::format("journal {} has used up its positions", dir_.string()));
    // What is left behind an entry is nothing, or enough for a PAD.
    const std::uint64_t whole = whole_bytes(body_bytes);
    if (whole != room() && whole + entry_header_bytes > room())
        BLKFERRY_TRY(next_segment());
    return end();
}

Result<Journal::Appended> Journal::append(EntryType type, std::span<const std::byte> body) {
    BLKFERRY_TRY_ASSIGN(const Position position, reserve(body.size()));
    const auto whole = static_cast<std::size_t>(whole_bytes(body.size()));
    const BlockWriter::Piece piece = writer_.reserve(whole);
    const auto to = piece.bytes.subspan(entry_header_bytes);
    const std::uint32_t crc = copy_crc(body, to.data());
    std::memset(to.data() + body.size(), 0, to.size() - body.size());
    put_header(type, piece.bytes, static_cast<std::uint32_t>(body.size()), crc);
    end_ += whole;
    if (writer_.has_full_buffer())
        emit();
    return Appended{position, end(), to.first(body.size()), piece.owner};
}

/// Hands full blocks on for writing, with blocks of the file system taken ahead of them.
void Journal::emit() {
    const std::size_t before = queue_.size();
    writer_.emit(queue_);
    if (queue_.size() == before)
        return;
    const WriteTicket& last = queue_.back();
    const std::uint64_t end = last.offset + last.data.size();
    if (end <= allocated_)
        return;
    const std::uint64_t step = std::clamp(allocated_, allocate_step_min, allocate_step_max);
    const std::uint64_t want = std::min(std::max(end, allocated_ + step), options_.segment_bytes);
    // A full disk shows in the write.
    const bool allocated = file_->allocate(allocated_, want - allocated_).has_value();
    allocated_ = allocated ? want : end;
    const std::scoped_lock guard(lock_);
    for (Live& l : live_)
        if (l.segment.header.number == segment_.header.number)
            l.segment.file_bytes = allocated_;
}

std::vector<WriteTicket> Journal::take_writes() {
    std::vector<WriteTicket> out;
    out.swap(queue_);
    for (const WriteTicket& w : out) {
        in_flight_bytes_ += w.data.size();
        in_flight_.emplace(w.number, w);
    }
    return out;
}

Result<void> Journal::end_write(std::uint64_t number, int sys_result) {
    if (const auto it = in_flight_.find(number); it != in_flight_.end()) {
        in_flight_bytes_ -= it->second.data.size();
        in_flight_.erase(it);
    }
    if (sys_result < 0) {
        auto error = fail_errno(-sys_result, fmt::format("cannot write journal {}", dir_.string()));
        return stick(std::move(error).error());
    }
    return check();
}

// ---- commit -----------------------------------------------------------------------------------------------------------

Result<std::optional<SyncTicket>> Journal::begin_commit() {
    BLKFERRY_TRY(check());
    if (end() == committed())
        return std::nullopt;
    if (writer_.partial() > 0) {
        std::uint64_t rest = block_bytes - writer_.partial();
        if (rest < entry_header_bytes)
            rest += block_bytes;
        pad(rest);
        writer_.fill_block();
        BLKFERRY_ASSERT(segment_.offset_of(end()) % block_bytes == 0);
    }
    emit();
    SyncTicket ticket{{}, writer_.last_number(), end()};
    for (const Left& left : unsynced_)
        ticket.files.push_back(left.file);
    ticket.files.push_back(file_);
    return ticket;
}

bool Journal::is_written(const SyncTicket& ticket) const noexcept {
    const bool queued = !queue_.empty() && queue_.front().number <= ticket.last_write;
    const bool flying = !in_flight_.empty() && in_flight_.begin()->first <= ticket.last_write;
    return !queued && !flying;
}

Result<Position> Journal::end_commit(const SyncTicket& ticket, int sys_result) {
    BLKFERRY_TRY(check());
    if (sys_result < 0) {
        auto error = fail_errno(-sys_result, fmt::format("cannot sync journal {}", dir_.string()));
        return stick(std::move(error).error());
    }
    BLKFERRY_ASSERT(is_written(ticket));
    if (ticket.position > committed())
        committed_.store(ticket.position, std::memory_order_release);
    // A segment that was left while this commit was under way may have got writes behind its sync.
    std::erase_if(unsynced_, [&](const Left& left) { return left.last_write <= ticket.last_write; });
    return committed();
}

Result<Position> Journal::commit() {
    BLKFERRY_TRY_ASSIGN(const std::optional<SyncTicket> ticket, begin_commit());
    if (!ticket)
        return committed();
    (void)take_writes();
    for (const auto& [number, w] : in_flight_)
        if (auto r = w.file->write(w.data, w.offset); !r)
            return stick(std::move(r).error());
    in_flight_.clear();
    in_flight_bytes_ = 0;
    for (const auto& file : ticket->files)
        if (auto r = file->sync(); !r)
            return stick(std::move(r).error());
    return end_commit(*ticket, 0);
}

// ---- any thread -------------------------------------------------------------------------------------------------------

Position Journal::begin() const {
    const std::scoped_lock guard(lock_);
    return live_.front().segment.header.first;
}

std::uint64_t Journal::file_bytes() const {
    const std::scoped_lock guard(lock_);
    std::uint64_t bytes = spares_.size() * options_.segment_bytes;
    for (const Live& l : live_)
        bytes += l.segment.file_bytes;
    return bytes;
}

Result<void> Journal::drop_below(Position position) {
    const std::scoped_lock guard(lock_);
    while (live_.size() > 1 && live_[1].segment.header.first <= position) {
        const auto& path = live_.front().segment.path;
        if (spares_.size() < options_.spares_max && live_.front().file.expired()) {
            std::filesystem::path to = path;
            to.replace_extension(".spare");
            BLKFERRY_TRY(files_.rename(path, to));
            spares_.push_back(std::move(to));
        } else {
            BLKFERRY_TRY(files_.remove(path));
        }
        live_.erase(live_.begin());
    }
    return {};
}

void Journal::trim() noexcept {
    writer_.trim();
    pool_.trim();
}

}  // namespace blkferry::store
