// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long our own code kept the I/O path: the slow side of the histograms.
 * The length of a tick, the sums over the CPUs, what netlink tells.
 */
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/spinlock.h>
#include <net/netlink.h>

#include "latency.h"

/* Shorter than this the two clocks are not compared. */
#define BF_CALIBRATE_NS_MIN	(NSEC_PER_SEC / 1000)

/* ticks and nanoseconds of the same stretch of time */
struct bf_clock {
	u64 ticks;
	u64 ns;
};

static DEFINE_SPINLOCK(bf_clock_lock);
static struct bf_clock bf_clock_base;	/* when the running stretch began */
static struct bf_clock bf_clock_rate;	/* the last whole stretch; ticks 0: none yet */

/* File systems frozen for cuts, in nanoseconds; under bf_clock_lock. */
static struct blkferry_latency bf_frozen;

static struct bf_clock bf_clock_now(void)
{
	struct bf_clock now;
	unsigned long flags;

	local_irq_save(flags);
	now.ns = ktime_get_ns();
	now.ticks = get_cycles();
	local_irq_restore(flags);
	return now;
}

/* From base until now; false: too short, or the counter stands still or was set back. */
static bool bf_clock_stretch(const struct bf_clock *now, struct bf_clock *stretch)
{
	stretch->ns = now->ns - bf_clock_base.ns;
	stretch->ticks = (cycles_t)(now->ticks - bf_clock_base.ticks);
	return stretch->ns >= BF_CALIBRATE_NS_MIN && (s64)stretch->ticks > 0;
}

void bf_latency_init(void)
{
	bf_clock_base = bf_clock_now();
}

/*
 * Once a second: the stretch since the last call tells how long a tick is.  A
 * counter that was set back meanwhile (suspend) spoils one stretch only.
 */
void bf_latency_calibrate(void)
{
	struct bf_clock now = bf_clock_now(), stretch;

	spin_lock(&bf_clock_lock);
	if (bf_clock_stretch(&now, &stretch))
		bf_clock_rate = stretch;
	bf_clock_base = now;
	spin_unlock(&bf_clock_lock);
}

/* False: a tick's length is not known. */
static bool bf_latency_rate(struct bf_clock *rate)
{
	struct bf_clock now = bf_clock_now();
	bool known = true;

	spin_lock(&bf_clock_lock);
	*rate = bf_clock_rate;
	if (!rate->ticks)
		known = bf_clock_stretch(&now, rate);
	spin_unlock(&bf_clock_lock);
	return known;
}

/* A new maximum of this CPU.  A counter that went back is none. */
noinline void bf_latency_max(struct bf_latency_set __percpu *set, u64 ticks)
{
	unsigned long flags;

	if (ticks >> (BLKFERRY_LATENCY_BUCKETS - 1))
		return;
	/* a probe in an interrupt may have been here meanwhile */
	local_irq_save(flags);
	if (ticks > this_cpu_read(set->max))
		this_cpu_write(set->max, ticks);
	local_irq_restore(flags);
}

/* File systems stood still for a cut for so long.  May not be called in an interrupt. */
void bf_latency_frozen(u64 ns)
{
	spin_lock(&bf_clock_lock);
	bf_frozen.count[__fls(ns | 1)]++;
	bf_frozen.max = max(bf_frozen.max, ns);
	spin_unlock(&bf_clock_lock);
}

static void bf_latency_sum(const struct bf_disk *d, int which, struct blkferry_latency *sum)
{
	int cpu, i;

	memset(sum, 0, sizeof(*sum));
	for_each_possible_cpu(cpu) {
		const struct bf_latency_set *set = &per_cpu_ptr(d->latency, cpu)->set[which];

		/* but the last: differences below 0 */
		for (i = 0; i < BLKFERRY_LATENCY_BUCKETS - 1; i++)
			sum->count[i] += data_race(READ_ONCE(set->count[i]));
		sum->max = max(sum->max, data_race(READ_ONCE(set->max)));
	}
}

static int bf_latency_put_rate(struct sk_buff *skb, u64 ticks, u64 ns)
{
	return nla_put_u64_64bit(skb, BLKFERRY_A_TICKS, ticks, BLKFERRY_A_PAD) ||
	       nla_put_u64_64bit(skb, BLKFERRY_A_TICKS_NS, ns, BLKFERRY_A_PAD);
}

/* LATENCY, TICKS and TICKS_NS of a disk, or nothing.  Not 0: no room. */
int bf_latency_put_disk(struct sk_buff *skb, const struct bf_disk *d)
{
	struct blkferry_latency sum;
	struct bf_clock rate;
	struct nlattr *a;
	int which;

	if (!bf_latency_rate(&rate))
		return 0;
	a = nla_reserve(skb, BLKFERRY_A_LATENCY, BLKFERRY_L_MAX * sizeof(sum));
	if (!a)
		return -EMSGSIZE;
	for (which = 0; which < BLKFERRY_L_MAX; which++) {
		bf_latency_sum(d, which, &sum);
		memcpy(nla_data(a) + which * sizeof(sum), &sum, sizeof(sum));
	}
	return bf_latency_put_rate(skb, rate.ticks, rate.ns);
}

/* The same for the file systems that were frozen; a tick is a nanosecond. */
int bf_latency_put_frozen(struct sk_buff *skb)
{
	struct blkferry_latency frozen;

	spin_lock(&bf_clock_lock);
	frozen = bf_frozen;
	spin_unlock(&bf_clock_lock);
	return nla_put(skb, BLKFERRY_A_LATENCY, sizeof(frozen), &frozen) ||
	       bf_latency_put_rate(skb, 1, 1);
}
