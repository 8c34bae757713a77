// SPDX-License-Identifier: GPL-2.0-only
/*
 * Attach and detach.  Both with bf_admin_sem held exclusively.
 *
 * attach: open -> refuse what cannot be captured -> memory -> character device
 *         -> probes (first disk) -> lookup table
 * detach: lookup table -> wait for probes -> STOPPED -> end what is in flight
 *         -> wait for probes -> probes out (last disk) -> character device ->
 *         close; the memory stays until the last mapping is gone
 */
#include <linux/log2.h>
#include <linux/netlink.h>
#include <linux/tracepoint.h>

#include "chardev.h"
#include "complete.h"
#include "disk.h"
#include "inflight.h"
#include "tracepoints.h"
#include "watch.h"

#define BF_INLINE_MAX_DEF	(1U << 20)
/* One ring may take 1/16 of memory, everything reserved together 1/4. */
#define BF_RAM_PER_RING		16
#define BF_RAM_ALL		4

static u64 bf_memory_used;

static u64 bf_ram(void)
{
	return (u64)totalram_pages() << PAGE_SHIFT;
}

/* Fill in the defaults, round up, refuse what is out of range. */
static int bf_attach_sizes(struct bf_disk_config *cfg, struct netlink_ext_ack *extack)
{
	u64 cap = rounddown_pow_of_two(bf_ram() / BF_RAM_PER_RING);

	if (!cfg->data_bytes)
		cfg->data_bytes = min_t(u64, BLKFERRY_DATA_BYTES_DEF, cap);
	if (cfg->data_bytes < BLKFERRY_DATA_BYTES_MIN ||
	    cfg->data_bytes > BLKFERRY_DATA_BYTES_MAX) {
		NL_SET_ERR_MSG(extack, "data ring size is out of range");
		return -EINVAL;
	}
	cfg->data_bytes = roundup_pow_of_two(cfg->data_bytes);
	if (cfg->data_bytes > cap) {
		NL_SET_ERR_MSG(extack, "data ring is larger than 1/16 of memory");
		return -ENOMEM;
	}
	if (!cfg->descs)
		cfg->descs = clamp_t(u64, cfg->data_bytes >> 11, BLKFERRY_DESCS_MIN,
				     BLKFERRY_DESCS_MAX);
	if (cfg->descs < BLKFERRY_DESCS_MIN || cfg->descs > BLKFERRY_DESCS_MAX) {
		NL_SET_ERR_MSG(extack, "descriptor count is out of range");
		return -EINVAL;
	}
	cfg->descs = roundup_pow_of_two(cfg->descs);
	if (!cfg->inline_max)
		cfg->inline_max = BF_INLINE_MAX_DEF;
	cfg->inline_max = min_t(u64, cfg->inline_max, cfg->data_bytes / 4);
	cfg->inline_max = round_down(min(cfg->inline_max, BF_INLINE_MAX_DEF), SECTOR_SIZE);
	if (!cfg->inline_max) {
		NL_SET_ERR_MSG(extack, "inline limit is below one sector");
		return -EINVAL;
	}
	return 0;
}

/* Refuse disks whose writes cannot be captured. */
static int bf_attach_check(struct block_device *bdev, struct netlink_ext_ack *extack)
{
	if (bf_bdev_is_partition(bdev)) {
		NL_SET_ERR_MSG(extack, "this is a partition: attach the whole disk");
		return -EINVAL;
	}
	if (bf_lookup_attached(bdev->bd_disk)) {
		NL_SET_ERR_MSG(extack, "the disk is attached already");
		return -EEXIST;
	}
	if (bdev_read_only(bdev)) {
		NL_SET_ERR_MSG(extack, "the disk is read-only");
		return -EROFS;
	}
	if (bdev_is_zoned(bdev)) {
		NL_SET_ERR_MSG(extack, "zoned disks are not supported");
		return -EOPNOTSUPP;
	}
	if (bf_bdev_is_dax(bdev)) {
		NL_SET_ERR_MSG(extack, "disks with direct access (DAX) are not supported: their writes bypass the block layer");
		return -EOPNOTSUPP;
	}
	if (bf_bdev_sectors(bdev) < (PAGE_SIZE >> SECTOR_SHIFT)) {
		NL_SET_ERR_MSG(extack, "the disk has no medium or is smaller than 4 KiB");
		return -EINVAL;
	}
	return 0;
}

