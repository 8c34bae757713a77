// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <vector>

#include "codec/compress.hpp"
#include "store/hand_off.hpp"
#include "store/journal_reader.hpp"

namespace blkferry::store {

/// The journal as the applier reads it: verified, decoded entries, from memory while they are there (HandOff), else from the
/// files. One thread.
class EntrySource {
public:
    /// `hand_off` may be null.
    EntrySource(FileSystem& files, const std::filesystem::path& dir, const Uuid& store, HandOff* hand_off);

    /// The first entry at or behind `at`, which must end at or below `limit`; errors as JournalReader's. The view ends with
    /// the next call.
    [[nodiscard]] Result<JournalEntry> next(Position at, Position limit);

    struct BatchEnd {
        Position position = 0;
        bool is_void = false;  ///< a SESSION entry at `position` ended it: it does not count
    };
    /// Where the batch ends that begins with `head`.
    [[nodiscard]] Result<BatchEnd> batch_end(const JournalEntry& head, Position limit);

private:
    HandOff* const hand_off_;
    JournalReader reader_;
    JournalReader scout_;  ///< looks for the end of a batch
    Decompressor decompressor_;
    std::vector<std::byte> scratch_;
    JournalEntry held_;    ///< the last one from memory: keeps its body
};

}  // namespace blkferry::store
