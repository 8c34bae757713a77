// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's dirty map, range arithmetic and overlap table in user space, with hostile ranges and any order of marks,
 * moves, clears, writes that start and writes that end; against plain bitmaps.
 */
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/dirtymap.h"
#include "core/extent.h"
#include "core/overlap.h"

namespace {

constexpr u64 nbits = 2 * BF_MAP_CHUNK_BITS + 77;
constexpr u32 shift = 3;
constexpr u64 end_sector = (nbits << shift) - 5; /* the last block is cut */

void require(bool condition) {
    if (!condition)
        abort();
}

struct Write {
    u64 first, past;
    u32 entered;
};

struct State {
    std::vector<u64> active = std::vector<u64>(bf_map_words(nbits));
    std::vector<u64> snap = std::vector<u64>(bf_map_words(nbits));
    std::vector<u8> moved = std::vector<u8>(bf_map_chunks(nbits));
    bf_map map{};
    std::bitset<nbits> want_active, want_snap;
    std::unique_ptr<bf_overlap> overlap = std::make_unique<bf_overlap>();
    std::vector<Write> writes;

    State() { bf_map_init(&map, nbits, active.data(), snap.data(), moved.data()); }
};

/* The first byte of an operation says what; then a sector and a length of 8 bytes each, reduced or not. */
struct Op {
    u8 kind, flags;
    u64 sector, nr;
};

void check_range(const Op& op) {
    const u64 clipped = bf_extent_clip(op.sector, op.nr, end_sector);
    require(clipped <= op.nr && (clipped == 0 || op.sector + clipped <= end_sector));
    if (!bf_extent_valid(op.sector, op.nr, end_sector))
        return;
    require(clipped == op.nr);
    u64 outer_past = 0, inner_past = 0;
    const u64 outer = bf_extent_outer(op.sector, op.nr, shift, &outer_past);
    const u64 inner = bf_extent_inner(op.sector, op.nr, end_sector, shift, &inner_past);
    require(outer < outer_past && outer_past <= nbits);
    require(inner >= outer && inner_past <= outer_past);
    require(outer << shift <= op.sector && outer_past << shift >= op.sector + op.nr);
}

void map_op(State& s, const Op& op) {
    if (!bf_extent_valid(op.sector, op.nr, end_sector))
        return;
    u64 past = 0;
    u64 first = bf_extent_outer(op.sector, op.nr, shift, &past);
    switch (op.kind % 4) {
    case 0:
        bf_map_mark(&s.map, first, past);
        for (; first < past; first++)
            s.want_active.set(first);
        break;
    case 1:
        first = bf_extent_inner(op.sector, op.nr, end_sector, shift, &past);
        if (first >= past || s.map.moving)
            break;
        bf_map_clear_snap(&s.map, first, past);
        for (; first < past; first++)
            s.want_snap.reset(first);
        break;
    case 2:
        if (s.map.moving)
            break;
        /* The switch takes effect now, whatever is moved when. */
        bf_map_move_begin(&s.map);
        s.want_snap |= s.want_active;
        s.want_active.reset();
        break;
    default:
        if (!s.map.moving)
            break;
        bf_map_move_chunk(&s.map, op.sector % s.map.nchunks);
        if ((op.flags & 1) == 0)
            break;
        for (u64 c = 0; c < s.map.nchunks; c++)
            bf_map_move_chunk(&s.map, c);
        bf_map_move_end(&s.map);
    }
}

void overlap_op(State& s, const Op& op) {
    if (op.kind % 2 == 0 && s.writes.size() < 200) {
        if (!bf_extent_valid(op.sector, op.nr, end_sector))
            return;
        Write w{op.sector, op.sector + op.nr, 0};
        bool meets = false;
        for (const Write& o : s.writes)
            meets = meets || (o.first < w.past && w.first < o.past);
        w.entered = bf_ovl_enter(s.overlap.get(), w.first, w.past);
        /* May tell more than there is, never less. */
        require(!meets || (w.entered & BF_OVL_HIT) != 0);
        s.writes.push_back(w);
    } else if (!s.writes.empty()) {
        const size_t i = op.sector % s.writes.size();
        const Write w = s.writes[i];
        u64 mark_first = 0, mark_past = 0;
        const bool mark = bf_ovl_leave(s.overlap.get(), w.first, w.past, w.entered, &mark_first, &mark_past);
        require(mark == ((w.entered & BF_OVL_HIT) != 0));
        require(!mark || (mark_first < mark_past && mark_first >= w.first && mark_past <= w.past));
        s.writes.erase(s.writes.begin() + static_cast<std::ptrdiff_t>(i));
    }
}

void finish(State& s) {
    if (s.map.moving) {
        for (u64 c = 0; c < s.map.nchunks; c++)
            bf_map_move_chunk(&s.map, c);
        bf_map_move_end(&s.map);
    }
    require(s.map.active_bits == s.want_active.count() && s.map.snap_bits == s.want_snap.count());
    for (u64 b = 0; b < nbits; b++) {
        require(((s.active[b >> 6] >> (b & 63)) & 1) == s.want_active[b]);
        require(((s.snap[b >> 6] >> (b & 63)) & 1) == s.want_snap[b]);
    }
    while (!s.writes.empty())
        overlap_op(s, Op{1, 0, 0, 0});
    for (u32 set = 0; set < BF_OVL_SETS; set++)
        require(s.overlap->busy[set] == 0);
    require(s.overlap->wide_used == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    State s;
    for (size_t ops = 0; size >= 18 && ops < 400; data += 18, size -= 18, ops++) {
        Op op{data[0], data[1], 0, 0};
        memcpy(&op.sector, data + 2, 8);
        memcpy(&op.nr, data + 10, 8);
        check_range(op);
        if ((op.flags & 0x80) == 0) {
            op.sector %= end_sector;
            op.nr = 1 + op.nr % ((op.flags & 0x40) != 0 ? end_sector : 300);
            op.nr = bf_extent_clip(op.sector, op.nr, end_sector);
            check_range(op);
        }
        if ((op.kind & 0x80) == 0)
            map_op(s, op);
        else
            overlap_op(s, op);
    }
    finish(s);
    return 0;
}
