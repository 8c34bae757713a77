// SPDX-License-Identifier: GPL-2.0-only
/*
 * The unit of the instruction table: what the kernel's own memcpy costs on this CPU.  Loading it prints one line,
 * "bf_unit: memcpy 4096 N 65536 M", in time stamp counter ticks (instructions under qemu -icount), and then fails
 * with -ECANCELED on purpose, so nothing stays loaded.
 */
#include <linux/irqflags.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>
#include <asm/msr.h>

#define BF_UNIT_ROUNDS	64

static void (*volatile bf_unit_hide)(void *to, const void *from, size_t n);

static void bf_unit_none(void *to, const void *from, size_t n)
{
}

static void bf_unit_copy(void *to, const void *from, size_t n)
{
	memcpy(to, from, n);
}

/* The smallest of some rounds; interrupts are off in each of them. */
static u64 bf_unit_measure(void (*how)(void *to, const void *from, size_t n), void *to,
			   const void *from, size_t n)
{
	u64 best = U64_MAX, ticks;
	unsigned long flags;
	int i;

	bf_unit_hide = how;
	for (i = 0; i < BF_UNIT_ROUNDS; i++) {
		local_irq_save(flags);
		ticks = rdtsc_ordered();
		bf_unit_hide(to, from, n);
		ticks = rdtsc_ordered() - ticks;
		local_irq_restore(flags);
		best = min(best, ticks);
	}
	return best;
}

static int __init bf_unit_init(void)
{
	void *from = vzalloc(SZ_64K), *to = vzalloc(SZ_64K);
	u64 empty;

	if (!from || !to) {
		vfree(from);
		vfree(to);
		return -ENOMEM;
	}
	empty = bf_unit_measure(bf_unit_none, to, from, 0);
	pr_info("bf_unit: memcpy 4096 %llu 65536 %llu\n",
		bf_unit_measure(bf_unit_copy, to, from, SZ_4K) - empty,
		bf_unit_measure(bf_unit_copy, to, from, SZ_64K) - empty);
	vfree(from);
	vfree(to);
	return -ECANCELED;
}

module_init(bf_unit_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("blkferry benchmark: the cost of a copy");
