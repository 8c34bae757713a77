// SPDX-License-Identifier: GPL-2.0-only
/*
 * What happens to a write at submit: the block_bio_queue probe.
 *
 * Runs in the submitter's context, once per logical bio, before it is split
 * and before it can complete.  Allocates nothing, waits for nothing but the
 * disk's spinlock, and never changes the bio.
 *
 *   claim an in-flight slot -> under the lock: draw a number, reserve room,
 *   fill the descriptor (or mark the dirty map), arm the slot -> copy the
 *   payload outside of the lock -> COPIED
 */
#include <linux/blk-crypto.h>
#include <linux/ktime.h>
#include <linux/timekeeping.h>

#include "capture.h"
#include "complete.h"
#include "disk.h"
#include "inflight.h"
#include "ring.h"

/* A write on its way through the probe. */
struct bf_shot {
	struct bf_disk *d;
	struct bio *bio;
	struct bf_entry *e;		/* NULL: no slot, goes to the dirty map */
	u64 sector;
	u32 nr;				/* sectors, cut to the disk's size */
	u32 len;			/* payload bytes to copy */
	u16 op;				/* enum blkferry_op */
	bool dirty;			/* no payload may be taken */
};

static __always_inline u16 bf_op(const struct bio *bio)
{
	switch (bio_op(bio)) {
	case REQ_OP_WRITE:
		return BLKFERRY_OP_WRITE;
	case REQ_OP_WRITE_ZEROES:
		return BLKFERRY_OP_ZEROES;
	case REQ_OP_DISCARD:
		return BLKFERRY_OP_DISCARD;
	case REQ_OP_SECURE_ERASE:
		return BLKFERRY_OP_SECURE_ERASE;
	default:
		return 0;
	}
}

static __always_inline u16 bf_op_flags(const struct bio *bio)
{
	u16 flags = 0;

	if (bio->bi_opf & (REQ_FUA | REQ_PREFLUSH | REQ_META)) {
		flags |= bio->bi_opf & REQ_FUA ? BLKFERRY_F_FUA : 0;
		flags |= bio->bi_opf & REQ_PREFLUSH ? BLKFERRY_F_PREFLUSH : 0;
		flags |= bio->bi_opf & REQ_META ? BLKFERRY_F_META : 0;
	}
	return flags;
}

static void bf_copy(u8 *to, struct bio *bio, u32 len)
{
	struct bvec_iter iter;
	struct bio_vec v;

	bio_for_each_segment(v, bio, iter) {
		if (unlikely(v.bv_len > len))
			break;
		bf_copy_bvec(to, &v);
		to += v.bv_len;
		len -= v.bv_len;
	}
	WARN_ON_ONCE(len);
}

/* The table has no slot: because the bio is in it already, or because it is full. */
static noinline struct bf_entry *bf_claim_again(struct bf_disk *d, struct bio *bio,
						struct bf_entry *old)
{
	unsigned long flags;
	struct bf_entry *e;
	u64 before;

	if (old) {
		if (bf_inflight_sub(old, (unsigned long)bio, 0, true, &before) == BF_SUB_LAST)
			bf_end(old, BLKFERRY_D_FAILED, BLKFERRY_C_REUSED);
		e = bf_inflight_claim(bio, &old);
		if (e)
			return e;
	}
	raw_spin_lock_irqsave(&d->lock, flags);
	bf_count(d, BLKFERRY_C_INFLIGHT_FULL, 1);
	raw_spin_unlock_irqrestore(&d->lock, flags);
	return NULL;
}

/* Beyond the size that the disk had at attach: true if nothing is left of it. */
static noinline bool bf_beyond_end(struct bf_shot *s)
{
	struct bf_disk *d = s->d;
	unsigned long flags;

	raw_spin_lock_irqsave(&d->lock, flags);
	bf_count(d, BLKFERRY_C_BEYOND_END, 1);
	if (!(d->flags & BLKFERRY_CTL_RESIZED)) {
		bf_disk_set_flags(d, BLKFERRY_CTL_RESIZED, 0);
		bf_disk_wake(d);
		bf_disk_news(d, BLKFERRY_EV_RESIZED);
	}
	raw_spin_unlock_irqrestore(&d->lock, flags);
	s->nr = bf_extent_clip(s->sector, s->nr, d->nr_sectors);
	s->dirty = true;
	return !s->nr;
}

