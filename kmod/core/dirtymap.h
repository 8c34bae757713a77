/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The dirty map: "active" is written by capture, "snapshot" is what a resync
 * round has still to ship.  The caller serializes (the disk's lock).
 *
 * A switch moves every active bit into the snapshot, but the map is too large
 * to be moved at once.  It is cut into chunks of one page; while a move is
 * under way a chunk is moved either by the mover or, first, by whoever wants to
 * set a bit in it.  So bits set after the switch stay in active, and the
 * switch takes effect for the whole map at one moment.
 */
#ifndef BF_CORE_DIRTYMAP_H
#define BF_CORE_DIRTYMAP_H

#include "types.h"

#define BF_MAP_CHUNK_WORDS	512U			/* one page */
#define BF_MAP_CHUNK_SHIFT	15U			/* log2 of its bits */
#define BF_MAP_CHUNK_BITS	(1U << BF_MAP_CHUNK_SHIFT)

struct bf_map {
	u64 *active;
	u64 *snap;
	u8 *moved;		/* per chunk: == turn once the running move took it */
	u64 nbits;
	u64 nwords;		/* a multiple of nothing; last word may be partial */
	u64 nchunks;
	u64 active_bits;	/* how many are set */
	u64 snap_bits;
	u8 turn;
	bool moving;
};

static inline u64 bf_map_words(u64 nbits)
{
	return (nbits + 63) >> 6;
}

static inline u64 bf_map_chunks(u64 nbits)
{
	return (nbits + BF_MAP_CHUNK_BITS - 1) >> BF_MAP_CHUNK_SHIFT;
}

/* The memory is the caller's: zeroed, words and chunks as computed above. */
static inline void bf_map_init(struct bf_map *m, u64 nbits, u64 *active, u64 *snap, u8 *moved)
{
	memset(m, 0, sizeof(*m));
	m->active = active;
	m->snap = snap;
	m->moved = moved;
	m->nbits = nbits;
	m->nwords = bf_map_words(nbits);
	m->nchunks = bf_map_chunks(nbits);
}

/* Bits of word w that lie in [first, past). */
static inline u64 bf_map_mask(u64 w, u64 first, u64 past)
{
	u64 mask = ~0ULL;

	if (w == first >> 6)
		mask <<= first & 63;
	if (w == (past - 1) >> 6)
		mask &= ~0ULL >> (63 - ((past - 1) & 63));
	return mask;
}

/* Move one chunk if the running move has not taken it yet. */
static inline void bf_map_move_chunk(struct bf_map *m, u64 chunk)
{
	u64 w = chunk * BF_MAP_CHUNK_WORDS;
	u64 end = bf_min64(w + BF_MAP_CHUNK_WORDS, m->nwords);

	if (m->moved[chunk] == m->turn)
		return;
	m->moved[chunk] = m->turn;
	for (; w < end; w++) {
		u64 bits = m->active[w];

		if (!bits)
			continue;
		m->active_bits -= bf_popcount64(bits);
		m->snap_bits += bf_popcount64(bits & ~m->snap[w]);
		m->snap[w] |= bits;
		m->active[w] = 0;
	}
}

static inline void bf_map_move_begin(struct bf_map *m)
{
	m->turn ^= 1;
	m->moving = true;
}

/* Only after bf_map_move_chunk() was called for every chunk. */
static inline void bf_map_move_end(struct bf_map *m)
{
	m->moving = false;
}

/* Set [first, past) in active; 0 <= first < past <= nbits. */
static inline void bf_map_mark(struct bf_map *m, u64 first, u64 past)
{
	u64 w = first >> 6;
	u64 last = (past - 1) >> 6;

	if (unlikely(m->moving)) {
		u64 c = first >> BF_MAP_CHUNK_SHIFT;

		for (; c <= (past - 1) >> BF_MAP_CHUNK_SHIFT; c++)
			bf_map_move_chunk(m, c);
	}
	for (; w <= last; w++) {
		u64 add = bf_map_mask(w, first, past) & ~m->active[w];

		if (add) {
			m->active[w] |= add;
			m->active_bits += bf_popcount64(add);
		}
	}
}

/* Clear [first, past) in the snapshot. */
static inline void bf_map_clear_snap(struct bf_map *m, u64 first, u64 past)
{
	u64 w = first >> 6;
	u64 last = (past - 1) >> 6;

	for (; w <= last; w++) {
		u64 del = bf_map_mask(w, first, past) & m->snap[w];

		if (del) {
			m->snap[w] &= ~del;
			m->snap_bits -= bf_popcount64(del);
		}
	}
}

#endif /* BF_CORE_DIRTYMAP_H */
