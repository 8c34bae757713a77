// SPDX-License-Identifier: GPL-2.0-only
/*
 * What happens to a write at completion: the probes of block_rq_complete
 * (requests of blk-mq disks) and block_bio_complete (bio-based disks, and bios
 * that died before they became a request).  Both run in task, soft or hard
 * interrupt context.
 *
 * A bio that was split is not in the table under its parts' pointers: a part's
 * bi_end_io is the block layer's chain function and its bi_private the parent.
 * The function is static in the kernel, so it is learnt from a chained pair.
 */
#include <linux/slab.h>

#include "complete.h"
#include "latency.h"
#include "ring.h"

/* How far up a chain of parents is followed. */
#define BF_CHAIN_MAX		16

static bio_end_io_t *bf_chain_end_io __ro_after_init;

/* Learn the chain function.  The pair is never submitted nor ended. */
int __init bf_complete_init(void)
{
	struct bio *pair = kcalloc(2, sizeof(*pair), GFP_KERNEL);

	if (!pair)
		return -ENOMEM;
	bio_chain(&pair[0], &pair[1]);
	if (pair[0].bi_private == &pair[1])
		bf_chain_end_io = pair[0].bi_end_io;
	kfree(pair);
	if (bf_chain_end_io)
		return 0;
	pr_err("blkferry: bio_chain() works in an unknown way on this kernel\n");
	return -EOPNOTSUPP;
}

/* Under the lock: the range of a write is not (only) in the ring. */
static void bf_end_dirty(struct bf_disk *d, u64 sector, u64 nr, u64 seq)
{
	if (d->state == BLKFERRY_STOPPED)
		return;
	bf_disk_mark(d, sector, nr);
	if (seq)
		bf_disk_gap(d, seq);
	else
		bf_disk_gap_next(d);
}

/* Under the lock: a descriptor that does not simply end DONE. */
static noinline void bf_end_odd(struct bf_disk *d, struct blkferry_desc *desc,
				enum blkferry_desc_state how)
{
	if (how == BLKFERRY_D_CANCELLED) {
		bf_count(d, BLKFERRY_C_CANCELLED, 1);
		bf_count(d, BLKFERRY_C_CANCELLED_SECTORS, desc->nr_sectors);
	} else {
		bf_count(d, BLKFERRY_C_FAILED, 1);
		bf_end_dirty(d, desc->sector, desc->nr_sectors, desc->seq);
	}
}

/* Under the lock: an operation that was not simply in one region leaves the filter. */
static noinline void bf_end_overlap(struct bf_disk *d, struct blkferry_desc *desc, u32 entered,
				    enum blkferry_desc_state how)
{
	u64 first, past;

	if (!bf_ovl_leave(d->ovl, desc->sector, desc->sector + desc->nr_sectors, entered,
			  &first, &past) || how == BLKFERRY_D_CANCELLED)
		return;
	bf_count(d, BLKFERRY_C_OVERLAPS, 1);
	bf_end_dirty(d, first, past - first, desc->seq);
}

/* Under the lock: finish the descriptor of an entry. */
static __always_inline void bf_end_desc(struct bf_disk *d, struct bf_entry *e,
					enum blkferry_desc_state how)
{
	struct blkferry_desc *desc = e->desc;

	if (unlikely(!bf_ovl_leave_one(d->ovl, e->ovl)))
		bf_end_overlap(d, desc, e->ovl, how);
	if (likely(how == BLKFERRY_D_DONE))
		bf_count(d, BLKFERRY_C_DONE, 1);
	else
		bf_end_odd(d, desc, how);
	/* everything above must be seen by who sees the final state */
	smp_store_release(&desc->state, how);
}

/* Under the lock: an entry without a descriptor. */
static __always_inline void bf_end_no_desc(struct bf_disk *d, struct bf_entry *e)
{
	if (likely(e->kind == BF_KIND_DIRTY)) {
		--*bf_disk_inflight(d, e->parity);
		/* a gap is open since its submit, and was not closed: it is in flight */
		if (likely(d->state == BLKFERRY_BITMAP)) {
			bf_disk_mark_one(d, e->sector, e->nr_sectors);
			return;
		}
	} else if (e->kind == BF_KIND_NONE) {
		return;
	}
	bf_end_dirty(d, e->sector, e->nr_sectors, 0);
}

