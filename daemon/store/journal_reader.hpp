// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "store/file.hpp"
#include "store/journal_format.hpp"
#include "store/segment.hpp"

namespace blkferry::store {

/// Reads entries (but padding) in order from a position, also while the journal grows: the caller says how far it may go (the committed
/// position). Uses its own descriptors; holds one segment open and one buffer (a little over two frames). One thread.
class JournalReader {
public:
    JournalReader(FileSystem& files, std::filesystem::path dir, const Uuid& store, Position at);

    [[nodiscard]] Position position() const noexcept { return at_; }
    /// Jumps; the next read begins there.
    void seek(Position at) noexcept { at_ = at; }

    /// The next entry, which must end at or below `limit`; moves behind it. Errc::again at the limit, Errc::corrupt
    /// (naming segment and byte) for damage, Errc::not_found if the position was dropped from the journal.
    [[nodiscard]] Result<EntryView> next(Position limit);
    /// Like next() but only the header and up to `body_bytes` of the body (not verified); moves behind the entry.
    [[nodiscard]] Result<EntryView> next_head(Position limit, std::size_t body_bytes);

private:
    [[nodiscard]] Result<void> locate(Position limit);
    template <class Read>
    [[nodiscard]] Result<EntryView> step(Position limit, Read&& read);
    template <class Read>
    [[nodiscard]] Result<EntryView> step_over_pads(Position limit, Read&& read);

    FileSystem& files_;
    const std::filesystem::path dir_;
    const Uuid store_;
    Position at_;
    SegmentReader reader_;
    Position segment_end_ = 0;  ///< first position of the following segment; unknown (the largest) for the newest
};

}  // namespace blkferry::store
