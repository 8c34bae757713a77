// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace blkferry::capture {

/// A dirty map as capture/ebpf/block_probe.h lays it out, in memory that the kernel's programs write at the same time: a bit per block in
/// `fine`, a bit per 4096 blocks in `coarse`. Every access is an atomic of one word; any thread, also several.
struct DirtyWords {
    std::span<std::uint64_t> fine;
    std::span<std::uint64_t> coarse;
    std::uint64_t blocks = 0;
};

/// Words that a map of `blocks` needs: fine, then coarse.
[[nodiscard]] std::uint64_t fine_words(std::uint64_t blocks) noexcept;
[[nodiscard]] std::uint64_t coarse_words(std::uint64_t blocks) noexcept;

/// Sets the blocks [first, past); past <= blocks.
void mark_blocks(const DirtyWords& map, std::uint64_t first, std::uint64_t past) noexcept;
/// Moves every bit into `snap` (a plain map of the same blocks, which only the caller touches) and leaves the map empty, but for what
/// is set meanwhile: a bit is in one of the two at each moment. Returns how many bits of `snap` were clear before.
std::uint64_t take_blocks(const DirtyWords& map, std::span<std::uint64_t> snap) noexcept;
/// Blocks that are set; a coarse bit counts as all of its blocks, so this may be more than there are to read.
[[nodiscard]] std::uint64_t count_blocks(const DirtyWords& map) noexcept;
/// Clears [first, past) of a plain map; returns how many were set.
std::uint64_t clear_blocks(std::span<std::uint64_t> snap, std::uint64_t first, std::uint64_t past) noexcept;

}  // namespace blkferry::capture
