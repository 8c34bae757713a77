// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory and lifetime of a disk, and the small state changes that several
 * files share.  Functions that change state are called with disk->lock held
 * unless said otherwise.
 */
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "disk.h"
#include "latency.h"
#include "netlink.h"

atomic64_t bf_seq = ATOMIC64_INIT(0);
atomic64_t bf_void_seq = ATOMIC64_INIT(0);

#define BF_MAP_HALF_MAX		(512ULL << 20)	/* bytes */
#define BF_BLOCK_SHIFT_MIN	12

/* Runs in (soft) interrupt context, out of every lock of ours. */
static void bf_disk_irq_work(struct irq_work *work)
{
	struct bf_disk *d = container_of(work, struct bf_disk, irq_work);

	if (READ_ONCE(d->event)) {
		unsigned long flags = bf_lock(d);

		bf_count(d, BLKFERRY_C_WAKEUPS, 1);
		bf_unlock(d, flags);
		/* no key: pollers must ask ->poll, which clears the event */
		wake_up_all(&d->wait);
	}
	if (READ_ONCE(d->news))
		queue_work(bf_wq, &d->news_work);
}

static void bf_disk_news_work(struct work_struct *work)
{
	struct bf_disk *d = container_of(work, struct bf_disk, news_work);
	unsigned long news = xchg(&d->news, 0);
	unsigned int ev;

	for_each_set_bit(ev, &news, BITS_PER_LONG)
		bf_netlink_event(d, ev);
}

