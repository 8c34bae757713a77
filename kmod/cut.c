// SPDX-License-Identifier: GPL-2.0-only
/*
 * Cuts.  A cut is a number drawn and put into one ring: since every number is
 * a crash-consistent cut over all disks, nothing has to be stopped for it.
 *
 * For a file-system-consistent one the file systems are frozen within the same
 * call, and a watchdog thaws them when that takes too long, whatever the
 * caller is doing: a frozen root must never depend on user space.
 */
#include <linux/delay.h>
#include <linux/netlink.h>
#include <linux/slab.h>

#include "cut.h"
#include "disk.h"
#include "latency.h"
#include "ring.h"

#define BF_CUT_RETRY_MS		1

struct bf_freeze {
	struct mutex lock;		/* frozen, expired */
	struct delayed_work watchdog;
	u32 opened;
	u32 frozen;			/* devices [0, frozen) are frozen */
	bool expired;
	u64 since_ns;			/* when the first freeze began */
	struct bf_bdev dev[BLKFERRY_FREEZE_MAX];
	void *sb[BLKFERRY_FREEZE_MAX];
};

/* Under disk->lock. */
static int bf_cut_one(struct bf_disk *d, u16 flags, u64 *seq)
{
	if (d->state != BLKFERRY_RING && d->state != BLKFERRY_RESYNC)
		return -ENODEV;
	if (bf_ring_room(&d->ring) <= BF_RING_KEEP && bf_ring_intake(d, BF_RING_WALK_SHORT))
		return -ENOSPC;
	if (bf_ring_room(&d->ring) <= BF_RING_KEEP)
		return -ENOSPC;
	*seq = bf_ring_marker(d, BLKFERRY_OP_CUT, flags);
	return 0;
}

/* bf_admin_sem held shared. */
static int bf_cut_any(u16 flags, u64 *seq)
{
	int res = -ENODEV;
	u32 id;

	for (id = 0; id < BLKFERRY_DISKS_MAX; id++) {
		struct bf_disk *d = bf_lookup_id(id);
		int err;

		if (!d)
			continue;
		raw_spin_lock_irq(&d->lock);
		err = bf_cut_one(d, flags, seq);
		raw_spin_unlock_irq(&d->lock);
		if (!err) {
			smp_mb();	/* as after each descriptor's end */
			if (READ_ONCE(d->cons->need_wake))
				bf_disk_wake(d);
			return 0;
		}
		if (err == -ENOSPC)
			res = err;
	}
	return res;
}

/*
 * Draw a number and append CUT to the ring of one disk.  -ENODEV: no disk in
 * RING or RESYNC; -ENOSPC: no room in any of them.
 */
int bf_cut(u64 *seq)
{
	int err;

	down_read(&bf_admin_sem);
	err = bf_cut_any(0, seq);
	up_read(&bf_admin_sem);
	return err;
}

/* Under f->lock.  The last that was frozen is the first to be thawed. */
static void bf_thaw_all(struct bf_freeze *f)
{
	bool any = f->frozen;

	while (f->frozen) {
		u32 i = --f->frozen;
		int err = bf_bdev_thaw(f->dev[i].bdev, f->sb[i]);

		if (err)
			pr_warn("blkferry: cannot thaw device=%pg error=%d\n", f->dev[i].bdev, err);
	}
	if (any)
		bf_latency_frozen(ktime_get_ns() - f->since_ns);
}

static void bf_freeze_expired(struct work_struct *work)
{
	struct bf_freeze *f = container_of(work, struct bf_freeze, watchdog.work);

	mutex_lock(&f->lock);
	f->expired = true;
	bf_thaw_all(f);
	mutex_unlock(&f->lock);
}

static int bf_freeze_open(struct bf_freeze *f, const u64 *devs, u32 n,
			  struct netlink_ext_ack *extack)
{
	for (; f->opened < n; f->opened++) {
		int err = -EINVAL;
		dev_t dev;

		if (bf_decode_dev(devs[f->opened], &dev))
			err = bf_bdev_open(&f->dev[f->opened], dev);
		if (err) {
			NL_SET_ERR_MSG(extack, "cannot open a device to freeze");
			return err;
		}
	}
	return 0;
}

static int bf_freeze_all(struct bf_freeze *f, u32 ms, struct netlink_ext_ack *extack)
{
	u32 i;

	f->since_ns = ktime_get_ns();
	for (i = 0; i < f->opened; i++) {
		int err = bf_bdev_freeze(f->dev[i].bdev, &f->sb[i]);

		if (err) {
			NL_SET_ERR_MSG(extack, "cannot freeze a device");
			return err;
		}
		mutex_lock(&f->lock);
		f->frozen = i + 1;
		if (f->expired) {
			/* all before it were thawed already */
			f->frozen = 0;
			bf_bdev_thaw(f->dev[i].bdev, f->sb[i]);
			bf_latency_frozen(ktime_get_ns() - f->since_ns);
			err = -ETIMEDOUT;
		}
		mutex_unlock(&f->lock);
		if (err)
			return err;
		if (!i)
			queue_delayed_work(bf_thaw_wq, &f->watchdog, msecs_to_jiffies(ms));
	}
	return 0;
}

/*
 * Nothing may be waited for while file systems are frozen: who holds
 * bf_admin_sem may need memory, and memory may need a frozen file system.
 */
static int bf_freeze_cut(struct bf_freeze *f, u64 *seq)
{
	for (;;) {
		int err = -EAGAIN;

		mutex_lock(&f->lock);
		if (f->expired) {
			err = -ETIMEDOUT;
		} else if (down_read_trylock(&bf_admin_sem)) {
			err = bf_cut_any(BLKFERRY_F_CUT_FS, seq);
			up_read(&bf_admin_sem);
		}
		if (err != -EAGAIN)
			bf_thaw_all(f);
		mutex_unlock(&f->lock);
		if (err != -EAGAIN)
			return err;
		msleep(BF_CUT_RETRY_MS);
	}
}

/*
 * The same with the file systems on devs (major << 32 | minor, top-down)
 * frozen, for at most ms milliseconds (-ETIMEDOUT, no cut).  bf_admin_sem not
 * held.
 */
int bf_cut_frozen(const u64 *devs, u32 n, u32 ms, u64 *seq, struct netlink_ext_ack *extack)
{
	struct bf_freeze *f;
	int err;

	if (!n || n > BLKFERRY_FREEZE_MAX)
		return -EINVAL;
	f = kzalloc(sizeof(*f), GFP_KERNEL);
	if (!f)
		return -ENOMEM;
	mutex_init(&f->lock);
	INIT_DELAYED_WORK(&f->watchdog, bf_freeze_expired);
	err = bf_freeze_open(f, devs, n, extack);
	if (!err)
		err = bf_freeze_all(f, ms, extack);
	if (!err)
		err = bf_freeze_cut(f, seq);
	mutex_lock(&f->lock);
	bf_thaw_all(f);
	mutex_unlock(&f->lock);
	cancel_delayed_work_sync(&f->watchdog);
	if (err == -ETIMEDOUT)
		NL_SET_ERR_MSG(extack, "freezing took too long; all is thawed, no cut was made");
	while (f->opened)
		bf_bdev_close(&f->dev[--f->opened]);
	kfree(f);
	return err;
}
