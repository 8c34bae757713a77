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
#include <linux/cache.h>
#include <linux/hash.h>
#include <linux/types.h>

struct bio;
struct bf_disk;

#define BF_BUCKET		8U

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
	struct bf_disk *disk;
	u64 sector;
	u64 index;		/* of the descriptor, BF_KIND_RING */
	u32 nr_sectors;
	u32 ovl;		/* what bf_ovl_enter() returned */
	u32 born;		/* jiffies */
	u8 kind;		/* enum bf_kind */
	u8 parity;
	bool alt;		/* sits in the alternate bucket */
} ____cacheline_aligned_in_smp;

extern unsigned long *bf_keys;		/* 0: free */
extern struct bf_entry *bf_entries;
extern u32 bf_bucket_shift;
extern atomic_t bf_alt_live;		/* entries in alternate buckets */

int bf_inflight_init(void);
void bf_inflight_exit(void);
u32 bf_inflight_size(void);
struct bf_entry *bf_inflight_claim(const struct bio *bio, struct bf_entry **old);
struct bf_entry *bf_inflight_find_alt(const struct bio *bio);

static __always_inline u32 bf_inflight_bucket(const struct bio *bio)
{
	return hash_ptr(bio, bf_bucket_shift) * BF_BUCKET;
}

static __always_inline struct bf_entry *bf_inflight_scan(u32 first, const struct bio *bio)
{
	u32 i;

#pragma GCC unroll 8
	for (i = 0; i < BF_BUCKET; i++)
		if (READ_ONCE(bf_keys[first + i]) == (unsigned long)bio)
			return &bf_entries[first + i];
	return NULL;
}

/* The entry of a bio, or NULL.  Probes only. */
static __always_inline struct bf_entry *bf_inflight_find(const struct bio *bio)
{
	struct bf_entry *e = bf_inflight_scan(bf_inflight_bucket(bio), bio);

	if (likely(e))
		return e;
	if (unlikely(atomic_read(&bf_alt_live)))
		return bf_inflight_find_alt(bio);
	return NULL;
}

static __always_inline unsigned long *bf_inflight_key(const struct bf_entry *e)
{
	return &bf_keys[e - bf_entries];
}

/* The entry is complete; completions may use it from now on. */
static __always_inline void bf_inflight_arm(struct bf_entry *e, u32 bytes)
{
	u64 gen = (atomic64_read(&e->word) & ~(BF_WORD_GEN - 1)) + BF_WORD_GEN;

	atomic64_set_release(&e->word, gen | bytes);
}

/* Give back an entry that was never armed, or whose end the caller owns. */
static __always_inline void bf_inflight_free(struct bf_entry *e)
{
	if (unlikely(e->alt)) {
		e->alt = false;
		smp_store_release(bf_inflight_key(e), 0UL);
		atomic_dec(&bf_alt_live);
		return;
	}
	smp_store_release(bf_inflight_key(e), 0UL);
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
		if (unlikely(!left || READ_ONCE(*bf_inflight_key(e)) != key))
			return BF_SUB_STALE;
		if (!bytes || bytes > left)
			new = old - left;
		else
			new = old - bytes;
		if (unlikely(error))
			new |= BF_WORD_ERROR;
	} while (unlikely(!atomic64_try_cmpxchg(&e->word, &old, new)));
	*before = old | (new & BF_WORD_ERROR);
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
	return atomic64_try_cmpxchg(&e->word, &old, old & ~BF_WORD_LEFT);
}

#endif /* BF_INFLIGHT_H */
