/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Finds writes that overlap while both are in flight: the order in which the
 * device executes them is undefined, so what they share must be re-read.
 * Exact to the sector, of fixed size, pure; the caller serializes.
 *
 * Only the later one of a pair is told (BF_OVL_HIT), and it marks the dirty
 * map when it completes.  That is enough: the earlier one was submitted
 * before, so a resync that starts after the mark waits for both.
 *
 * The disk is cut into regions of 64 sectors; a slot holds the sectors of one
 * region that are in flight.  A sector entered twice is "contested" and stays
 * in flight until its region is idle: a needless re-read costs little, a
 * missed one loses data.  Operations of more than BF_OVL_WIDE sectors
 * (discards mostly) go to a small list of whole extents.  What finds no slot is
 * reported as a hit.
 */
#ifndef BF_CORE_OVERLAP_H
#define BF_CORE_OVERLAP_H

#include "types.h"

#define BF_OVL_SHIFT		6U		/* sectors per region, log2 */
#define BF_OVL_SETS		2048U
#define BF_OVL_WAYS		8U
#define BF_OVL_WIDE		4096U		/* sectors; more is "wide" */
#define BF_OVL_WIDE_SLOTS	64U

struct bf_ovl_slot {
	u64 region;
	u64 mask;
	u64 contested;
	u64 users;
};

struct bf_ovl_wide {
	u64 first;
	u64 past;		/* 0: slot is free */
	u64 hit_first;		/* what it shares with earlier operations */
	u64 hit_past;
};

struct bf_overlap {
	u32 wide_used;
	u8 busy[BF_OVL_SETS];	/* slots in use per set */
	struct bf_ovl_wide wide[BF_OVL_WIDE_SLOTS];
	struct bf_ovl_slot slot[BF_OVL_SETS][BF_OVL_WAYS];
};

/* What enter returned is kept with the operation and given back to leave. */
#define BF_OVL_HIT		0x01U	/* overlaps something in flight, or unsure */
#define BF_OVL_LOST		0x02U	/* not in the table */
#define BF_OVL_WIDE_OP		0x04U	/* holds the wide slot BF_OVL_INDEX */
#define BF_OVL_ONE		0x08U	/* one region: holds the slot BF_OVL_SLOT */
#define BF_OVL_INDEX(r)		(((r) >> 8) & (BF_OVL_WIDE_SLOTS - 1))
#define BF_OVL_SLOT(r)		(((r) >> 8) & (BF_OVL_SETS * BF_OVL_WAYS - 1))

/* Sectors of [first, past) in a region that it meets. */
static inline u64 bf_ovl_mask(u64 region, u64 first, u64 past)
{
	u64 base = region << BF_OVL_SHIFT;
	u64 lo = first > base ? first - base : 0;
	u64 hi = past - base < 64 ? past - base : 64;

	return (~0ULL << lo) & (~0ULL >> (64 - hi));
}

/* Neighbouring regions fall into neighbouring sets. */
static inline u32 bf_ovl_hash(u64 region)
{
	return ((u32)region ^ (u32)(region >> 11) ^ (u32)(region >> 22)) & (BF_OVL_SETS - 1);
}

/* The region's slot, or a free one, or NULL. */
static inline struct bf_ovl_slot *bf_ovl_slot(struct bf_overlap *o, u32 set, u64 region)
{
	struct bf_ovl_slot *s = o->slot[set], *idle = NULL;
	u32 i;

	if (!o->busy[set])
		return s;
	for (i = 0; i < BF_OVL_WAYS; i++, s++) {
		if (!s->users)
			idle = s;
		else if (s->region == region)
			return s;
	}
	return idle;
}

static inline void bf_ovl_leave_region(struct bf_overlap *o, u64 region, u64 first, u64 past)
{
	u32 set = bf_ovl_hash(region);
	struct bf_ovl_slot *s = bf_ovl_slot(o, set, region);

	if (unlikely(!s || !s->users || s->region != region))
		return;
	if (--s->users)
		s->mask &= ~bf_ovl_mask(region, first, past) | s->contested;
	else
		o->busy[set]--;
}

/* Enter one region: > 0 overlap, 0 none, < 0 no slot. */
static inline int bf_ovl_enter_region(struct bf_overlap *o, u64 region, u64 first, u64 past)
{
	u32 set = bf_ovl_hash(region);
	struct bf_ovl_slot *s = bf_ovl_slot(o, set, region);
	u64 mask = bf_ovl_mask(region, first, past);
	u64 both;

	if (unlikely(!s))
		return -1;
	if (!s->users) {
		s->region = region;
		s->mask = mask;
		s->contested = 0;
		s->users = 1;
		o->busy[set]++;
		return 0;
	}
	both = s->mask & mask;
	s->contested |= both;
	s->mask |= mask;
	s->users++;
	return both != 0;
}

/* True if a wide operation in flight meets [first, past). */
static inline bool bf_ovl_meets_wide(const struct bf_overlap *o, u64 first, u64 past)
{
	u32 i;

	for (i = 0; i < BF_OVL_WIDE_SLOTS; i++)
		if (o->wide[i].first < past && first < o->wide[i].past)
			return true;
	return false;
}

static inline void bf_ovl_wide_add(struct bf_ovl_wide *w, u64 first, u64 past)
{
	first = bf_max64(first, w->first);
	past = bf_min64(past, w->past);
	if (first >= past)
		return;
	if (!w->hit_past) {
		w->hit_first = first;
		w->hit_past = past;
		return;
	}
	w->hit_first = bf_min64(first, w->hit_first);
	w->hit_past = bf_max64(past, w->hit_past);
}