/* Under the lock: why this one goes to the dirty map. */
static void bf_dirty_why(struct bf_shot *s)
{
	struct bf_disk *d = s->d;

	if (s->op == BLKFERRY_OP_WRITE) {
		if (bio_has_crypt_ctx(s->bio))
			bf_count(d, BLKFERRY_C_INLINE_CRYPT, 1);
		else if (s->bio->bi_iter.bi_size > d->inline_max)
			bf_count(d, BLKFERRY_C_OVERSIZE, 1);
	}
	bf_count(d, BLKFERRY_C_DIRTY_OPS, 1);
	bf_count(d, BLKFERRY_C_DIRTY_SECTORS, s->nr);
	bf_disk_mark(d, s->sector, s->nr);
}

/* Under the lock, room is made sure of: the descriptor of a write. */
static __always_inline struct blkferry_desc *bf_record(struct bf_shot *s, u64 pos)
{
	struct bf_disk *d = s->d;
	struct blkferry_desc *desc = bf_ring_desc(d, d->ring.head);
	u16 flags = bf_op_flags(s->bio);
	u32 state;

	desc->seq = atomic64_inc_return(&bf_seq);
	desc->sector = s->sector;
	desc->time_ns = ktime_to_ns(ktime_get_coarse_real());
	desc->nr_sectors = s->nr;
	desc->data_pos = s->len ? pos : 0;
	desc->data_len = s->len;
	desc->op = likely(s->op) ? s->op : BLKFERRY_OP_WRITE;
	bf_count(d, BLKFERRY_C_OPS, 1);
	bf_count(d, BLKFERRY_C_SECTORS, s->nr);
	if (unlikely(s->dirty)) {
		state = BLKFERRY_D_DIRTY;
		bf_dirty_why(s);
		bf_disk_gap(d, desc->seq);
	} else {
		s->e->ovl = bf_ovl_enter(d->ovl, s->sector, s->sector + s->nr);
		if (unlikely(s->e->ovl & BF_OVL_HIT))
			flags |= BLKFERRY_F_OVERLAP;
		s->e->index = d->ring.head;
		if (s->len) {
			bf_ring_take(&d->ring, pos, s->len);
			state = BLKFERRY_D_BUSY;
		} else {
			state = BLKFERRY_D_COPIED;
		}
	}
	desc->flags = flags;
	WRITE_ONCE(desc->state, state);
	bf_ring_append(d);
	return desc;
}

/* Under the lock: no room in the ring, or a consumer that cannot be trusted. */
static noinline void bf_no_room(struct bf_disk *d, int err)
{
	if (err == -EBADMSG) {
		bf_ring_bad_consumer(d);
		return;
	}
	bf_count(d, BLKFERRY_C_OVERFLOWS, 1);
	bf_ring_to_bitmap(d);
}

static __always_inline void bf_arm(struct bf_shot *s, enum bf_kind kind)
{
	struct bf_disk *d = s->d;
	struct bf_entry *e = s->e;

	if (unlikely(!e))
		return;
	e->disk = d;
	e->sector = s->sector;
	e->nr_sectors = s->nr;
	e->born = (u32)jiffies;
	e->kind = kind;
	e->parity = d->parity;
	d->inflight[d->parity]++;
	bf_inflight_arm(e, s->bio->bi_iter.bi_size);
}

/*
 * Nothing to record (an empty flush of a bio-based disk, a write beyond the
 * end), but its completion looks like that of a write, so it has to be known.
 */
static noinline void bf_capture_nothing(struct bf_disk *d, struct bio *bio)
{
	struct bf_entry *e, *old;

	e = bf_inflight_claim(bio, &old);
	if (!e)
		e = bf_claim_again(d, bio, old);
	if (!e)
		return;
	e->disk = d;
	e->sector = bio->bi_iter.bi_sector;
	e->nr_sectors = 0;
	e->born = (u32)jiffies;
	e->kind = BF_KIND_NONE;
	bf_inflight_arm(e, max(bio->bi_iter.bi_size, 1U));
}

