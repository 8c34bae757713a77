/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One protected disk.
 *
 * Locks, outermost first:
 *   bf_admin_sem      attach, detach and SEQ_FLOOR exclusive, all else shared
 *   disk->ctl_lock    control operations of one disk (may sleep)
 *   disk->lock        everything that the probes change; raw, irqs off
 *
 * Lifetime: struct bf_disk is counted (attach holds one reference, so does an
 * open file).  A probe reaches a disk only through the lookup table or an
 * in-flight entry; detach empties both and waits for the running probes.
 */
#ifndef BF_DISK_H
#define BF_DISK_H

#include <linux/atomic.h>
#include <linux/hash.h>
#include <linux/irq_work.h>
#include <linux/jiffies.h>
#include <linux/kdev_t.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/ktime.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "blkferry.h"
#include "compat/compat.h"
#include "core/dirtymap.h"
#include "core/extent.h"
#include "core/overlap.h"
#include "core/ring.h"

struct bf_latency;

struct bf_disk {
	/* constant while attached; what every probe reads */
	struct gendisk *gd;
	u64 nr_sectors;
	struct blkferry_desc *descs;
	u8 *data;
	struct blkferry_ctl *ctl;
	struct blkferry_cons *cons;
	struct bf_overlap *ovl;
	struct bf_latency __percpu *latency;
	u32 inline_max;			/* bytes */
	u32 map_shift;			/* log2 of sectors per map block */
	u32 id;
	bool mq;			/* driven by blk-mq, not bio-based */

	raw_spinlock_t lock ____cacheline_aligned_in_smp;
	/* under lock */
	u32 state;			/* enum blkferry_state */
	u32 flags;			/* BLKFERRY_CTL_* */
	u32 parity;			/* epoch parity of new writes */
	u32 inflight[2];		/* writes in flight per parity */
	bool mark_all;			/* the whole active map has to be set */
	unsigned long tick;		/* jiffies when time_ns was read */
	u64 time_ns;			/* CLOCK_REALTIME, coarse */
	u64 gap_seq;
	struct bf_ring ring;
	struct bf_map map;

	/* waking the consumer, telling the world */
	int event ____cacheline_aligned_in_smp;	/* poll has something to report */
	unsigned long news;		/* bits: enum blkferry_event to multicast */
	wait_queue_head_t wait;
	struct irq_work irq_work;
	struct work_struct news_work;

	/* control side */
	struct kref ref;
	struct mutex ctl_lock;
	struct bf_bdev bdev;		/* open while attached */
	unsigned long open;		/* bit 0: the character device is open */
	bool detached;			/* set once, before the final wake */
	u64 memory;			/* bytes reserved */
	char name[32];
};

/* The one sequence counter: the last number drawn. */
extern atomic64_t bf_seq;
/* All missing numbers up to this one are void (see BLKFERRY_A_VOID_SEQ). */
extern atomic64_t bf_void_seq;

extern struct rw_semaphore bf_admin_sem;
extern struct workqueue_struct *bf_wq;
/* Thaws only.  With a rescuer of its own: other work may wait for memory that a frozen file system holds. */
extern struct workqueue_struct *bf_thaw_wq;

/* disk.c */
struct bf_disk_config {
	u64 data_bytes;
	u32 descs;
	u32 inline_max;
	u64 nr_sectors;
	u32 logical_block;
	dev_t dev;
};

struct bf_disk *bf_disk_alloc(const struct bf_disk_config *cfg);
void bf_disk_get(struct bf_disk *d);
void bf_disk_put(struct bf_disk *d);
void bf_disk_news(struct bf_disk *d, enum blkferry_event ev);
void bf_disk_wake(struct bf_disk *d);
void bf_disk_set_state(struct bf_disk *d, enum blkferry_state state);
void bf_disk_set_flags(struct bf_disk *d, u32 set, u32 clear);
void bf_disk_gap(struct bf_disk *d, u64 seq);
void bf_disk_gap_next(struct bf_disk *d);
void bf_disk_mark(struct bf_disk *d, u64 sector, u64 nr);
void bf_disk_mark_chunk(struct bf_disk *d, u64 chunk);
void bf_disk_publish_map(struct bf_disk *d);

/* attach.c */
struct netlink_ext_ack;
int bf_attach(dev_t dev, struct bf_disk_config *cfg, struct bf_disk **out,
	      struct netlink_ext_ack *extack);
void bf_detach(struct bf_disk *d);

