// SPDX-License-Identifier: GPL-2.0-only
/*
 * Resync rounds.
 *
 * BEGIN  [lock: SWITCH, flip parity, RESYNC] -> move active to snapshot chunk
 *        by chunk -> wait until the old parity has nothing in flight
 * END    [lock: both maps empty -> CUT, RING]
 *
 * A bit set after the SWITCH stays in active, for the next round: data read in
 * this round counts as of the SWITCH, so it would lose against an older record
 * of the same block.  bf_map_mark() sees to that while the move runs.
 */
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/netlink.h>

#include "resync.h"
#include "ring.h"

#define BF_DRAIN_MS		500
#define BF_CATCH_UP_STEP	1024U

static bool bf_drained(struct bf_disk *d, u32 parity)
{
	unsigned long end = jiffies + msecs_to_jiffies(BF_DRAIN_MS);

	/* counted under the lock; this only waits for 0 */
	while (data_race(READ_ONCE(d->inflight[parity]))) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(200, 1000);
	}
	return true;
}

/* Take in all that the consumer gave back.  -EBADMSG: its index is bad. */
int bf_ring_catch_up(struct bf_disk *d)
{
	bool more;
	int err;

	do {
		raw_spin_lock_irq(&d->lock);
		err = bf_ring_intake(d, BF_CATCH_UP_STEP);
		if (err)
			bf_ring_bad_consumer(d);
		more = !err && d->ring.tail != d->ring.target;
		raw_spin_unlock_irq(&d->lock);
		cond_resched();
	} while (more);
	return err;
}

/* Set every bit of the active map, if that was asked for.  ctl_lock held. */
void bf_resync_fill(struct bf_disk *d)
{
	u64 c;

	if (!READ_ONCE(d->mark_all))
		return;
	/* asked for again meanwhile: once more, it is the same bits */
	WRITE_ONCE(d->mark_all, false);
	for (c = 0; c < d->map.nchunks; c++) {
		raw_spin_lock_irq(&d->lock);
		bf_disk_mark_chunk(d, c);
		raw_spin_unlock_irq(&d->lock);
		cond_resched();
	}
}

/* Under the lock: start an epoch, if the disk is in a state for it. */
static int bf_switch(struct bf_disk *d, struct netlink_ext_ack *extack)
{
	if (d->state == BLKFERRY_RESYNC && d->map.snap_bits) {
		NL_SET_ERR_MSG(extack, "the running round has blocks left: clear them first");
		return -EBUSY;
	}
	if (d->state == BLKFERRY_RING && !d->gap_seq) {
		NL_SET_ERR_MSG(extack, "no gap is open: nothing to resync");
		return -EINVAL;
	}
	if (d->inflight[d->parity ^ 1])
		return -EAGAIN;
	if (bf_ring_room(&d->ring) <= BF_RING_KEEP) {
		NL_SET_ERR_MSG(extack, "the ring is full: consume it first");
		return -ENOSPC;
	}
	WRITE_ONCE(d->ctl->epoch_seq, bf_ring_marker(d, BLKFERRY_OP_SWITCH, 0));
	bf_disk_gap(d, d->ctl->epoch_seq);
	d->parity ^= 1;
	bf_map_move_begin(&d->map);
	bf_disk_set_flags(d, BLKFERRY_CTL_DRAINING, BLKFERRY_CTL_BAD_CONSUMER);
	bf_disk_set_state(d, BLKFERRY_RESYNC);
	return 0;
}

static void bf_move(struct bf_disk *d)
{
	u64 c;

	for (c = 0; c < d->map.nchunks; c++) {
		raw_spin_lock_irq(&d->lock);
		bf_map_move_chunk(&d->map, c);
		bf_disk_publish_map(d);
		raw_spin_unlock_irq(&d->lock);
		cond_resched();
	}
	raw_spin_lock_irq(&d->lock);
	bf_map_move_end(&d->map);
	raw_spin_unlock_irq(&d->lock);
}

/* Start a round, or go on waiting for one that was started. */
static int bf_begin_locked(struct bf_disk *d, u64 *seq, struct netlink_ext_ack *extack)
{
	int err = 0;

	if (!(READ_ONCE(d->flags) & BLKFERRY_CTL_DRAINING)) {
		err = bf_ring_catch_up(d);
		if (err) {
			NL_SET_ERR_MSG(extack, "the consumer's tail is not valid: set it to kernel_tail");
			return -EINVAL;
		}
		bf_resync_fill(d);
		if (!bf_drained(d, READ_ONCE(d->parity) ^ 1))
			return -EAGAIN;
		raw_spin_lock_irq(&d->lock);
		err = d->state == BLKFERRY_STOPPED ? -ENODEV : bf_switch(d, extack);
		raw_spin_unlock_irq(&d->lock);
		if (err)
			return err;
		bf_move(d);
	}
	if (!bf_drained(d, READ_ONCE(d->parity) ^ 1))
		return -EAGAIN;
	raw_spin_lock_irq(&d->lock);
	if (d->state == BLKFERRY_RESYNC) {
		bf_disk_set_flags(d, 0, BLKFERRY_CTL_DRAINING);
		*seq = d->ctl->epoch_seq;
	} else {
		err = d->state == BLKFERRY_STOPPED ? -ENODEV : -EAGAIN;
	}
	raw_spin_unlock_irq(&d->lock);
	return err;
}

