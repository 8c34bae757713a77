// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "store/file.hpp"
#include "store/journal_format.hpp"
#include "store/segment.hpp"

namespace blkferry::store {

/// What journal_scan() found.
struct JournalScan {
    SegmentList segments;    ///< none live: a new journal
    Position from = 0;       ///< where it began
    Position end = 0;        ///< behind the last good entry
    Position committed = 0;  ///< everything below is known to have been durable
    std::optional<Error> damage;  ///< something durable behind `end` cannot be read any more: names segment and byte
    bool torn = false;       ///< what follows `end` is no good entry: not written, or never durable
};

/// Reads every entry from `from` on, in order, but for padding. An incomplete tail ends it, and so does damage to something
/// that was durable, which is told in `damage`. `visit` may stop it with an error.
[[nodiscard]] Result<JournalScan> journal_scan(FileSystem& files, const std::filesystem::path& dir, const Uuid& store,
                                               Position from,
                                               const std::function<Result<void>(const EntryView&)>& visit);

}  // namespace blkferry::store