/* lookup.c: by gendisk (probes) and by id (control) */
struct bf_disk *bf_lookup_id(u32 id);
bool bf_lookup_attached(const struct gendisk *gd);
int bf_lookup_add(struct bf_disk *d);
void bf_lookup_del_gd(struct bf_disk *d);
void bf_lookup_del_id(struct bf_disk *d);
int bf_lookup_new_id(void);
u32 bf_lookup_count(void);

#define BF_LOOKUP_SHIFT		9
#define BF_LOOKUP_SLOTS		(1U << BF_LOOKUP_SHIFT)
extern struct bf_disk __rcu *bf_lookup_table[BF_LOOKUP_SLOTS];
extern struct bf_disk bf_lookup_tomb;

/*
 * The protected disk of a gendisk, or NULL.  Probes only (preemption off).
 * At most BLKFERRY_DISKS_MAX of the slots are used, so the loop ends.
 */
static __always_inline struct bf_disk *bf_lookup(const struct gendisk *gd)
{
	u32 i = hash_ptr(gd, BF_LOOKUP_SHIFT);

	for (;;) {
		struct bf_disk *d = rcu_dereference_sched(bf_lookup_table[i]);

		if (likely(!d))
			return NULL;
		if (d->gd == gd)
			return d;
		i = (i + 1) & (BF_LOOKUP_SLOTS - 1);
	}
}

/*
 * The disk's lock in the probes.  Inlined where nothing checks locks: the four
 * calls of a write would cost more than what they protect.
 */
static __always_inline unsigned long bf_lock(struct bf_disk *d) __acquires(&d->lock)
{
	unsigned long flags;

#if defined(CONFIG_LOCKDEP) || defined(CONFIG_DEBUG_SPINLOCK)
	raw_spin_lock_irqsave(&d->lock, flags);
#else
	local_irq_save(flags);
	do_raw_spin_lock(&d->lock);
#endif
	return flags;
}

static __always_inline void bf_unlock(struct bf_disk *d, unsigned long flags) __releases(&d->lock)
{
#if defined(CONFIG_LOCKDEP) || defined(CONFIG_DEBUG_SPINLOCK)
	raw_spin_unlock_irqrestore(&d->lock, flags);
#else
	do_raw_spin_unlock(&d->lock);
	local_irq_restore(flags);
#endif
}

/* Under the lock: how many writes are in flight in an epoch. */
static __always_inline u32 *bf_disk_inflight(struct bf_disk *d, u32 parity)
{
	return &d->inflight[parity & 1];
}

/* The map's block of a sector.  The mask tells a checking compiler what is so anyway. */
static __always_inline u64 bf_disk_block(const struct bf_disk *d, u64 sector)
{
	return sector >> (d->map_shift & 63);
}

/* Under the lock: bf_disk_mark() of a range on the disk, mostly of one block. */
static __always_inline void bf_disk_mark_one(struct bf_disk *d, u64 sector, u32 nr)
{
	u64 block = bf_disk_block(d, sector);
	u64 *w, bit;

	if (unlikely(d->map.moving || block != bf_disk_block(d, sector + nr - 1))) {
		bf_disk_mark(d, sector, nr);
		return;
	}
	w = &d->map.active[block >> 6];
	bit = 1ULL << (block & 63);
	if (!(*w & bit)) {
		*w |= bit;
		WRITE_ONCE(d->ctl->active_blocks, ++d->map.active_bits);
	}
}

/* Under the lock: the time for a descriptor.  It changes once a tick anyway. */
static __always_inline u64 bf_disk_time(struct bf_disk *d)
{
	if (unlikely(d->tick != jiffies)) {
		d->tick = jiffies;
		d->time_ns = ktime_get_coarse_real_ns();
	}
	return d->time_ns;
}

/* A device number of the contract, major << 32 | minor. */
static inline bool bf_decode_dev(u64 wire, dev_t *dev)
{
	u32 major = wire >> 32, minor = (u32)wire;

	*dev = MKDEV(major, minor);
	return MAJOR(*dev) == major && MINOR(*dev) == minor;
}

static __always_inline void bf_count(struct bf_disk *d, enum blkferry_counter c, u64 n)
{
	d->ctl->counters[c] += n;
}

/* Under the lock: one more operation, of nr sectors. */
static __always_inline void bf_count_op(struct bf_disk *d, enum blkferry_counter ops,
					enum blkferry_counter sectors, u32 nr)
{
	u64 *counters = d->ctl->counters;

	counters[ops]++;
	counters[sectors] += nr;
}

#endif /* BF_DISK_H */
