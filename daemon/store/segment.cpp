// SPDX-License-Identifier: Apache-2.0
#include "store/segment.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "base/bytes.hpp"
#include "base/hash.hpp"

namespace blkferry::store {

namespace {

Result<Segment> read_segment(FileSystem& files, const std::filesystem::path& path, std::uint64_t number,
                             const Uuid& store) {
    Segment s;
    s.path = path;
    BLKFERRY_TRY_ASSIGN(const std::unique_ptr<File> file, files.open(path, OpenMode::read));
    BLKFERRY_TRY_ASSIGN(s.file_bytes, file->size());
    SegmentHeaderBytes raw{};
    BLKFERRY_TRY_ASSIGN(const std::size_t n, file->read(raw, 0));
    if (n != raw.size())
        return fail(Errc::corrupt, fmt::format("journal segment {} is shorter than its header", path.string()));
    auto header = decode_segment_header(raw);
    if (!header)
        return std::unexpected(std::move(header).error().with(fmt::format("journal segment {}", path.string())));
    s.header = *header;
    if (s.header.number != number || s.header.store != store)
        return fail(Errc::corrupt, fmt::format("journal segment {} belongs elsewhere: it is number {} of store {}",
                                               path.string(), s.header.number, s.header.store.str()));
    return s;
}

}  // namespace

Result<SegmentList> list_segments(FileSystem& files, const std::filesystem::path& dir, const Uuid& store) {
    BLKFERRY_TRY_ASSIGN(const std::vector<std::string> names, files.list(dir));
    SegmentList out;
    std::vector<std::pair<std::uint64_t, std::filesystem::path>> found;
    for (const std::string& name : names) {
        if (const auto number = parse_segment_name(name))
            found.emplace_back(*number, dir / name);
        else if (name.ends_with(".spare"))
            out.spares.push_back(dir / name);
    }
    std::ranges::sort(found);
    for (const auto& [number, path] : found) {
        auto segment = read_segment(files, path, number, store);
        if (!segment && segment.error().code == Errc::not_found)
            continue;  // recycled meanwhile
        if (!segment && segment.error().code != Errc::corrupt)
            return std::unexpected(std::move(segment).error());
        out.next_number = number + 1;
        if (!segment) {
            out.damaged.push_back({number, path, std::move(segment).error()});
            continue;
        }
        while (!out.live.empty() && out.live.back().header.first >= segment->header.first) {
            out.dead.push_back(out.live.back().path);
            out.live.pop_back();
        }
        out.live.push_back(std::move(*segment));
    }
    return out;
}

Result<void> SegmentReader::open(FileSystem& files, const Segment& segment) {
    file_.reset();
    BLKFERRY_TRY_ASSIGN(file_, files.open(segment.path, OpenMode::read, Caching::direct));
    segment_ = segment;
    valid_ = 0;
    buffer_offset_ = 0;
    return {};
}

std::unexpected<Error> SegmentReader::damaged(Position at, std::string_view why) const {
    return fail(Errc::corrupt, fmt::format("journal segment {} is damaged at byte {} (position {}): {}",
                                           segment_.path.string(), segment_.offset_of(at), at, why));
}

/// Whole blocks are read, but nothing at or behind `end` counts: the journal may be writing there.
Result<std::span<const std::byte>> SegmentReader::load(std::uint64_t offset, std::size_t bytes, std::size_t ahead,
                                                       std::uint64_t end) {
    const std::uint64_t have_end = buffer_offset_ + valid_;
    if (offset >= buffer_offset_ && offset + bytes <= have_end)
        return buffer_.bytes().subspan(static_cast<std::size_t>(offset - buffer_offset_), bytes);
    const std::uint64_t begin = align_down(offset);
    const std::uint64_t want_end =
        align_up(offset + bytes < end ? std::min<std::uint64_t>(offset + std::max(bytes, ahead), end) : offset + bytes);
    const auto want = static_cast<std::size_t>(want_end - begin);
    std::size_t kept = 0;  // whole blocks of what is there
    if (begin >= buffer_offset_ && begin < have_end)
        kept = static_cast<std::size_t>(align_down(have_end) - begin);
    if (buffer_.size() < want) {
        IoBuffer larger(std::max<std::size_t>(want, 64U << 10));
        if (kept > 0)
            std::memcpy(larger.data(), buffer_.data() + (begin - buffer_offset_), kept);
        buffer_ = std::move(larger);
    } else if (kept > 0) {
        std::memmove(buffer_.data(), buffer_.data() + (begin - buffer_offset_), kept);
    }
    buffer_offset_ = begin;
    valid_ = kept;
    BLKFERRY_TRY_ASSIGN(const std::size_t n, file_->read(buffer_.bytes().subspan(kept, want - kept), begin + kept));
    valid_ = static_cast<std::size_t>(std::min<std::uint64_t>(kept + n, std::max(end, offset + bytes) - begin));
    const auto inside = static_cast<std::size_t>(offset - begin);
    return buffer_.bytes().subspan(std::min(inside, valid_), std::min(bytes, valid_ - std::min(inside, valid_)));
}

Result<EntryHeader> SegmentReader::header(Position at, Position limit, std::size_t ahead) {
    BLKFERRY_TRY_ASSIGN(const auto raw,
                        load(segment_.offset_of(at), entry_header_bytes, ahead, segment_.offset_of(limit)));
    if (raw.size() != entry_header_bytes)
        return damaged(at, "the file ends");
    auto header = decode_entry_header(raw.first<entry_header_bytes>());
    if (!header)
        return damaged(at, header.error().text);
    if (header->position != at || header->salt != segment_.header.salt)
        return damaged(at, "the entry there belongs elsewhere (old contents of a recycled file)");
    return *header;
}

Result<EntryView> SegmentReader::entry(Position at, Position limit) {
    EntryView view;
    BLKFERRY_TRY_ASSIGN(view.header, header(at, limit, ahead_bytes));
    if (view.header.type == EntryType::pad)
        return view;
    const std::uint64_t offset = segment_.offset_of(at);
    const std::size_t bytes = entry_header_bytes + view.header.length;
    BLKFERRY_TRY_ASSIGN(const auto raw, load(offset, bytes, ahead_bytes, segment_.offset_of(limit)));
    if (raw.size() != bytes)
        return damaged(at, "the file ends inside the entry");
    view.body = raw.subspan(entry_header_bytes);
    if (crc32c(view.body) != view.header.body_crc)
        return damaged(at, "entry body checksum is wrong");
    return view;
}

Result<EntryView> SegmentReader::head(Position at, Position limit, std::size_t body_bytes) {
    EntryView view;
    BLKFERRY_TRY_ASSIGN(view.header, header(at, limit, body_bytes));
    if (view.header.type == EntryType::pad)
        return view;
    const std::size_t bytes = entry_header_bytes + std::min<std::size_t>(view.header.length, body_bytes);
    BLKFERRY_TRY_ASSIGN(const auto raw, load(segment_.offset_of(at), bytes, 0, segment_.offset_of(limit)));
    if (raw.size() != bytes)
        return damaged(at, "the file ends inside the entry");
    view.body = raw.subspan(entry_header_bytes);
    return view;
}

Result<bool> SegmentReader::durable_evidence(Position from, Position at) {
    constexpr std::size_t window = 1U << 20;
    const IoBuffer raw(window + io_align);  // windows overlap: headers lie anywhere
    std::uint64_t offset = align_down(segment_.offset_of(from));
    while (offset < segment_.file_bytes) {
        BLKFERRY_TRY_ASSIGN(const std::optional<std::uint64_t> data, file_->next_data(offset));
        if (!data)
            return false;
        if (*data > offset + io_align)
            offset = align_down(*data) - io_align;
        BLKFERRY_TRY_ASSIGN(const std::size_t n, file_->read(raw.bytes(), offset));
        for (std::size_t i = 0; i < window && i + entry_header_bytes <= n; i += entry_align) {
            const auto part = std::span<const std::byte>(raw.bytes()).subspan(i).first<entry_header_bytes>();
            if (load_le<std::uint32_t>(part.data()) == 0 || load_le<std::uint64_t>(part.data() + 32) != segment_.header.salt)
                continue;
            const auto header = decode_entry_header(part);
            if (header && header->position >= from && segment_.offset_of(header->position) == offset + i &&
                header->committed > at)
                return true;
        }
        offset += window;
    }
    return false;
}

}  // namespace blkferry::store
