/* SPDX-License-Identifier: GPL-2.0-only */
/* The module's side of a disk's ring.  Every function: disk->lock held. */
#ifndef BF_RING_H
#define BF_RING_H

#include "disk.h"

/* A descriptor slot always kept free for OVERFLOW. */
#define BF_RING_KEEP		1U
/* Descriptors given back per look at the consumer; more when room is short. */
#define BF_RING_WALK		64U
#define BF_RING_WALK_SHORT	256U

int bf_ring_intake(struct bf_disk *d, u32 max);
int bf_ring_look(struct bf_disk *d, u64 sector, u32 len);
u64 bf_ring_marker(struct bf_disk *d, enum blkferry_op op, u16 flags);
void bf_ring_to_bitmap(struct bf_disk *d);
void bf_ring_bad_consumer(struct bf_disk *d);

static __always_inline struct blkferry_desc *bf_ring_desc(struct bf_disk *d, u64 index)
{
	return &d->descs[index & d->ring.desc_mask];
}

/*
 * Find room for one descriptor and len bytes of payload.  0, or -ENOSPC, or
 * -EBADMSG if the consumer's index is bad; nothing is taken yet.
 */
static __always_inline int bf_ring_reserve(struct bf_disk *d, u64 sector, u32 len, u64 *pos)
{
	struct bf_ring *r = &d->ring;
	u64 p = bf_ring_pos(r, sector, len);

	*pos = p;
	if (likely(r->head < r->soft_head && p + len <= r->soft_data))
		return 0;
	return bf_ring_look(d, sector, len);
}

/* Hand the descriptor at head to the consumer; it is filled but for its end. */
static __always_inline void bf_ring_append(struct bf_disk *d)
{
	u64 head = d->ring.head + 1;

	d->ring.head = head;
	smp_store_release(&d->ctl->head, head);
}

#endif /* BF_RING_H */