/* Everything that can fail, for a disk whose memory is there. */
static int bf_attach_publish(struct bf_disk *d, struct netlink_ext_ack *extack)
{
	int err;

	err = bf_lookup_new_id();
	if (err < 0) {
		NL_SET_ERR_MSG(extack, "too many disks are attached");
		return err;
	}
	d->id = err;
	d->ctl->disk = d->id;
	err = bf_chardev_add(d);
	if (err) {
		NL_SET_ERR_MSG(extack, "cannot create the character device");
		return err;
	}
	if (!bf_lookup_count()) {
		err = bf_tracepoints_register();
		if (err) {
			NL_SET_ERR_MSG(extack, "cannot hook into the block layer's tracepoints");
			goto chardev;
		}
	}
	err = bf_lookup_add(d);
	if (!err)
		return 0;
	if (!bf_lookup_count())
		bf_tracepoints_unregister();
chardev:
	bf_chardev_del(d);
	return err;
}

/*
 * Protect a disk.  0 fields of cfg become defaults.  On success *out is the
 * attached disk, its reference belongs to the lookup table.
 */
int bf_attach(dev_t dev, struct bf_disk_config *cfg, struct bf_disk **out,
	      struct netlink_ext_ack *extack)
{
	struct bf_bdev b;
	struct bf_disk *d;
	int err;

	err = bf_bdev_open(&b, dev);
	if (err) {
		NL_SET_ERR_MSG(extack, "cannot open the device");
		return err == -ENXIO ? -ENODEV : err;
	}
	err = bf_attach_check(b.bdev, extack);
	if (!err)
		err = bf_attach_sizes(cfg, extack);
	if (err)
		goto close;
	cfg->dev = dev;
	cfg->nr_sectors = bf_bdev_sectors(b.bdev);
	cfg->logical_block = bdev_logical_block_size(b.bdev);
	err = -ENOMEM;
	if (bf_memory_used + cfg->data_bytes > bf_ram() / BF_RAM_ALL) {
		NL_SET_ERR_MSG(extack, "all rings together would take more than 1/4 of memory");
		goto close;
	}
	d = bf_disk_alloc(cfg);
	if (!d) {
		NL_SET_ERR_MSG(extack, "no memory for the ring and the dirty map");
		goto close;
	}
	d->bdev = b;
	d->gd = b.bdev->bd_disk;
	d->mq = queue_is_mq(bdev_get_queue(b.bdev));
	strscpy(d->name, d->gd->disk_name, sizeof(d->name));
	err = -ENODEV;
	if (!try_module_get(THIS_MODULE))
		goto put;
	err = bf_attach_publish(d, extack);
	if (err)
		goto module;
	bf_memory_used += d->memory;
	bf_watch_start();
	bf_disk_news(d, BLKFERRY_EV_ATTACHED);
	pr_info("blkferry: attached disk=%s id=%u sectors=%llu ring_bytes=%llu memory_bytes=%llu\n",
		d->name, d->id, d->nr_sectors, d->ring.data_bytes, d->memory);
	*out = d;
	return 0;
module:
	module_put(THIS_MODULE);
put:
	bf_disk_put(d);
close:
	bf_bdev_close(&b);
	return err;
}

/* No probe finds the disk any more: end what it has in flight. */
static void bf_detach_sweep(struct bf_disk *d)
{
	u32 i, n = bf_inflight_size();

	for (i = 0; i < n; i++) {
		if (READ_ONCE(bf_inflight.keys[i]) && bf_inflight_take(&bf_inflight.entries[i], d))
			bf_end(&bf_inflight.entries[i], BLKFERRY_D_FAILED, BF_WHY_NONE);
		if (!(i & 1023))
			cond_resched();
	}
}

/*
 * Stop protecting a disk.  Never fails.  Numbers up to bf_void_seq that are in
 * no ring are void when this returns.
 */
void bf_detach(struct bf_disk *d)
{
	u64 seq;

	bf_lookup_del_gd(d);
	tracepoint_synchronize_unregister();
	raw_spin_lock_irq(&d->lock);
	bf_disk_set_state(d, BLKFERRY_STOPPED);
	raw_spin_unlock_irq(&d->lock);
	seq = atomic64_read(&bf_seq);
	bf_detach_sweep(d);
	/* entries' owners; and a number drawn elsewhere is in its ring after this */
	tracepoint_synchronize_unregister();
	if (bf_lookup_count() == 1)
		bf_tracepoints_unregister();
	bf_lookup_del_id(d);
	atomic64_set(&bf_void_seq, max_t(u64, seq, atomic64_read(&bf_void_seq)));
	bf_memory_used -= d->memory;

	bf_chardev_del(d);
	WRITE_ONCE(d->detached, true);
	bf_disk_wake(d);
	bf_disk_news(d, BLKFERRY_EV_DETACHED);
	irq_work_sync(&d->irq_work);
	flush_work(&d->news_work);
	wake_up_all(&d->wait);
	bf_bdev_close(&d->bdev);
	pr_info("blkferry: detached disk=%s id=%u void_seq=%llu\n", d->name, d->id, seq);
	bf_disk_put(d);
	module_put(THIS_MODULE);
}
