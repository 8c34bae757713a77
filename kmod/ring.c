// SPDX-License-Identifier: GPL-2.0-only
/* The module's side of a disk's ring. */
#include "ring.h"

/*
 * Read the consumer's tail, once, and give back at most max descriptors.
 * -EBADMSG: the consumer's page holds an index that cannot be.
 */
int bf_ring_intake(struct bf_disk *d, u32 max)
{
	struct bf_ring *r = &d->ring;
	u64 tail = smp_load_acquire(&d->cons->tail);

	if (unlikely(!bf_ring_tail_ok(r, tail)))
		return -EBADMSG;
	r->target = tail;
	while (r->tail != tail && max--) {
		struct blkferry_desc *desc = bf_ring_desc(d, r->tail);

		/* a payload may be copied right now if the tail is a lie */
		if (unlikely(READ_ONCE(desc->state) < BLKFERRY_D_DONE))
			return -EBADMSG;
		bf_ring_pop(r, desc->data_pos, desc->data_len);
	}
	WRITE_ONCE(d->ctl->kernel_tail, r->tail);
	return 0;
}

/* The soft limits are reached: look at the consumer, harder if room is short. */
int bf_ring_look(struct bf_disk *d, u64 sector, u32 len)
{
	struct bf_ring *r = &d->ring;
	u32 walk = BF_RING_WALK;
	u64 pos;

	for (;;) {
		if (bf_ring_intake(d, walk))
			return -EBADMSG;
		bf_ring_soften(r, BF_RING_KEEP);
		if (bf_ring_room(r) > BF_RING_KEEP && bf_ring_place(r, sector, len, &pos))
			return 0;
		if (walk == BF_RING_WALK_SHORT)
			return -ENOSPC;
		walk = BF_RING_WALK_SHORT;
	}
}

/* Append a marker; the caller made sure that a slot is free.  Returns its number. */
u64 bf_ring_marker(struct bf_disk *d, enum blkferry_op op, u16 flags)
{
	struct blkferry_desc *desc = bf_ring_desc(d, d->ring.head);
	u64 seq = atomic64_inc_return(&bf_seq);

	memset(desc, 0, sizeof(*desc));
	desc->seq = seq;
	desc->time_ns = bf_disk_time(d);
	desc->op = op;
	desc->flags = flags;
	smp_store_release(&desc->state, BLKFERRY_D_DONE);
	bf_ring_append(d);
	return seq;
}

/* Writes go to the dirty map from here on; a gap opens, marked in the ring. */
void bf_ring_to_bitmap(struct bf_disk *d)
{
	if (bf_ring_room(&d->ring))
		bf_disk_gap(d, bf_ring_marker(d, BLKFERRY_OP_OVERFLOW, 0));
	else
		bf_disk_gap_next(d);
	WRITE_ONCE(d->ctl->epoch_seq, 0);
	bf_disk_set_flags(d, 0, BLKFERRY_CTL_DRAINING);
	bf_disk_set_state(d, BLKFERRY_BITMAP);
}

void bf_ring_bad_consumer(struct bf_disk *d)
{
	bf_count(d, BLKFERRY_C_BAD_CONSUMER, 1);
	bf_disk_set_flags(d, BLKFERRY_CTL_BAD_CONSUMER, 0);
	if (d->state == BLKFERRY_RING || d->state == BLKFERRY_RESYNC)
		bf_ring_to_bitmap(d);
}
