// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests only: makes one function of the kernel or of a module take longer,
 * by a probe at its entry that waits with the CPU.
 *
 * insmod stall.ko symbol=bf_copy_many ms=30; rmmod stall
 * /sys/module/stall/parameters/hits says how often it waited.
 */
#include <linux/atomic.h>
#include <linux/kprobes.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/processor.h>

static char *symbol;
module_param(symbol, charp, 0444);
static unsigned int ms = 30;
module_param(ms, uint, 0444);
static unsigned int hits;
module_param(hits, uint, 0444);

static atomic_t stalls = ATOMIC_INIT(0);

static int stall_enter(struct kprobe *p, struct pt_regs *regs)
{
	/*
	 * By the clock, not udelay(): an emulated machine may have calibrated its loops wrong.
	 * By its fast reader: where the probe is a breakpoint this is as in an NMI.
	 */
	u64 end = ktime_get_mono_fast_ns() + (u64)ms * NSEC_PER_MSEC;

	while (ktime_get_mono_fast_ns() < end)
		cpu_relax();
	WRITE_ONCE(hits, atomic_inc_return(&stalls));
	return 0;
}

static struct kprobe stall = { .pre_handler = stall_enter };

static int __init stall_init(void)
{
	if (!symbol || ms > 1000)
		return -EINVAL;
	stall.symbol_name = symbol;
	return register_kprobe(&stall);
}

static void __exit stall_exit(void)
{
	unregister_kprobe(&stall);
}

module_init(stall_init);
module_exit(stall_exit);

MODULE_DESCRIPTION("Makes a kernel function take longer, for tests");
MODULE_LICENSE("GPL");
