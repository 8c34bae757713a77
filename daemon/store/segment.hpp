// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/file.hpp"
#include "store/io_buffer.hpp"
#include "store/journal_format.hpp"

namespace blkferry::store {

/// An entry as a reader or the scan sees it; the view ends with the next call on what gave it.
struct EntryView {
    EntryHeader header;
    std::span<const std::byte> body;
    [[nodiscard]] Position position() const noexcept { return header.position; }
    [[nodiscard]] Position end() const noexcept { return header.position + header.whole_bytes(); }
};

/// A segment file that holds entries from header.first up to the first position of the next segment.
struct Segment {
    SegmentHeader header;
    std::filesystem::path path;
    std::uint64_t file_bytes = 0;

    [[nodiscard]] std::uint64_t offset_of(Position at) const noexcept {
        return segment_header_bytes + (at - header.first);
    }
};

/// A segment file whose header cannot be trusted.
struct DamagedSegment {
    std::uint64_t number = 0;
    std::filesystem::path path;
    Error error;
};

/// The files of a journal's folder.
struct SegmentList {
    std::vector<Segment> live;                  ///< ascending; each ends where the next begins
    std::vector<std::filesystem::path> dead;    ///< void: a later segment begins at or before them
    std::vector<std::filesystem::path> spares;  ///< "*.spare": recycled, or cut short while being made
    std::vector<DamagedSegment> damaged;        ///< bad headers; what they held is lost
    std::uint64_t next_number = 1;
};
/// Reads and checks every segment header. A segment under its final name always had a good one (it is made under another
/// name), so a bad one is damage.
[[nodiscard]] Result<SegmentList> list_segments(FileSystem& files, const std::filesystem::path& dir, const Uuid& store);

/// Reads entries of one segment file, around the page cache where the file system can, through one buffer of whole blocks
/// (at most an entry and what is read ahead). One thread.
class SegmentReader {
public:
    [[nodiscard]] Result<void> open(FileSystem& files, const Segment& segment);
    [[nodiscard]] bool is_open() const noexcept { return file_ != nullptr; }
    [[nodiscard]] const Segment& segment() const noexcept { return segment_; }

    /// The entry at `at`, its body verified. Reads nothing at or behind position `limit`. Errc::corrupt, naming segment
    /// and byte, if there is no good entry of this segment.
    [[nodiscard]] Result<EntryView> entry(Position at, Position limit);
    /// The same without verifying the body, of which only the first `body_bytes` are there.
    [[nodiscard]] Result<EntryView> head(Position at, Position limit, std::size_t body_bytes);
    /// Looks from position `from` on for an entry that says that position `at` was durable.
    [[nodiscard]] Result<bool> durable_evidence(Position from, Position at);

private:
    static constexpr std::size_t ahead_bytes = 1U << 20;
    [[nodiscard]] Result<std::span<const std::byte>> load(std::uint64_t offset, std::size_t bytes, std::size_t ahead,
                                                          std::uint64_t end);
    [[nodiscard]] Result<EntryHeader> header(Position at, Position limit, std::size_t ahead);
    [[nodiscard]] std::unexpected<Error> damaged(Position at, std::string_view why) const;

    std::unique_ptr<File> file_;
    Segment segment_;
    IoBuffer buffer_;
    std::size_t valid_ = 0;            ///< bytes of buffer_ that hold data
    std::uint64_t buffer_offset_ = 0;  ///< file offset of the buffer's begin, a whole block
};

}  // namespace blkferry::store
