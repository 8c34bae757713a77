// SPDX-License-Identifier: Apache-2.0
#include "store/journal.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <random>

#include <fmt/format.h>

#include "base/hash.hpp"

namespace blkferry::store {

namespace {

constexpr std::array<std::byte, 65536> zeroes{};
/// Bodies from this size on are written where they lie, smaller ones gather in the buffer.
constexpr std::size_t large_body_bytes = 32U << 10;
/// A growing segment is written ahead by this much, so that most syncs need not change the file's size.
constexpr std::uint64_t prewrite_bytes = 1U << 20;
constexpr std::uint64_t writeback_step_bytes = 1U << 20;

std::uint64_t random_salt() {
    const Uuid u = Uuid::random();
    std::uint64_t salt = 0;
    std::memcpy(&salt, u.bytes.data(), 6);  // the bytes of a version 4 uuid in front of its fixed bits
    return salt << 16 | static_cast<std::uint64_t>(u.bytes[14]) << 8 | u.bytes[15];
}

Result<void> write_zeroes(File& file, std::uint64_t from, std::uint64_t end) {
    while (from < end) {
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(end - from, zeroes.size()));
        BLKFERRY_TRY(file.write(std::span(zeroes).first(part), from));
        from += part;
    }
    return {};
}

/// Reads one segment from `at` on; returns the position behind its last good entry.
Result<Position> scan_segment(SegmentReader& reader, Position at, Position segment_end, bool newest, bool& torn,
                              const std::function<Result<void>(const EntryView&)>& visit) {
    while (at < segment_end) {
        auto entry = reader.entry(at, segment_end);
        if (!entry && entry.error().code == Errc::corrupt && newest) {
            BLKFERRY_TRY_ASSIGN(const bool durable, reader.durable_evidence(at));
            if (durable)
                return std::unexpected(std::move(entry).error());
            torn = true;
            return at;
        }
        if (!entry)
            return std::unexpected(std::move(entry).error());
        if (entry->end() > segment_end)
            return fail(Errc::corrupt, fmt::format("journal segment {}: the entry at position {} reaches into the next "
                                                   "segment",
                                                   reader.segment().path.string(), at));
        BLKFERRY_TRY(visit(*entry));
        at = entry->end();
    }
    return at;
}

}  // namespace

Result<JournalScan> journal_scan(FileSystem& files, const std::filesystem::path& dir, const Uuid& store, Position from,
                                 const std::function<Result<void>(const EntryView&)>& visit) {
    JournalScan scan;
    BLKFERRY_TRY_ASSIGN(scan.segments, list_segments(files, dir, store));
    const auto& live = scan.segments.live;
    if (live.empty() ? from != 0 : live.front().header.first > from)
        return fail(Errc::corrupt, fmt::format("journal {} lacks the segment that holds position {}", dir.string(), from));
    scan.from = from;
    scan.end = from;
    SegmentReader reader;
    for (std::size_t i = 0; i < live.size(); ++i) {
        const bool newest = i + 1 == live.size();
        const Position segment_end = newest ? std::numeric_limits<Position>::max() : live[i + 1].header.first;
        if (segment_end <= from)
            continue;
        BLKFERRY_TRY(reader.open(files, live[i]));
        const Position begin = std::max(from, live[i].header.first);
        BLKFERRY_TRY_ASSIGN(scan.end, scan_segment(reader, begin, segment_end, newest, scan.torn, visit));
    }
    return scan;
}

Journal::Journal(FileSystem& files, std::filesystem::path dir, const Uuid& store, JournalOptions options)
    : files_(files), dir_(std::move(dir)), store_(store), options_(options) {
    buffer_.reserve(options_.buffer_bytes + large_body_bytes + 2 * entry_header_bytes);
}

Journal::~Journal() = default;