/* Collect what w shares with the small operations in flight. */
static inline void bf_ovl_wide_small(struct bf_overlap *o, struct bf_ovl_wide *w)
{
	u32 set, i;

	for (set = 0; set < BF_OVL_SETS; set++) {
		struct bf_ovl_slot *s = o->slot[set];

		if (!o->busy[set])
			continue;
		for (i = 0; i < BF_OVL_WAYS; i++, s++) {
			u64 base = s->region << BF_OVL_SHIFT;

			if (!s->users || base >= w->past || base + 64 <= w->first ||
			    !(s->mask & bf_ovl_mask(s->region, w->first, w->past)))
				continue;
			bf_ovl_wide_add(w, base, base + 64);
		}
	}
}

static inline u32 bf_ovl_enter_wide(struct bf_overlap *o, u64 first, u64 past)
{
	struct bf_ovl_wide *w = NULL;
	u32 i, index = 0;

	for (i = 0; i < BF_OVL_WIDE_SLOTS && !w; i++) {
		if (o->wide[i].past)
			continue;
		w = &o->wide[i];
		index = i;
	}
	if (!w)
		return BF_OVL_HIT | BF_OVL_LOST;
	w->first = first;
	w->past = past;
	w->hit_first = 0;
	w->hit_past = 0;
	for (i = 0; o->wide_used && i < BF_OVL_WIDE_SLOTS; i++)
		if (i != index)
			bf_ovl_wide_add(w, o->wide[i].first, o->wide[i].past);
	bf_ovl_wide_small(o, w);
	o->wide_used++;
	return BF_OVL_WIDE_OP | index << 8 | (w->hit_past ? BF_OVL_HIT : 0);
}

/* bf_ovl_enter() for more than one region, or while a wide one is in flight. */
static inline u32 bf_ovl_enter_many(struct bf_overlap *o, u64 first, u64 past)
{
	u64 region = first >> BF_OVL_SHIFT;
	u64 last = (past - 1) >> BF_OVL_SHIFT;
	u32 res = 0;

	if (unlikely(past - first > BF_OVL_WIDE))
		return bf_ovl_enter_wide(o, first, past);
	if (unlikely(o->wide_used) && bf_ovl_meets_wide(o, first, past))
		res = BF_OVL_HIT;
	for (; region <= last; region++) {
		int hit = bf_ovl_enter_region(o, region, first, past);

		if (unlikely(hit < 0)) {
			while (region-- > first >> BF_OVL_SHIFT)
				bf_ovl_leave_region(o, region, first, past);
			return BF_OVL_HIT | BF_OVL_LOST;
		}
		if (unlikely(hit))
			res = BF_OVL_HIT;
	}
	return res;
}

/*
 * An operation on sectors [first, past) starts.  Returns BF_OVL_* flags to be
 * given to bf_ovl_leave() when it completed.
 */
static inline u32 bf_ovl_enter(struct bf_overlap *o, u64 first, u64 past)
{
	u64 region = first >> BF_OVL_SHIFT;
	u32 set = bf_ovl_hash(region);
	struct bf_ovl_slot *s = o->slot[set];

	if (unlikely(region != (past - 1) >> BF_OVL_SHIFT || o->wide_used || o->busy[set]))
		return bf_ovl_enter_many(o, first, past);
	o->busy[set] = 1;
	s->region = region;
	s->mask = ~0ULL >> ((first - past) & 63) << (first & 63);
	s->contested = 0;
	s->users = 1;
	return BF_OVL_ONE | set * BF_OVL_WAYS << 8;
}

/* bf_ovl_leave() for all but BF_OVL_ONE. */
static inline bool bf_ovl_leave_many(struct bf_overlap *o, u64 first, u64 past, u32 entered,
				u64 *mark_first, u64 *mark_past)
{
	u64 region = first >> BF_OVL_SHIFT;
	u64 last = (past - 1) >> BF_OVL_SHIFT;

	*mark_first = first;
	*mark_past = past;
	if (unlikely(entered & BF_OVL_WIDE_OP)) {
		struct bf_ovl_wide *w = &o->wide[BF_OVL_INDEX(entered)];

		*mark_first = w->hit_first;
		*mark_past = w->hit_past;
		memset(w, 0, sizeof(*w));
		o->wide_used--;
	} else if (likely(!(entered & BF_OVL_LOST))) {
		for (; region <= last; region++)
			bf_ovl_leave_region(o, region, first, past);
	}
	return entered & BF_OVL_HIT;
}

/*
 * Leave, if the operation was simple (BF_OVL_ONE) and alone in its region to
 * the end; else bf_ovl_leave() has to be called.
 */
static inline bool bf_ovl_leave_one(struct bf_overlap *o, u32 entered)
{
	u32 slot = BF_OVL_SLOT(entered);
	struct bf_ovl_slot *s = &o->slot[slot / BF_OVL_WAYS][slot % BF_OVL_WAYS];

	if (unlikely(!(entered & BF_OVL_ONE) || s->users != 1))
		return false;
	s->users = 0;
	o->busy[slot / BF_OVL_WAYS]--;
	return true;
}

/*
 * The operation completed.  Returns true if [*mark_first, *mark_past) has to
 * be re-read.
 */
static inline bool bf_ovl_leave(struct bf_overlap *o, u64 first, u64 past, u32 entered,
				u64 *mark_first, u64 *mark_past)
{
	return !bf_ovl_leave_one(o, entered) &&
	       bf_ovl_leave_many(o, first, past, entered, mark_first, mark_past);
}

#endif /* BF_CORE_OVERLAP_H */
