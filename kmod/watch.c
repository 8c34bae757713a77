// SPDX-License-Identifier: GPL-2.0-only
/*
 * What is looked at once a second while a disk is attached: has a disk gone
 * or changed its size, does a dirty map have to be filled, is a write in
 * flight for so long that its completion must have been missed, how long is a
 * tick.
 */
#include <linux/jiffies.h>
#include <linux/module.h>

#include "complete.h"
#include "disk.h"
#include "inflight.h"
#include "latency.h"
#include "resync.h"
#include "watch.h"

#define BF_STUCK_MIN		10U		/* seconds */
#define BF_STUCK_EVERY		5U		/* rounds between two scans of the table */

static unsigned int stuck_seconds = 180;
module_param(stuck_seconds, uint, 0644);
MODULE_PARM_DESC(stuck_seconds, "a write in flight for longer is given up: it goes to the dirty map (at least 10)");

static void bf_watch_work(struct work_struct *work);
static DECLARE_DELAYED_WORK(bf_watch, bf_watch_work);
static unsigned int bf_watch_round;

static void bf_watch_gone(struct bf_disk *d)
{
	raw_spin_lock_irq(&d->lock);
	if (!(d->flags & BLKFERRY_CTL_GONE)) {
		bf_disk_set_flags(d, BLKFERRY_CTL_GONE, BLKFERRY_CTL_DRAINING);
		bf_disk_gap_next(d);
		WRITE_ONCE(d->ctl->epoch_seq, 0);
		bf_disk_set_state(d, BLKFERRY_STOPPED);
		bf_disk_news(d, BLKFERRY_EV_GONE);
		pr_info("blkferry: disk is gone disk=%s id=%u\n", d->name, d->id);
	}
	raw_spin_unlock_irq(&d->lock);
}

static void bf_watch_resized(struct bf_disk *d)
{
	raw_spin_lock_irq(&d->lock);
	if (!(d->flags & BLKFERRY_CTL_RESIZED)) {
		bf_disk_set_flags(d, BLKFERRY_CTL_RESIZED, 0);
		bf_disk_wake(d);
		bf_disk_news(d, BLKFERRY_EV_RESIZED);
	}
	raw_spin_unlock_irq(&d->lock);
}

static void bf_watch_disk(struct bf_disk *d)
{
	if (bf_disk_is_gone(d->gd))
		bf_watch_gone(d);
	else if (bf_bdev_sectors(d->bdev.bdev) != d->nr_sectors)
		bf_watch_resized(d);
	if (READ_ONCE(d->mark_all)) {
		mutex_lock(&d->ctl_lock);
		bf_resync_fill(d);
		mutex_unlock(&d->ctl_lock);
	}
}

/*
 * Give up a write that is in flight for too long: its descriptor ends FAILED,
 * its range is dirty.  The slot is kept, so that its range becomes dirty once
 * more should it complete after all.  An entry that is just being captured has
 * no age, one that completes right now loses the race for its bytes.
 */
static void bf_watch_entry(struct bf_entry *e, u32 limit)
{
	s64 word = atomic64_read_acquire(&e->word);
	struct bf_disk *d = READ_ONCE(e->disk);
	u8 kind = data_race(e->kind);	/* of this life if the word is still the same below */

	if (!(word & BF_WORD_LEFT) || (u32)jiffies - READ_ONCE(e->born) < limit)
		return;
	if (kind == BF_KIND_ZOMBIE || kind == BF_KIND_NONE)
		return;
	if (!atomic64_try_cmpxchg(&e->word, &word, word & ~(BF_WORD_LEFT | BF_WORD_ERROR)))
		return;
	if (e->kind == BF_KIND_RING) {
		e->sector = e->desc->sector;
		e->nr_sectors = e->desc->nr_sectors;
	}
	bf_end_keep(e, BLKFERRY_D_FAILED, BLKFERRY_C_WATCHDOG);
	pr_warn_ratelimited("blkferry: a write does not end disk=%s sector=%llu sectors=%u\n",
			    d->name, e->sector, e->nr_sectors);
	e->kind = BF_KIND_ZOMBIE;
	bf_inflight_arm(e, word & BF_WORD_LEFT);
}

static void bf_watch_stuck(void)
{
	u32 limit = max(READ_ONCE(stuck_seconds), BF_STUCK_MIN) * HZ;
	u32 i, n = bf_inflight_size();

	for (i = 0; i < n; i++) {
		if (READ_ONCE(bf_inflight.keys[i]))
			bf_watch_entry(&bf_inflight.entries[i], limit);
		if (!(i & 1023))
			cond_resched();
	}
}

static void bf_watch_work(struct work_struct *work)
{
	u32 id;

	/*
	 * Not to be waited for: without memory for workers the queue's rescuer
	 * runs one work after the other, and detach, which holds it, waits for
	 * another work of this queue.
	 */
	if (!down_read_trylock(&bf_admin_sem)) {
		queue_delayed_work(bf_wq, &bf_watch, HZ / 10);
		return;
	}
	bf_latency_calibrate();
	for (id = 0; id < BLKFERRY_DISKS_MAX; id++) {
		struct bf_disk *d = bf_lookup_id(id);

		if (d)
			bf_watch_disk(d);
	}
	if (bf_lookup_count()) {
		if (!(++bf_watch_round % BF_STUCK_EVERY))
			bf_watch_stuck();
		queue_delayed_work(bf_wq, &bf_watch, HZ);
	}
	up_read(&bf_admin_sem);
}

/* After a disk was attached; harmless if it runs already. */
void bf_watch_start(void)
{
	queue_delayed_work(bf_wq, &bf_watch, HZ);
}

/* At module exit. */
void bf_watch_stop(void)
{
	cancel_delayed_work_sync(&bf_watch);
}
