/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long our own code kept the I/O path, as histograms per disk and CPU.
 *
 * Counted in ticks of get_cycles(); a tick's length is measured against the
 * kernel's clock once a second.  Where there is no cycle counter nothing is
 * told.
 */
#ifndef BF_LATENCY_H
#define BF_LATENCY_H

#include <linux/bitops.h>
#include <linux/percpu.h>
#include <linux/timex.h>

#include "disk.h"

/* One CPU's share of one set; see struct blkferry_latency. */
struct bf_latency_set {
	u64 count[BLKFERRY_LATENCY_BUCKETS];
	u64 max;
};

struct bf_latency {
	struct bf_latency_set set[BLKFERRY_L_MAX];
};

struct sk_buff;

void bf_latency_init(void);
void bf_latency_calibrate(void);
void bf_latency_max(struct bf_latency_set __percpu *set, u64 ticks);
void bf_latency_frozen(u64 ns);
int bf_latency_put_disk(struct sk_buff *skb, const struct bf_disk *d);
int bf_latency_put_frozen(struct sk_buff *skb);

/* What began at start ends now, on the same CPU (preemption off). */
static __always_inline void bf_latency_add(struct bf_disk *d, enum blkferry_latency_set which,
					   cycles_t start)
{
	u64 ticks = (cycles_t)(get_cycles() - start);
	struct bf_latency_set __percpu *set = &d->latency->set[which];

	this_cpu_inc(set->count[__fls(ticks | 1) & (BLKFERRY_LATENCY_BUCKETS - 1)]);
	if (unlikely(ticks > this_cpu_read(set->max)))
		bf_latency_max(set, ticks);
}

/*
 * Is the next operation one of those that are measured?  A counter that grows
 * by one an operation decides; it is read without the lock, near enough counts.
 */
static __always_inline bool bf_latency_sampled(const struct bf_disk *d, enum blkferry_counter c)
{
	return !(data_race(d->ctl->counters[c]) & (BLKFERRY_LATENCY_EVERY - 1));
}

#endif /* BF_LATENCY_H */