/*
 * RESYNC_BEGIN.  *seq is the epoch's number.  -EAGAIN: call again (in-flight
 * writes, or the ring overflowed meanwhile).
 */
int bf_resync_begin(struct bf_disk *d, u64 *seq, struct netlink_ext_ack *extack)
{
	int err;

	mutex_lock(&d->ctl_lock);
	err = bf_begin_locked(d, seq, extack);
	mutex_unlock(&d->ctl_lock);
	return err;
}

static int bf_check_ranges(struct bf_disk *d, const struct blkferry_range *r, u32 n,
			   struct netlink_ext_ack *extack)
{
	u32 i;

	for (i = 0; i < n; i++) {
		if (bf_extent_valid(r[i].sector, r[i].nr_sectors, d->nr_sectors))
			continue;
		NL_SET_ERR_MSG(extack, "a range is empty or ends beyond the disk");
		return -EINVAL;
	}
	return 0;
}

/* Work on blocks [first, past) in steps that keep interrupts off only shortly. */
static void bf_blocks(struct bf_disk *d, u64 first, u64 past,
		      void (*fn)(struct bf_map *m, u64 first, u64 past))
{
	while (first < past) {
		u64 end = min(past, round_down(first + BF_MAP_CHUNK_BITS, BF_MAP_CHUNK_BITS));

		raw_spin_lock_irq(&d->lock);
		fn(&d->map, first, end);
		bf_disk_publish_map(d);
		raw_spin_unlock_irq(&d->lock);
		cond_resched();
		first = end;
	}
}

/*
 * RESYNC_CLEAR.  With epoch given it applies only while that epoch runs
 * (-ESTALE otherwise).
 */
int bf_resync_clear(struct bf_disk *d, const struct blkferry_range *r, u32 n, const u64 *epoch,
		    struct netlink_ext_ack *extack)
{
	int err = bf_check_ranges(d, r, n, extack);
	u32 i;

	if (err)
		return err;
	mutex_lock(&d->ctl_lock);
	if (epoch && *epoch != READ_ONCE(d->ctl->epoch_seq)) {
		NL_SET_ERR_MSG(extack, "that epoch does not run any more");
		err = -ESTALE;
	}
	for (i = 0; !err && i < n; i++) {
		u64 past;
		u64 first = bf_extent_inner(r[i].sector, r[i].nr_sectors, d->nr_sectors,
					    d->map_shift, &past);

		bf_blocks(d, first, past, bf_map_clear_snap);
	}
	mutex_unlock(&d->ctl_lock);
	return err;
}

/* Under the lock. */
static int bf_close(struct bf_disk *d, u64 *seq, struct netlink_ext_ack *extack)
{
	if (d->state != BLKFERRY_RESYNC) {
		NL_SET_ERR_MSG(extack, "no resync is running");
		return -EINVAL;
	}
	if (d->map.snap_bits || d->flags & BLKFERRY_CTL_DRAINING) {
		NL_SET_ERR_MSG(extack, "the running round has not ended");
		return -EBUSY;
	}
	if (d->map.active_bits || d->mark_all)
		return -EAGAIN;
	if (bf_ring_room(&d->ring) <= BF_RING_KEEP) {
		NL_SET_ERR_MSG(extack, "the ring is full: consume it first");
		return -ENOSPC;
	}
	*seq = bf_ring_marker(d, BLKFERRY_OP_CUT, 0);
	d->gap_seq = 0;
	WRITE_ONCE(d->ctl->close_seq, *seq);
	smp_store_release(&d->ctl->gap_seq, 0);
	WRITE_ONCE(d->ctl->epoch_seq, 0);
	bf_disk_set_state(d, BLKFERRY_RING);
	return 0;
}

/* RESYNC_END.  *seq is the number of the CUT that closes the gap. */
int bf_resync_end(struct bf_disk *d, u64 *seq, struct netlink_ext_ack *extack)
{
	int err;

	mutex_lock(&d->ctl_lock);
	bf_ring_catch_up(d);
	raw_spin_lock_irq(&d->lock);
	err = bf_close(d, seq, extack);
	raw_spin_unlock_irq(&d->lock);
	mutex_unlock(&d->ctl_lock);
	return err;
}

/* MARK_DIRTY; n == 0 is the whole disk. */
int bf_mark_dirty(struct bf_disk *d, const struct blkferry_range *r, u32 n,
		  struct netlink_ext_ack *extack)
{
	int err = bf_check_ranges(d, r, n, extack);
	u32 i;

	if (err)
		return err;
	mutex_lock(&d->ctl_lock);
	raw_spin_lock_irq(&d->lock);
	if (d->state == BLKFERRY_STOPPED) {
		err = -ENODEV;
	} else {
		bf_disk_gap_next(d);
		if (!n)
			bf_disk_set_flags(d, 0, BLKFERRY_CTL_UNTRACKED);
	}
	raw_spin_unlock_irq(&d->lock);
	if (!err && !n)
		bf_blocks(d, 0, d->map.nbits, bf_map_mark);
	for (i = 0; !err && i < n; i++) {
		u64 past;
		u64 first = bf_extent_outer(r[i].sector, r[i].nr_sectors, d->map_shift, &past);

		bf_blocks(d, first, past, bf_map_mark);
	}
	mutex_unlock(&d->ctl_lock);
	return err;
}