Result<std::unique_ptr<Journal>> Journal::resume(FileSystem& files, std::filesystem::path dir, const Uuid& store,
                                                 JournalOptions options, const JournalScan& scan, Position cut) {
    if (options.segment_bytes < segment_bytes_min || options.segment_bytes > segment_bytes_max)
        return fail(Errc::invalid, fmt::format("journal segment size of {} bytes refused: {} to {} allowed",
                                               options.segment_bytes, segment_bytes_min, segment_bytes_max));
    BLKFERRY_ASSERT(cut <= scan.end);
    std::unique_ptr<Journal> journal(new Journal(files, std::move(dir), store, options));
    journal->next_number_ = scan.segments.next_number;
    journal->segments_ = scan.segments.live;
    journal->spares_ = scan.segments.spares;
    journal->end_ = cut;
    journal->committed_.store(cut, std::memory_order_release);
    BLKFERRY_TRY(journal->settle_tail(scan));
    BLKFERRY_TRY(journal->start_segment(cut));
    // Only now, with the new segment durable, are the cut ones superfluous.
    auto& segments = journal->segments_;
    std::vector<std::filesystem::path> dead = scan.segments.dead;
    while (segments.size() > 1 && segments[segments.size() - 2].header.first >= cut) {
        dead.push_back(segments[segments.size() - 2].path);
        segments.erase(segments.end() - 2);
    }
    for (const auto& path : dead)
        BLKFERRY_TRY(files.remove(path));
    while (journal->spares_.size() > options.spares_max) {
        BLKFERRY_TRY(files.remove(journal->spares_.back()));
        journal->spares_.pop_back();
    }
    return journal;
}

/// Only the newest segment can hold entries that are written and not durable. They are written once more before the sync:
/// after a failed sync the system takes its pages for clean, and another sync alone would say "done" for nothing.
Result<void> Journal::settle_tail(const JournalScan& scan) {
    if (scan.segments.live.empty())
        return {};
    const Segment& newest = scan.segments.live.back();
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file, files_.open(newest.path, OpenMode::update));
    std::vector<std::byte> data(1U << 20);
    for (Position at = std::max(scan.from, newest.header.first); at < scan.end;) {
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(scan.end - at, data.size()));
        const auto piece = std::span(data).first(part);
        BLKFERRY_TRY_ASSIGN(const std::size_t n, file->read(piece, newest.offset_of(at)));
        BLKFERRY_TRY(file->write(piece.first(n), newest.offset_of(at)));
        if (n < part)
            break;
        at += n;
    }
    return file->sync();
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

Result<std::filesystem::path> Journal::spare() {
    std::filesystem::path path;
    {
        const std::scoped_lock guard(lock_);
        if (spares_.empty())
            return dir_ / fmt::format("{:020}.spare", next_number_);
        path = spares_.back();
        spares_.pop_back();
    }
    // Its old name must be gone for good before its contents are.
    BLKFERRY_TRY(files_.sync_dir(dir_));
    return path;
}

Result<void> Journal::start_segment(Position first) {
    Segment next;
    next.header = {store_, next_number_, first, random_salt()};
    next.path = dir_ / segment_name(next_number_);
    BLKFERRY_TRY_ASSIGN(const std::filesystem::path from, spare());
    auto opened = files_.open(from, OpenMode::update);
    if (!opened && opened.error().code == Errc::not_found)
        opened = files_.open(from, OpenMode::create);
    if (!opened)
        return std::unexpected(std::move(opened).error());
    std::shared_ptr<File> file = std::move(*opened);
    BLKFERRY_TRY(file->write(encode(next.header), 0));
    BLKFERRY_TRY_ASSIGN(next.file_bytes, file->size());
    if (next.file_bytes > options_.segment_bytes)
        BLKFERRY_TRY(file->truncate(options_.segment_bytes));
    next.file_bytes = std::min(next.file_bytes, options_.segment_bytes);
    if (next.file_bytes < prewrite_bytes) {
        BLKFERRY_TRY(write_zeroes(*file, next.file_bytes, prewrite_bytes));
        next.file_bytes = prewrite_bytes;
    }
    BLKFERRY_TRY(file->sync());
    BLKFERRY_TRY(files_.rename(from, next.path));
    BLKFERRY_TRY(files_.sync_dir(dir_));
    file_ = std::move(file);
    segment_ = next;
    writeback_ = segment_header_bytes;
    ++next_number_;
    const std::scoped_lock guard(lock_);
    segments_.push_back(std::move(next));
    return {};
}

