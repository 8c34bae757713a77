// SPDX-License-Identifier: GPL-2.0-only
/* The table of captured writes in flight. */
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/vmalloc.h>

#include "inflight.h"

#define BF_INFLIGHT_MIN		1024U
#define BF_INFLIGHT_MAX		(1U << 22)
#define BF_CLAIM_TRIES		4	/* lost races for a free key */

static unsigned int inflight_entries = 32768;
module_param(inflight_entries, uint, 0444);
MODULE_PARM_DESC(inflight_entries, "captured writes in flight that can be followed at once, all disks together");

struct bf_inflight bf_inflight;

int bf_inflight_init(void)
{
	u32 n = roundup_pow_of_two(clamp(inflight_entries, BF_INFLIGHT_MIN, BF_INFLIGHT_MAX));
	u32 i;

	inflight_entries = n;
	bf_inflight.shift = 64 - ilog2(n / BF_BUCKET);
	bf_inflight.keys = vzalloc(array_size(n, sizeof(*bf_inflight.keys)));
	bf_inflight.entries = vzalloc(array_size(n, sizeof(*bf_inflight.entries)));
	if (!bf_inflight.keys || !bf_inflight.entries) {
		bf_inflight_exit();
		return -ENOMEM;
	}
	BUILD_BUG_ON(sizeof(struct bf_entry) > 64);
	for (i = 0; i < n; i++)
		bf_inflight.entries[i].slot = &bf_inflight.keys[i];
	return 0;
}

void bf_inflight_exit(void)
{
	vfree(bf_inflight.entries);
	vfree(bf_inflight.keys);
}

u32 bf_inflight_size(void)
{
	return inflight_entries;
}

struct bf_entry *bf_inflight_find_alt(const struct bio *bio)
{
	return bf_inflight_scan(bf_inflight_bucket(bio) ^ BF_BUCKET, bio);
}

/* A free key of one bucket; *old is set if the bio is in it already. */
static __always_inline struct bf_entry *bf_claim_in(u32 first, const struct bio *bio,
						    struct bf_entry **old)
{
	int tries;

	for (tries = 0; tries < BF_CLAIM_TRIES; tries++) {
		u32 free = BF_BUCKET;
		u32 i;

#pragma GCC unroll 4
		for (i = 0; i < BF_BUCKET; i++) {
			unsigned long key = READ_ONCE(bf_inflight.keys[first + i]);

			if (unlikely(key == (unsigned long)bio)) {
				*old = &bf_inflight.entries[first + i];
				return NULL;
			}
			if (!key)
				free = i;
		}
		if (unlikely(free == BF_BUCKET))
			return NULL;
		if (likely(!cmpxchg(&bf_inflight.keys[first + free], 0UL, (unsigned long)bio))) {
			WRITE_ONCE(bf_inflight.entries[first + free].key, (unsigned long)bio);
			return &bf_inflight.entries[first + free];
		}
	}
	return NULL;
}

/*
 * A slot for a bio that is about to be submitted, not armed yet.  NULL: none,
 * or *old is the entry of an earlier life of the same bio, which the caller
 * has to end before it asks again.
 */
struct bf_entry *bf_inflight_claim_slow(const struct bio *bio, struct bf_entry **old)
{
	u32 first = bf_inflight_bucket(bio);
	struct bf_entry *e;

	*old = NULL;
	if (unlikely(atomic_read(&bf_inflight.alt_live))) {
		*old = bf_inflight_find_alt(bio);
		if (*old)
			return NULL;
	}
	e = bf_claim_in(first, bio, old);
	if (likely(e) || *old)
		return e;
	/* before the key is visible, or a completion would not look there */
	atomic_inc(&bf_inflight.alt_live);
	e = bf_claim_in(first ^ BF_BUCKET, bio, old);
	if (e)
		e->alt = true;
	else
		atomic_dec(&bf_inflight.alt_live);
	return e;
}
