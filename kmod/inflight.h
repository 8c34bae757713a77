/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The table of captured writes in flight, one for all disks, keyed by bio
 * pointer.  Fixed size, no locks: a key is claimed by cmpxchg; an armed entry's
 * word holds the bytes that have not completed, and whoever brings them to 0
 * owns the entry's end.  The word carries a generation, so an update of an
 * entry that was recycled meanwhile fails.
 */
#ifndef BF_INFLIGHT_H
#define BF_INFLIGHT_H

#include <linux/atomic.h>
#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/cache.h>
#include <linux/hash.h>
#include <linux/types.h>

struct bio;
struct bf_disk;
struct blkferry_desc;

#define BF_BUCKET		4U

enum bf_kind {
	BF_KIND_RING,		/* has a descriptor that waits for its end */
	BF_KIND_DIRTY,		/* to be marked again at completion */
	BF_KIND_ZOMBIE,		/* the watchdog gave up; mark if it ends after all */
	BF_KIND_NONE,		/* nothing to do; known, so no surprise */
};

/* bits of bf_entry.word */
#define BF_WORD_LEFT		0xffffffffULL	/* bytes not completed */
#define BF_WORD_ERROR		(1ULL << 32)
#define BF_WORD_GEN		(1ULL << 40)	/* one generation */

struct bf_entry {
	atomic64_t word;
	unsigned long key;		/* copy of the slot's key */
	unsigned long *slot;		/* where the key is; constant */
	struct bf_disk *disk;
	struct blkferry_desc *desc;	/* BF_KIND_RING */
	u64 sector;			/* all others */
	u32 nr_sectors;
	u32 ovl;			/* what bf_ovl_enter() returned, BF_KIND_RING */
	u32 born;			/* jiffies */
	u8 kind;			/* enum bf_kind */
	u8 parity;
	bool alt;			/* sits in the alternate bucket */
} ____cacheline_aligned_in_smp;

/* The table; constant after module init but for what it points to. */
struct bf_inflight {
	unsigned long *keys;		/* 0: free */
	struct bf_entry *entries;
	u32 shift;			/* 64 - log2 of buckets */
	atomic_t alt_live;		/* entries in alternate buckets */
};

extern struct bf_inflight bf_inflight;

int bf_inflight_init(void);
void bf_inflight_exit(void);
u32 bf_inflight_size(void);
struct bf_entry *bf_inflight_claim_slow(const struct bio *bio, struct bf_entry **old);
struct bf_entry *bf_inflight_find_alt(const struct bio *bio);

/* Index of the first slot of a bio's bucket.  The mask tells a checking compiler what is so anyway. */
static __always_inline u32 bf_inflight_bucket(const struct bio *bio)
{
	u64 hash = (u64)(unsigned long)bio * GOLDEN_RATIO_64;

	return (u32)(hash >> (bf_inflight.shift & 63)) * BF_BUCKET;
}

static __always_inline struct bf_entry *bf_inflight_scan(u32 first, const struct bio *bio)
{
	const unsigned long *keys = &bf_inflight.keys[first];
	u32 i;

#pragma GCC unroll 4
	for (i = 0; i < BF_BUCKET; i++)
		if (data_race(keys[i]) == (unsigned long)bio)
			return &bf_inflight.entries[first + i];
	return NULL;
}

/* The entry of a bio, or NULL.  Probes only. */
static __always_inline struct bf_entry *bf_inflight_find(const struct bio *bio)
{
	struct bf_entry *e = bf_inflight_scan(bf_inflight_bucket(bio), bio);

	if (likely(e))
		return e;
	if (unlikely(atomic_read(&bf_inflight.alt_live)))
		return bf_inflight_find_alt(bio);
	return NULL;
}

/*
 * A slot for a bio that is about to be submitted, not armed yet.  NULL: its
 * bucket is not simply free, ask bf_inflight_claim_slow().
 */
static __always_inline struct bf_entry *bf_inflight_claim(const struct bio *bio)
{
	unsigned long key = (unsigned long)bio, zero = 0;
	u32 first = bf_inflight_bucket(bio);
	unsigned long *keys = &bf_inflight.keys[first];
	struct bf_entry *e;

	BUILD_BUG_ON(BF_BUCKET != 4);
	if (unlikely(data_race(keys[0]) || data_race(keys[1]) == key ||
		     data_race(keys[2]) == key || data_race(keys[3]) == key ||
		     atomic_read(&bf_inflight.alt_live)))
		return NULL;
	if (unlikely(!try_cmpxchg(&keys[0], &zero, key)))
		return NULL;
	e = &bf_inflight.entries[first];
	WRITE_ONCE(e->key, key);
	return e;
}

/* The entry is complete; completions may use it from now on. */
static __always_inline void bf_inflight_arm(struct bf_entry *e, u32 bytes)
{
	/* left is 0, and whoever ended the entry cleared the error */
	atomic64_set_release(&e->word, atomic64_read(&e->word) + (s64)(BF_WORD_GEN + bytes));
}

/* Give back an entry that was never armed, or whose end the caller owns. */
static __always_inline void bf_inflight_free(struct bf_entry *e)
{
	if (unlikely(e->alt)) {
		e->alt = false;
		smp_store_release(e->slot, 0UL);
		atomic_dec(&bf_inflight.alt_live);
		return;
	}
	smp_store_release(e->slot, 0UL);
}

enum bf_sub {
	BF_SUB_STALE,		/* not this bio's entry any more */
	BF_SUB_MORE,		/* bytes are left */
	BF_SUB_LAST,		/* the caller owns the end */
};

/*
 * bytes of the bio (key) completed; all of the rest if bytes is 0.  *before is
 * the word as it was, with BF_WORD_ERROR set if anything failed so far.
 */
static __always_inline enum bf_sub bf_inflight_sub(struct bf_entry *e, unsigned long key,
						   u32 bytes, bool error, u64 *before)
{
	s64 old, new;

	do {
		u32 left;

		old = atomic64_read_acquire(&e->word);
		left = old & BF_WORD_LEFT;
		if (unlikely(!left || READ_ONCE(e->key) != key))
			return BF_SUB_STALE;
		new = bytes && bytes < left ? old - bytes : old & ~(s64)BF_WORD_LEFT;
		if (unlikely(error))
			new |= BF_WORD_ERROR;
		/* the last one hands the error to its caller and clears it */
		*before = old | (new & BF_WORD_ERROR);
		if (!(new & BF_WORD_LEFT))
			new &= ~BF_WORD_ERROR;
	} while (unlikely(!atomic64_try_cmpxchg(&e->word, &old, new)));
	return new & BF_WORD_LEFT ? BF_SUB_MORE : BF_SUB_LAST;
}

/*
 * For sweepers, which know an entry but not its bio: take the end of an armed
 * entry of disk d.  False if there is nothing to take.
 */
static inline bool bf_inflight_take(struct bf_entry *e, const struct bf_disk *d)
{
	s64 old = atomic64_read_acquire(&e->word);

	if (!(old & BF_WORD_LEFT) || READ_ONCE(e->disk) != d)
		return false;
	return atomic64_try_cmpxchg(&e->word, &old, old & ~(BF_WORD_LEFT | BF_WORD_ERROR));
}

#endif /* BF_INFLIGHT_H */