static __always_inline void bf_capture(struct bf_disk *d, struct bio *bio)
{
	struct bf_shot s = {
		.d = d,
		.bio = bio,
		.sector = bio->bi_iter.bi_sector,
		.nr = bio->bi_iter.bi_size >> SECTOR_SHIFT,
		.op = bf_op(bio),
	};
	struct blkferry_desc *desc = NULL;
	struct bf_entry *old;
	unsigned long flags;
	u64 pos = 0;
	int err = 0;

	if (unlikely(s.sector + s.nr > d->nr_sectors) && bf_beyond_end(&s)) {
		bf_capture_nothing(d, bio);
		return;
	}
	s.e = bf_inflight_claim(bio, &old);
	if (unlikely(!s.e))
		s.e = bf_claim_again(d, bio, old);
	if (likely(s.op == BLKFERRY_OP_WRITE)) {
		s.len = s.nr << SECTOR_SHIFT;
		if (unlikely(s.len > d->inline_max || bio_has_crypt_ctx(bio)))
			s.dirty = true;
	} else if (!s.op) {
		s.dirty = true;
	}
	if (unlikely(s.dirty || !s.e)) {
		s.dirty = true;
		s.len = 0;
	}

	raw_spin_lock_irqsave(&d->lock, flags);
	if (likely(d->state >= BLKFERRY_RESYNC)) {
		err = bf_ring_reserve(d, s.sector, s.len, &pos);
		if (unlikely(err))
			bf_no_room(d, err);
	}
	if (likely(d->state >= BLKFERRY_RESYNC)) {
		desc = bf_record(&s, pos);
		bf_arm(&s, s.dirty ? BF_KIND_DIRTY : BF_KIND_RING);
	} else if (d->state == BLKFERRY_BITMAP) {
		bf_count(d, BLKFERRY_C_DIRTY_OPS, 1);
		bf_count(d, BLKFERRY_C_DIRTY_SECTORS, s.nr);
		bf_disk_mark(d, s.sector, s.nr);
		bf_arm(&s, BF_KIND_DIRTY);
	} else if (s.e) {
		bf_inflight_free(s.e);
	}
	raw_spin_unlock_irqrestore(&d->lock, flags);

	if (desc && s.len) {
		bf_copy(d->data + (pos & (d->ring.data_bytes - 1)), bio, s.len);
		smp_store_release(&desc->state, BLKFERRY_D_COPIED);
	}
}

BF_TP_BIO_QUEUE(bf_probe_bio_queue)
{
	struct bf_disk *d;

	if (!op_is_write(bio->bi_opf))
		return;
	preempt_disable_notrace();
	d = bf_lookup(bf_bio_disk(bio));
	if (unlikely(d)) {
		if (likely(bio->bi_iter.bi_size))
			bf_capture(d, bio);
		else if (!d->mq)
			bf_capture_nothing(d, bio);
	}
	preempt_enable_notrace();
}

/* Writes that no bio announced: SG_IO, NVMe passthrough. */
BF_TP_RQ_ISSUE(bf_probe_rq_issue)
{
	struct bf_disk *d;
	unsigned long flags;

	if (likely(!blk_rq_is_passthrough(rq)) || !op_is_write(req_op(rq)) || !bf_rq_disk(rq))
		return;
	preempt_disable_notrace();
	d = bf_lookup(bf_rq_disk(rq));
	if (d) {
		raw_spin_lock_irqsave(&d->lock, flags);
		bf_count(d, BLKFERRY_C_PASSTHROUGH, 1);
		if (!(d->flags & BLKFERRY_CTL_UNTRACKED)) {
			bf_disk_set_flags(d, BLKFERRY_CTL_UNTRACKED, 0);
			bf_disk_wake(d);
			bf_disk_news(d, BLKFERRY_EV_UNTRACKED);
		}
		raw_spin_unlock_irqrestore(&d->lock, flags);
	}
	preempt_enable_notrace();
}
