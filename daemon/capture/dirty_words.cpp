// SPDX-License-Identifier: Apache-2.0
#include "capture/dirty_words.hpp"

#include <algorithm>
#include <atomic>
#include <bit>

#include "capture/ebpf/block_probe.h"

namespace blkferry::capture {

namespace {

constexpr std::uint64_t all = ~std::uint64_t{0};

std::uint64_t bits(std::uint64_t word) noexcept {
    return static_cast<std::uint64_t>(std::popcount(word));
}

/// Bits of word `w` that lie in [first, past).
std::uint64_t mask_of(std::uint64_t w, std::uint64_t first, std::uint64_t past) noexcept {
    std::uint64_t mask = all;
    if (w == first >> 6)
        mask <<= first & 63;
    if (w == (past - 1) >> 6)
        mask &= all >> (63 - ((past - 1) & 63));
    return mask;
}

/// Sets [first, past) of a plain map; returns how many were clear.
std::uint64_t set_blocks(std::span<std::uint64_t> snap, std::uint64_t first, std::uint64_t past) noexcept {
    std::uint64_t added = 0;
    for (std::uint64_t w = first >> 6; first < past && w <= (past - 1) >> 6; ++w) {
        const std::uint64_t add = mask_of(w, first, past) & ~snap[w];
        snap[w] |= add;
        added += bits(add);
    }
    return added;
}

std::uint64_t take_word(std::uint64_t& word) noexcept {
    std::atomic_ref<std::uint64_t> a(word);
    return a.load(std::memory_order_relaxed) == 0 ? 0 : a.exchange(0, std::memory_order_seq_cst);
}

}  // namespace

std::uint64_t fine_words(std::uint64_t blocks) noexcept {
    return (blocks + 63) >> 6;
}

std::uint64_t coarse_words(std::uint64_t blocks) noexcept {
    return (((blocks + BF_PROBE_COARSE - 1) >> BF_PROBE_COARSE_SHIFT) + 63) >> 6;
}

void mark_blocks(const DirtyWords& map, std::uint64_t first, std::uint64_t past) noexcept {
    for (std::uint64_t w = first >> 6; first < past && w <= (past - 1) >> 6; ++w)
        std::atomic_ref<std::uint64_t>(map.fine[w]).fetch_or(mask_of(w, first, past));
}

std::uint64_t take_blocks(const DirtyWords& map, std::span<std::uint64_t> snap) noexcept {
    std::uint64_t added = 0;
    for (std::uint64_t w = 0; w < map.coarse.size(); ++w)
        for (std::uint64_t word = take_word(map.coarse[w]); word != 0; word &= word - 1) {
            const std::uint64_t first = ((w << 6) + static_cast<unsigned>(std::countr_zero(word))) << BF_PROBE_COARSE_SHIFT;
            added += set_blocks(snap, std::min(first, map.blocks), std::min(first + BF_PROBE_COARSE, map.blocks));
        }
    for (std::uint64_t w = 0; w < map.fine.size(); ++w) {
        const std::uint64_t word = take_word(map.fine[w]);
        added += bits(word & ~snap[w]);
        snap[w] |= word;
    }
    return added;
}

std::uint64_t count_blocks(const DirtyWords& map) noexcept {
    std::uint64_t n = 0;
    for (std::uint64_t& word : map.coarse)
        n += bits(std::atomic_ref<std::uint64_t>(word).load(std::memory_order_relaxed)) << BF_PROBE_COARSE_SHIFT;
    for (std::uint64_t& word : map.fine)
        n += bits(std::atomic_ref<std::uint64_t>(word).load(std::memory_order_relaxed));
    return std::min(n, map.blocks);
}

std::uint64_t clear_blocks(std::span<std::uint64_t> snap, std::uint64_t first, std::uint64_t past) noexcept {
    std::uint64_t removed = 0;
    for (std::uint64_t w = first >> 6; first < past && w <= (past - 1) >> 6; ++w) {
        const std::uint64_t del = mask_of(w, first, past) & snap[w];
        snap[w] &= ~del;
        removed += bits(del);
    }
    return removed;
}

}  // namespace blkferry::capture
