// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "proto/frame.hpp"
#include "store/io_buffer.hpp"
#include "store/journal_format.hpp"

namespace blkferry::store {

/// A verified entry of the journal. Frames are decoded: `body` is what the frame carries, after decompression.
struct JournalEntry {
    EntryType type = EntryType::frame;
    Position position = 0;
    Position end = 0;                    ///< behind it
    proto::FrameHeader header;           ///< of type frame
    std::span<const std::byte> body;
    std::shared_ptr<const void> owner;   ///< keeps `body` alive; null: the next call on what gave it may end the view
};

/// The newest entries of a journal, in memory, as they were received: the apply worker takes them from here as long as it
/// keeps up, and reads the file otherwise. Holds at most `bytes_max` of bodies, the oldest go first. Any thread.
///
///     loop    append → push(entry) …, push_batch(begin, end)        worker    find(position), batch_end(position)
class HandOff {
public:
    explicit HandOff(std::size_t bytes_max) : bytes_max_(bytes_max) {}

    /// The entry behind the one pushed last (but for padding). Every entry of the journal has to come here.
    void push(JournalEntry entry);
    /// A complete batch lies between these positions.
    void push_batch(Position begin, Position end);

    /// The first entry at or behind `at`, if it is here. What lies before it is not asked for again and goes.
    [[nodiscard]] std::optional<JournalEntry> find(Position at);
    /// The end of the complete batch whose first entry is at `begin`, if known.
    [[nodiscard]] std::optional<Position> batch_end(Position begin);
    /// Forgets the entries (not the batches): memory of a source that fell idle.
    void trim();
    [[nodiscard]] std::size_t bytes() const;

private:
    static constexpr std::size_t batches_max = 4096;
    static constexpr std::size_t entries_max = 16384;
    struct Held {
        JournalEntry entry;
        Position after;  ///< end of the entry before it: nothing but padding lies between
    };
    struct Batch {
        Position begin, end;
    };
    void drop_front();

    const std::size_t bytes_max_;
    mutable std::mutex lock_;
    std::deque<Held> entries_;
    std::deque<Batch> batches_;
    Position last_end_ = 0;
    std::size_t bytes_ = 0;
};

/// Memory for bodies, one behind the other in pooled buffers. One thread; what it gave lives as long as its owner.
class BodyArena {
public:
    struct Piece {
        std::span<std::byte> bytes;
        std::shared_ptr<IoBuffer> owner;
    };
    /// `pool` has buffers of at least the largest body.
    explicit BodyArena(BufferPool& pool) : pool_(pool) {}

    [[nodiscard]] Piece take(std::size_t bytes);
    void trim() noexcept { buffer_.reset(); }

private:
    BufferPool& pool_;
    std::shared_ptr<IoBuffer> buffer_;
    std::size_t used_ = 0;
};

}  // namespace blkferry::store
