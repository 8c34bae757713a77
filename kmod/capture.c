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

#include "capture.h"
#include "complete.h"
#include "disk.h"
#include "inflight.h"
#include "latency.h"
#include "ring.h"

/* Of the operations that are no plain writes; 0: not one of the contract. */
static noinline u16 bf_op_rare(const struct bio *bio)
{
	switch (bio_op(bio)) {
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

static noinline void bf_copy_many(u8 *to, struct bio *bio, u32 len)
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

/* Copy the payload.  A whole page is so common that its copy is compiled in. */
static __always_inline void bf_copy(u8 *to, struct bio *bio, u32 len)
{
	const struct bio_vec *b = &bio->bi_io_vec[bio->bi_iter.bi_idx];

	if (!IS_ENABLED(CONFIG_HIGHMEM) && len == PAGE_SIZE && b->bv_len >= PAGE_SIZE &&
	    !(b->bv_offset | bio->bi_iter.bi_bvec_done))
		memcpy(to, page_address(b->bv_page), PAGE_SIZE);
	else
		bf_copy_many(to, bio, len);
}

/* The bio's bucket is not simply free: the bio is in it already, or it is full. */
static noinline struct bf_entry *bf_claim_hard(struct bf_disk *d, struct bio *bio)
{
	struct bf_entry *e, *old;
	unsigned long flags;
	u64 before;

	e = bf_inflight_claim_slow(bio, &old);
	if (old) {
		if (bf_inflight_sub(old, (unsigned long)bio, 0, true, &before) == BF_SUB_LAST)
			bf_end(old, BLKFERRY_D_FAILED, BLKFERRY_C_REUSED);
		e = bf_inflight_claim_slow(bio, &old);
	}
	if (e)
		return e;
	flags = bf_lock(d);
	bf_count(d, BLKFERRY_C_INFLIGHT_FULL, 1);
	bf_unlock(d, flags);
	return NULL;
}

static __always_inline struct bf_entry *bf_claim(struct bf_disk *d, struct bio *bio)
{
	struct bf_entry *e = bf_inflight_claim(bio);

	return likely(e) ? e : bf_claim_hard(d, bio);
}

/* Beyond the size that the disk had at attach: how much of it is within. */
static noinline u32 bf_beyond_end(struct bf_disk *d, u64 sector, u32 nr)
{
	unsigned long flags = bf_lock(d);

	bf_count(d, BLKFERRY_C_BEYOND_END, 1);
	if (!(d->flags & BLKFERRY_CTL_RESIZED)) {
		bf_disk_set_flags(d, BLKFERRY_CTL_RESIZED, 0);
		bf_disk_wake(d);
		bf_disk_news(d, BLKFERRY_EV_RESIZED);
	}
	bf_unlock(d, flags);
	return bf_extent_clip(sector, nr, d->nr_sectors);
}

/* Under the lock: a descriptor without payload, the range goes to the dirty map. */
static noinline void bf_record_dirty(struct bf_disk *d, const struct bio *bio,
				     struct blkferry_desc *desc)
{
	if (bio_op(bio) == REQ_OP_WRITE) {
		if (bio_has_crypt_ctx((struct bio *)bio))
			bf_count(d, BLKFERRY_C_INLINE_CRYPT, 1);
		else if (bio->bi_iter.bi_size > d->inline_max)
			bf_count(d, BLKFERRY_C_OVERSIZE, 1);
	}
	bf_count_op(d, BLKFERRY_C_DIRTY_OPS, BLKFERRY_C_DIRTY_SECTORS, desc->nr_sectors);
	bf_disk_mark(d, desc->sector, desc->nr_sectors);
	desc->state = BLKFERRY_D_DIRTY;
	bf_disk_gap(d, desc->seq);
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

/* Under the lock: the slot is filled, completions may come. */
static __always_inline void bf_arm(struct bf_disk *d, struct bf_entry *e, enum bf_kind kind,
				   const struct bio *bio)
{
	u32 parity = d->parity;

	/* sweepers look at these two at any time, and trust them if the word did not change */
	WRITE_ONCE(e->disk, d);
	WRITE_ONCE(e->born, (u32)jiffies);
	e->kind = kind;
	e->parity = parity;
	++*bf_disk_inflight(d, parity);
	bf_inflight_arm(e, bio->bi_iter.bi_size);
}

/* Under the lock: to the dirty map, now and again at completion. */
static __always_inline void bf_arm_dirty(struct bf_disk *d, struct bf_entry *e,
					 const struct bio *bio, u64 sector, u32 nr)
{
	e->sector = sector;
	e->nr_sectors = nr;
	bf_arm(d, e, BF_KIND_DIRTY, bio);
}

/*
 * Under the lock, in RESYNC or RING, room is made sure of.  len is 0 and e
 * does not matter if dirty.  Returns the descriptor.
 */
static __always_inline struct blkferry_desc *bf_record(struct bf_disk *d, struct bio *bio,
						       struct bf_entry *e, u32 nr, u16 op, u32 len,
						       u64 pos, bool dirty)
{
	struct blkferry_desc *desc = bf_ring_desc(d, d->ring.head);
	u64 sector = bio->bi_iter.bi_sector;
	u16 flags = bf_op_flags(bio);

	desc->seq = atomic64_inc_return(&bf_seq);
	desc->sector = sector;
	desc->data_pos = len ? pos : 0;
	desc->time_ns = bf_disk_time(d);
	desc->nr_sectors = nr;
	desc->data_len = len;
	desc->op = op;
	bf_count_op(d, BLKFERRY_C_OPS, BLKFERRY_C_SECTORS, nr);
	if (unlikely(dirty)) {
		bf_record_dirty(d, bio, desc);
		if (e)
			bf_arm_dirty(d, e, bio, sector, nr);
	} else {
		if (likely(len))
			bf_ring_take(&d->ring, pos, len);
		WRITE_ONCE(desc->state, len ? BLKFERRY_D_BUSY : BLKFERRY_D_COPIED);
		e->ovl = bf_ovl_enter(d->ovl, sector, sector + nr);
		if (unlikely(e->ovl & BF_OVL_HIT))
			flags |= BLKFERRY_F_OVERLAP;
		e->desc = desc;
		bf_arm(d, e, BF_KIND_RING, bio);
	}
	desc->flags = flags;
	bf_ring_append(d);
	return desc;
}

/*
 * Nothing to record (an empty flush of a bio-based disk, a write beyond the
 * end), but its completion looks like that of a write, so it has to be known.
 */
static noinline void bf_capture_nothing(struct bf_disk *d, struct bio *bio)
{
	struct bf_entry *e = bf_claim(d, bio);

	if (!e)
		return;
	WRITE_ONCE(e->disk, d);
	e->sector = bio->bi_iter.bi_sector;
	e->nr_sectors = 0;
	WRITE_ONCE(e->born, (u32)jiffies);
	e->kind = BF_KIND_NONE;
	bf_inflight_arm(e, max(bio->bi_iter.bi_size, 1U));
}

/* A write to a protected disk, in any state; made for RESYNC and RING. */
static __always_inline void bf_capture_any(struct bf_disk *d, struct bio *bio)
{
	u64 sector = bio->bi_iter.bi_sector, pos = 0;
	u32 nr = bio->bi_iter.bi_size >> SECTOR_SHIFT, len = 0;
	struct blkferry_desc *desc = NULL;
	struct bf_entry *e;
	u16 op = BLKFERRY_OP_WRITE;
	unsigned long flags;
	bool dirty = false;

	if (unlikely(!nr)) {
		if (!d->mq)
			bf_capture_nothing(d, bio);
		return;
	}
	if (unlikely(sector + nr > d->nr_sectors)) {
		nr = bf_beyond_end(d, sector, nr);
		if (!nr) {
			bf_capture_nothing(d, bio);
			return;
		}
		dirty = true;
	}
	e = bf_claim(d, bio);
	if (likely(bio_op(bio) == REQ_OP_WRITE)) {
		len = nr << SECTOR_SHIFT;
		if (unlikely(len > d->inline_max || bio_has_crypt_ctx(bio)))
			dirty = true;
	} else {
		u16 rare = bf_op_rare(bio);

		if (rare)
			op = rare;
		else
			dirty = true;
	}
	if (unlikely(dirty || !e)) {
		dirty = true;
		len = 0;
	}

	flags = bf_lock(d);
	if (likely(d->state >= BLKFERRY_RESYNC)) {
		int err = bf_ring_reserve(d, sector, len, &pos);

		if (likely(!err))
			desc = bf_record(d, bio, e, nr, op, len, pos, dirty);
		else
			bf_no_room(d, err);
	}
	if (unlikely(!desc)) {
		if (likely(d->state == BLKFERRY_BITMAP)) {
			bf_count_op(d, BLKFERRY_C_DIRTY_OPS, BLKFERRY_C_DIRTY_SECTORS, nr);
			bf_disk_mark_one(d, sector, nr);
			if (e)
				bf_arm_dirty(d, e, bio, sector, nr);
		} else if (e) {
			bf_inflight_free(e);
		}
		len = 0;
	}
	bf_unlock(d, flags);

	if (likely(len)) {
		bf_copy(d->data + (pos & (d->ring.data_bytes - 1)), bio, len);
		smp_store_release(&desc->state, BLKFERRY_D_COPIED);
	}
}

static noinline void bf_capture_ring(struct bf_disk *d, struct bio *bio)
{
	cycles_t start = get_cycles();

	bf_capture_any(d, bio);
	bf_latency_add(d, BLKFERRY_L_SUBMIT, start);
}

/* A write to a disk that is in BITMAP, as it seems. */
static noinline void bf_capture_bitmap(struct bf_disk *d, struct bio *bio)
{
	u64 sector = bio->bi_iter.bi_sector;
	u32 nr = bio->bi_iter.bi_size >> SECTOR_SHIFT;
	struct bf_entry *e;
	unsigned long flags;

	if (unlikely(!nr || sector + nr > d->nr_sectors))
		goto any;
	e = bf_inflight_claim(bio);
	if (unlikely(!e))
		goto any;
	flags = bf_lock(d);
	if (unlikely(d->state != BLKFERRY_BITMAP)) {
		bf_unlock(d, flags);
		bf_inflight_free(e);
		goto any;
	}
	bf_count_op(d, BLKFERRY_C_DIRTY_OPS, BLKFERRY_C_DIRTY_SECTORS, nr);
	bf_disk_mark_one(d, sector, nr);
	bf_arm_dirty(d, e, bio, sector, nr);
	bf_unlock(d, flags);
	return;
any:
	bf_capture_ring(d, bio);
}

/* One of a few, for the histogram. */
static noinline void bf_capture_bitmap_timed(struct bf_disk *d, struct bio *bio)
{
	cycles_t start = get_cycles();

	bf_capture_bitmap(d, bio);
	bf_latency_add(d, BLKFERRY_L_SUBMIT_BITMAP, start);
}

BF_TP_BIO_QUEUE(bf_probe_bio_queue)
{
	struct bf_disk *d;

	if (!op_is_write(bio->bi_opf))
		return;
	preempt_disable_notrace();
	d = bf_lookup(bf_bio_disk(bio));
	if (unlikely(d)) {
		if (READ_ONCE(d->state) != BLKFERRY_BITMAP)
			bf_capture_ring(d, bio);
		else if (likely(!bf_latency_sampled(d, BLKFERRY_C_DIRTY_OPS)))
			bf_capture_bitmap(d, bio);
		else
			bf_capture_bitmap_timed(d, bio);
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
		flags = bf_lock(d);
		bf_count(d, BLKFERRY_C_PASSTHROUGH, 1);
		if (!(d->flags & BLKFERRY_CTL_UNTRACKED)) {
			bf_disk_set_flags(d, BLKFERRY_CTL_UNTRACKED, 0);
			bf_disk_wake(d);
			bf_disk_news(d, BLKFERRY_EV_UNTRACKED);
		}
		bf_unlock(d, flags);
	}
	preempt_enable_notrace();
}