static void *bf_zalloc(struct bf_disk *d, u64 bytes)
{
	bytes = PAGE_ALIGN(bytes);
	d->memory += bytes;
	return __vmalloc(bytes, GFP_KERNEL | __GFP_ZERO | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
}

static void bf_disk_free(struct bf_disk *d)
{
	free_percpu(d->latency);
	vfree(d->map.moved);
	vfree(d->map.snap);
	vfree(d->map.active);
	vfree(d->ovl);
	vfree(d->data);
	vfree(d->descs);
	vfree(d->cons);
	vfree(d->ctl);
	kfree(d);
}

static void bf_disk_release(struct kref *ref)
{
	bf_disk_free(container_of(ref, struct bf_disk, ref));
}

void bf_disk_get(struct bf_disk *d)
{
	kref_get(&d->ref);
}

/* May sleep. */
void bf_disk_put(struct bf_disk *d)
{
	kref_put(&d->ref, bf_disk_release);
}

static int bf_disk_alloc_map(struct bf_disk *d, u64 nr_sectors)
{
	u64 half = min_t(u64, BF_MAP_HALF_MAX, (u64)totalram_pages() << PAGE_SHIFT >> 6);
	u64 nbits, *active, *snap;
	u8 *moved;

	half = max_t(u64, half, PAGE_SIZE);
	d->map_shift = bf_extent_shift(nr_sectors, BF_BLOCK_SHIFT_MIN - SECTOR_SHIFT, half * 8);
	nbits = ((nr_sectors - 1) >> d->map_shift) + 1;
	active = bf_zalloc(d, bf_map_words(nbits) * sizeof(u64));
	snap = bf_zalloc(d, bf_map_words(nbits) * sizeof(u64));
	moved = bf_zalloc(d, bf_map_chunks(nbits));
	bf_map_init(&d->map, nbits, active, snap, moved);
	return active && snap && moved ? 0 : -ENOMEM;
}

static void bf_disk_init_ctl(struct bf_disk *d, const struct bf_disk_config *cfg)
{
	struct blkferry_ctl *ctl = d->ctl;

	ctl->magic = BLKFERRY_CTL_MAGIC;
	ctl->abi = BLKFERRY_ABI_VERSION;
	ctl->desc_count = cfg->descs;
	ctl->data_bytes = cfg->data_bytes;
	ctl->nr_sectors = cfg->nr_sectors;
	ctl->dev_major = MAJOR(cfg->dev);
	ctl->dev_minor = MINOR(cfg->dev);
	ctl->block_shift = d->map_shift + SECTOR_SHIFT;
	ctl->logical_block = cfg->logical_block;
	ctl->map_bytes = d->map.nwords * sizeof(u64);
	get_random_bytes(ctl->attach_id, sizeof(ctl->attach_id));
}

/*
 * A disk in BITMAP with every bit of the active map set, nobody knows of it
 * yet.  Sizes were checked by the caller.  NULL: no memory.
 */
struct bf_disk *bf_disk_alloc(const struct bf_disk_config *cfg)
{
	struct bf_disk *d = kzalloc(sizeof(*d), GFP_KERNEL);
	u64 chunk;

	if (!d)
		return NULL;
	d->memory = sizeof(*d);
	raw_spin_lock_init(&d->lock);
	mutex_init(&d->ctl_lock);
	kref_init(&d->ref);
	init_waitqueue_head(&d->wait);
	init_irq_work(&d->irq_work, bf_disk_irq_work);
	INIT_WORK(&d->news_work, bf_disk_news_work);

	d->ctl = bf_zalloc(d, sizeof(*d->ctl));
	d->cons = bf_zalloc(d, sizeof(*d->cons));
	d->descs = bf_zalloc(d, (u64)cfg->descs * sizeof(*d->descs));
	d->data = bf_zalloc(d, cfg->data_bytes);
	d->ovl = bf_zalloc(d, sizeof(*d->ovl));
	d->latency = alloc_percpu(struct bf_latency);
	d->memory += num_possible_cpus() * sizeof(struct bf_latency);
	if (bf_disk_alloc_map(d, cfg->nr_sectors) || !d->latency ||
	    !d->ctl || !d->cons || !d->descs || !d->data || !d->ovl) {
		bf_disk_free(d);
		return NULL;
	}
	d->nr_sectors = cfg->nr_sectors;
	d->inline_max = cfg->inline_max;
	bf_ring_init(&d->ring, cfg->descs, cfg->data_bytes);
	d->tick = jiffies - 1;
	bf_disk_init_ctl(d, cfg);
	for (chunk = 0; chunk < d->map.nchunks; chunk++) {
		bf_disk_mark_chunk(d, chunk);
		cond_resched();
	}
	bf_disk_publish_map(d);
	d->state = BLKFERRY_BITMAP;
	d->ctl->state = BLKFERRY_BITMAP;
	d->gap_seq = 1;
	d->ctl->gap_seq = 1;
	return d;
}

/* Any context, with or without the lock: multicast ev soon. */
void bf_disk_news(struct bf_disk *d, enum blkferry_event ev)
{
	set_bit(ev, &d->news);
	irq_work_queue(&d->irq_work);
}

/* Any context, with or without the lock: let poll() report once. */
void bf_disk_wake(struct bf_disk *d)
{
	if (READ_ONCE(d->event))
		return;
	WRITE_ONCE(d->event, 1);
	irq_work_queue(&d->irq_work);
}

void bf_disk_set_state(struct bf_disk *d, enum blkferry_state state)
{
	WRITE_ONCE(d->state, state);	/* probes look before they lock */
	WRITE_ONCE(d->ctl->state, state);
	bf_disk_wake(d);
	bf_disk_news(d, BLKFERRY_EV_STATE);
}

void bf_disk_set_flags(struct bf_disk *d, u32 set, u32 clear)
{
	WRITE_ONCE(d->flags, (d->flags & ~clear) | set);	/* read without the lock */
	WRITE_ONCE(d->ctl->flags, d->flags);
}

/* The operation numbered seq is not wholly in the ring. */
void bf_disk_gap(struct bf_disk *d, u64 seq)
{
	bool opened = !d->gap_seq;

	if (!opened && d->gap_seq <= seq)
		return;
	d->gap_seq = seq;
	/* a descriptor that becomes final afterwards must not be seen before */
	smp_store_release(&d->ctl->gap_seq, seq);
	if (opened) {
		bf_disk_wake(d);
		bf_disk_news(d, BLKFERRY_EV_STATE);
	}
}

/* Something without a number of its own is missing in the ring. */
void bf_disk_gap_next(struct bf_disk *d)
{
	if (!d->gap_seq)
		bf_disk_gap(d, atomic64_read(&bf_seq) + 1);
}

void bf_disk_publish_map(struct bf_disk *d)
{
	WRITE_ONCE(d->ctl->active_blocks, d->map.active_bits);
	WRITE_ONCE(d->ctl->snap_blocks, d->map.snap_bits);
}

/* Set the blocks of a range in the active map; what lies beyond the disk is ignored. */
void bf_disk_mark(struct bf_disk *d, u64 sector, u64 nr)
{
	u64 first, past;

	nr = bf_extent_clip(sector, nr, d->nr_sectors);
	if (unlikely(!nr))
		return;
	first = bf_extent_outer(sector, nr, d->map_shift, &past);
	bf_map_mark(&d->map, first, past);
	WRITE_ONCE(d->ctl->active_blocks, d->map.active_bits);
	if (unlikely(d->map.moving))
		WRITE_ONCE(d->ctl->snap_blocks, d->map.snap_bits);
}

/* Set all of one chunk in the active map. */
void bf_disk_mark_chunk(struct bf_disk *d, u64 chunk)
{
	u64 first = chunk << BF_MAP_CHUNK_SHIFT;

	bf_map_mark(&d->map, first, min(first + BF_MAP_CHUNK_BITS, d->map.nbits));
	bf_disk_publish_map(d);
}