static __always_inline void bf_end_dirty_entry(struct bf_disk *d, struct bf_entry *e,
					       enum blkferry_counter why)
{
	unsigned long flags = bf_lock(d);

	bf_end_no_desc(d, e);
	if (unlikely(why != BF_WHY_NONE))
		bf_count(d, why, 1);
	bf_unlock(d, flags);
}

static __always_inline void bf_end_ring_entry(struct bf_disk *d, struct bf_entry *e,
					      enum blkferry_desc_state how,
					      enum blkferry_counter why)
{
	unsigned long flags = bf_lock(d);

	--*bf_disk_inflight(d, e->parity);
	bf_end_desc(d, e, how);
	if (unlikely(why != BF_WHY_NONE))
		bf_count(d, why, 1);
	bf_unlock(d, flags);
	/* pairs with the consumer: need_wake set, then states read */
	smp_mb();
	if (unlikely(READ_ONCE(d->cons->need_wake)))
		bf_disk_wake(d);
}

/*
 * End an entry whose end the caller owns (bf_inflight_sub() said LAST); how is
 * DONE, CANCELLED or FAILED.  The slot is kept.  Probes, or a context in which
 * the disk cannot go away.
 */
void bf_end_keep(struct bf_entry *e, enum blkferry_desc_state how, enum blkferry_counter why)
{
	if (e->kind == BF_KIND_RING)
		bf_end_ring_entry(e->disk, e, how, why);
	else
		bf_end_dirty_entry(e->disk, e, why);
}

void bf_end(struct bf_entry *e, enum blkferry_desc_state how, enum blkferry_counter why)
{
	bf_end_keep(e, how, why);
	bf_inflight_free(e);
}

/* One of a few, for the histogram. */
static noinline void bf_end_timed(struct bf_entry *e, enum blkferry_desc_state how)
{
	struct bf_disk *d = e->disk;
	cycles_t start = get_cycles();

	bf_end_keep(e, how, BF_WHY_NONE);
	bf_latency_add(d, BLKFERRY_L_END, start);
}

/* bf_end(), to be compiled into the probes. */
static __always_inline void bf_end_inline(struct bf_entry *e, enum blkferry_desc_state how)
{
	struct bf_disk *d = e->disk;

	if (likely(e->kind == BF_KIND_RING)) {
		if (likely(!bf_latency_sampled(d, BLKFERRY_C_DONE)))
			bf_end_ring_entry(d, e, how, BF_WHY_NONE);
		else
			bf_end_timed(e, how);
	} else {
		if (likely(!bf_latency_sampled(d, BLKFERRY_C_DIRTY_OPS)))
			bf_end_dirty_entry(d, e, BF_WHY_NONE);
		else
			bf_end_timed(e, how);
	}
	bf_inflight_free(e);
}

/* A protected disk completed a write of which nothing is known but its range. */
static noinline void bf_unknown(struct bf_disk *d, u64 sector, u32 bytes,
				enum blkferry_counter why)
{
	unsigned long flags;

	flags = bf_lock(d);
	bf_count(d, why, 1);
	if (sector < d->nr_sectors)
		bf_end_dirty(d, sector, DIV_ROUND_UP(bytes, SECTOR_SIZE), 0);
	bf_unlock(d, flags);
}

/* The same, but its range is gone too: everything has to be re-read. */
static noinline void bf_unknown_range(struct bf_disk *d)
{
	unsigned long flags;

	flags = bf_lock(d);
	bf_count(d, BLKFERRY_C_UNKNOWN, 1);
	if (d->state != BLKFERRY_STOPPED &&
	    (d->map.moving || d->map.active_bits != d->map.nbits)) {
		WRITE_ONCE(d->mark_all, true);
		bf_disk_gap_next(d);
	}
	bf_unlock(d, flags);
}

/* The entry of a bio or, if it is a part of one, of its parent; *key is whose. */
static __always_inline struct bf_entry *bf_find(const struct bio *bio, unsigned long *key)
{
	struct bf_entry *e = bf_inflight_find(bio);
	int depth;

	for (depth = 0; unlikely(!e && bio->bi_end_io == bf_chain_end_io) &&
	     depth < BF_CHAIN_MAX; depth++) {
		bio = bio->bi_private;
		e = bf_inflight_find(bio);
	}
	*key = (unsigned long)bio;
	return e;
}