/// Writes what is buffered, and one entry behind it if `header` is not empty.
Result<void> Journal::write_out(std::span<const std::byte> header, std::span<const std::byte> body) {
    const std::size_t used = header.size() + body.size();
    const std::size_t pad = (entry_align - used % entry_align) % entry_align;
    const std::array<std::span<const std::byte>, 4> parts{buffer_, header, body, std::span(zeroes).first(pad)};
    const std::uint64_t bytes = buffer_.size() + used + pad;
    if (bytes == 0)
        return {};
    const std::uint64_t offset = tail_offset() - buffer_.size();
    BLKFERRY_TRY(file_->write(parts, offset));
    buffer_.clear();
    std::uint64_t end = offset + bytes;
    if (end > segment_.file_bytes) {
        segment_.file_bytes = end;
        if (bytes < prewrite_bytes / 4 && end < options_.segment_bytes) {
            end = std::min(end + prewrite_bytes, options_.segment_bytes);
            BLKFERRY_TRY(write_zeroes(*file_, segment_.file_bytes, end));
            segment_.file_bytes = end;
        }
        const std::scoped_lock guard(lock_);
        segments_.back().file_bytes = segment_.file_bytes;
    }
    if (offset + bytes - writeback_ >= writeback_step_bytes) {
        file_->start_writeback(writeback_, offset + bytes - writeback_);
        writeback_ = offset + bytes;
    }
    return {};
}

Result<Position> Journal::append(EntryType type, std::span<const std::byte> body) {
    BLKFERRY_TRY(check());
    if (body.size() > entry_body_bytes_max)
        return fail(Errc::invalid, fmt::format("journal entry of {} bytes refused, {} allowed", body.size(),
                                               entry_body_bytes_max));
    EntryHeader header;
    header.type = type;
    header.length = static_cast<std::uint32_t>(body.size());
    header.body_crc = crc32c(body);
    if (tail_offset() + header.whole_bytes() > options_.segment_bytes) {
        // The old segment is durable before the next one exists: only the newest can have a torn tail.
        if (auto r = commit(); !r)
            return std::unexpected(std::move(r).error());
        if (auto r = start_segment(end_); !r)
            return stick(std::move(r).error());
    }
    header.position = end_;
    header.committed = committed();
    header.salt = segment_.header.salt;
    const EntryHeaderBytes raw = encode(header);
    if (body.size() >= large_body_bytes) {
        if (auto r = write_out(raw, body); !r)
            return stick(std::move(r).error());
        end_ += header.whole_bytes();
        return end_;
    }
    const std::size_t at = buffer_.size();
    buffer_.resize(at + static_cast<std::size_t>(header.whole_bytes()));
    std::ranges::copy(raw, buffer_.begin() + static_cast<std::ptrdiff_t>(at));
    std::ranges::copy(body, buffer_.begin() + static_cast<std::ptrdiff_t>(at + entry_header_bytes));
    end_ += header.whole_bytes();
    if (buffer_.size() >= options_.buffer_bytes)
        if (auto r = write_out({}, {}); !r)
            return stick(std::move(r).error());
    return end_;
}

Result<std::optional<SyncTicket>> Journal::begin_commit() {
    BLKFERRY_TRY(check());
    if (end_ == committed())
        return std::nullopt;
    if (auto r = write_out({}, {}); !r)
        return stick(std::move(r).error());
    return SyncTicket{file_, file_->fd(), end_};
}

Result<Position> Journal::end_commit(const SyncTicket& ticket, int sys_result) {
    BLKFERRY_TRY(check());
    if (sys_result < 0) {
        auto error = fail_errno(-sys_result, fmt::format("cannot sync journal {}", dir_.string()));
        return stick(std::move(error).error());
    }
    if (ticket.position > committed())
        committed_.store(ticket.position, std::memory_order_release);
    return committed();
}

Result<Position> Journal::commit() {
    BLKFERRY_TRY_ASSIGN(const std::optional<SyncTicket> ticket, begin_commit());
    if (!ticket)
        return committed();
    if (auto r = ticket->file->sync(); !r)
        return stick(std::move(r).error());
    return end_commit(*ticket, 0);
}

Position Journal::begin() const {
    const std::scoped_lock guard(lock_);
    return segments_.front().header.first;
}

std::uint64_t Journal::file_bytes() const {
    const std::scoped_lock guard(lock_);
    std::uint64_t bytes = spares_.size() * options_.segment_bytes;
    for (const Segment& s : segments_)
        bytes += s.file_bytes;
    return bytes;
}

Result<void> Journal::drop_below(Position position) {
    const std::scoped_lock guard(lock_);
    while (segments_.size() > 1 && segments_[1].header.first <= position) {
        const auto& path = segments_.front().path;
        if (spares_.size() < options_.spares_max) {
            std::filesystem::path to = path;
            to.replace_extension(".spare");
            BLKFERRY_TRY(files_.rename(path, to));
            spares_.push_back(std::move(to));
        } else {
            BLKFERRY_TRY(files_.remove(path));
        }
        segments_.erase(segments_.begin());
    }
    return {};
}

}  // namespace blkferry::store