/* bytes of a bio completed in a request of disk gd. */
static __always_inline void bf_rq_bytes(struct gendisk *gd, const struct bio *bio, u32 bytes,
					bool error)
{
	enum bf_sub sub = BF_SUB_STALE;
	struct bf_disk *d, *owner = NULL;
	struct bf_entry *e;
	unsigned long key;
	bool known;
	u64 word;

	e = bf_find(bio, &key);
	if (e) {
		owner = READ_ONCE(e->disk);
		sub = bf_inflight_sub(e, key, bytes, error, &word);
	}
	known = sub != BF_SUB_STALE;
	if (unlikely(!known || owner->gd != gd)) {
		d = gd ? bf_lookup(gd) : NULL;
		if (unlikely(d))
			bf_unknown(d, bio->bi_iter.bi_sector, bytes,
				   known ? BLKFERRY_C_RESTACKED : BLKFERRY_C_UNKNOWN);
	}
	if (sub == BF_SUB_LAST) {
		bf_end_inline(e, unlikely(word & BF_WORD_ERROR) ? BLKFERRY_D_FAILED :
			      BLKFERRY_D_DONE);
	}
}

BF_TP_RQ_COMPLETE(bf_probe_rq_complete)
{
	const struct bio *bio;

	if (!op_is_write(rq->cmd_flags) || unlikely(blk_rq_is_passthrough(rq)))
		return;
	preempt_disable_notrace();
	for (bio = rq->bio; bio && nr_bytes; bio = bio->bi_next) {
		u32 bytes = min(bio->bi_iter.bi_size, nr_bytes);

		nr_bytes -= bytes;
		if (likely(bytes))
			bf_rq_bytes(bf_rq_disk(rq), bio, bytes, !!error);
	}
	preempt_enable_notrace();
}

/* The bio itself is in the table and has ended. */
static noinline void bf_bio_end(struct bf_entry *e, const struct bio *bio)
{
	enum blkferry_desc_state how = BLKFERRY_D_DONE;
	u64 word;

	if (bf_inflight_sub(e, (unsigned long)bio, 0, false, &word) != BF_SUB_LAST)
		return;
	if (unlikely(bio->bi_status)) {
		/* never became a request: it did not happen */
		if (e->kind == BF_KIND_RING && e->disk->mq && !(word & BF_WORD_ERROR) &&
		    (word & BF_WORD_LEFT) == e->desc->nr_sectors << SECTOR_SHIFT)
			how = BLKFERRY_D_CANCELLED;
		else
			how = BLKFERRY_D_FAILED;
	} else if (unlikely(word & BF_WORD_ERROR)) {
		how = BLKFERRY_D_FAILED;
	}
	bf_end_inline(e, how);
}

/*
 * A part of a bio has ended that is not in the table itself and never became a
 * request.  Parts of a bio-based disk end with their parent: nothing to do.
 */
static noinline void bf_bio_part(const struct bio *bio)
{
	unsigned long key;
	struct bf_entry *e = bf_find(bio, &key);
	struct bf_disk *d;
	u64 word;

	if (e) {
		if (bio->bi_status && bio->bi_iter.bi_size &&
		    bf_inflight_sub(e, key, bio->bi_iter.bi_size, true, &word) == BF_SUB_LAST)
			bf_end(e, BLKFERRY_D_FAILED, BF_WHY_NONE);
		return;
	}
	d = bf_lookup(bf_bio_disk(bio));
	if (d && !d->mq)
		bf_unknown_range(d);
}

/* A write that nobody followed has ended on a protected disk. */
static noinline void bf_bio_unknown(struct bf_disk *d)
{
	/* blk-mq: it died before it became a request, or a request tells its range */
	if (!d->mq)
		bf_unknown_range(d);
}

BF_TP_BIO_COMPLETE(bf_probe_bio_complete)
{
	struct bf_entry *e;
	struct bf_disk *d;

	if (!op_is_write(bio->bi_opf))
		return;
	preempt_disable_notrace();
	e = bf_inflight_find(bio);
	if (e) {
		bf_bio_end(e, bio);
	} else if (unlikely(bio->bi_end_io == bf_chain_end_io)) {
		bf_bio_part(bio);
	} else {
		d = bf_lookup(bf_bio_disk(bio));
		if (unlikely(d))
			bf_bio_unknown(d);
	}
	preempt_enable_notrace();
}
