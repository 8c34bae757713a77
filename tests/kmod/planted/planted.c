// SPDX-License-Identifier: GPL-2.0-only
/*
 * For tests only: does one thing wrong on purpose, so that a test can see that
 * a kernel with sanitizers reports it and that the harness reads the report.
 *
 * insmod planted.ko fault=NAME; rmmod planted
 * All but "race" have happened when it is loaded; races go on until unload.
 * Nothing here is dangerous to the rest of the kernel with sanitizers on;
 * without them "heap", "freed" and "vmalloc" write a byte where none belongs.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timer.h>
#include <linux/vmalloc.h>

#define PLANTED_BYTES	96
#define PLANTED_RACERS	2

static char *fault = "none";
module_param(fault, charp, 0444);
MODULE_PARM_DESC(fault, "none, heap, freed, vmalloc, leak, rcu, sleep, object, inversion, race or marked");

static int planted_none(void)
{
	return 0;
}

/* One byte beyond what was asked for. */
static int planted_heap(void)
{
	char *p = kmalloc(PLANTED_BYTES, GFP_KERNEL);

	if (!p)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(p[PLANTED_BYTES], 1);
	kfree(p);
	return 0;
}

static int planted_freed(void)
{
	char *p = kmalloc(PLANTED_BYTES, GFP_KERNEL);

	if (!p)
		return -ENOMEM;
	kfree(p);
	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(p[0], 1);
	return 0;
}

/* Within the last page of the area, where only the sanitizer knows its end. */
static int planted_vmalloc(void)
{
	char *p = vmalloc(PLANTED_BYTES);

	if (!p)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(p);
	WRITE_ONCE(p[PLANTED_BYTES + 8], 1);
	vfree(p);
	return 0;
}

static int planted_leak(void)
{
	char *p = kzalloc(PLANTED_BYTES, GFP_KERNEL);

	if (!p)
		return -ENOMEM;
	OPTIMIZER_HIDE_VAR(p);
	return 0;
}

static int __rcu *planted_pointer;

/* Reads a pointer that RCU protects, without its protection. */
static int planted_rcu(void)
{
	return rcu_dereference(planted_pointer) ? -EEXIST : 0;
}

static DEFINE_SPINLOCK(planted_spin);

static int planted_sleep(void)
{
	spin_lock(&planted_spin);
	might_sleep();
	spin_unlock(&planted_spin);
	return 0;
}

struct planted_object {
	struct timer_list timer;
};

static void planted_timer(struct timer_list *timer)
{
}

/* Frees a timer that is still to fire. */
static int planted_object(void)
{
	struct planted_object *o = kzalloc(sizeof(*o), GFP_KERNEL);

	if (!o)
		return -ENOMEM;
	timer_setup(&o->timer, planted_timer, 0);
	mod_timer(&o->timer, jiffies + 3600 * HZ);
	kfree(o);
	return 0;
}

static DEFINE_MUTEX(planted_first);
static DEFINE_MUTEX(planted_second);

/* Two locks in both orders; nobody else takes them, so nothing hangs. */
static int planted_inversion(void)
{
	mutex_lock(&planted_first);
	mutex_lock(&planted_second);
	mutex_unlock(&planted_second);
	mutex_unlock(&planted_first);
	mutex_lock(&planted_second);
	mutex_lock(&planted_first);
	mutex_unlock(&planted_first);
	mutex_unlock(&planted_second);
	return 0;
}

static unsigned long planted_count;
static struct task_struct *planted_racers[PLANTED_RACERS];

static noinline void planted_race_step(void)
{
	planted_count++;
}

/* The same sum, said to be a race that is wanted. */
static noinline void planted_marked_step(void)
{
	WRITE_ONCE(planted_count, READ_ONCE(planted_count) + 1);
}

static int planted_racer(void *step)
{
	void (*run)(void) = step;
	int i;

	while (!kthread_should_stop()) {
		for (i = 0; i < 1000; i++)
			run();
		cond_resched();
	}
	return 0;
}

static int planted_start(void (*step)(void))
{
	int i;

	for (i = 0; i < PLANTED_RACERS; i++) {
		struct task_struct *t = kthread_run(planted_racer, step, "planted/%d", i);

		if (IS_ERR(t))
			return PTR_ERR(t);
		planted_racers[i] = t;
	}
	return 0;
}

static int planted_race(void)
{
	return planted_start(planted_race_step);
}

static int planted_marked(void)
{
	return planted_start(planted_marked_step);
}

static const struct {
	const char *name;
	int (*plant)(void);
} planted_faults[] = {
	{ "none", planted_none },	{ "heap", planted_heap },
	{ "freed", planted_freed },	{ "vmalloc", planted_vmalloc },
	{ "leak", planted_leak },	{ "rcu", planted_rcu },
	{ "sleep", planted_sleep },	{ "object", planted_object },
	{ "inversion", planted_inversion }, { "race", planted_race },
	{ "marked", planted_marked },
};

static void planted_exit(void)
{
	int i;

	for (i = 0; i < PLANTED_RACERS; i++)
		if (planted_racers[i])
			kthread_stop(planted_racers[i]);
}

static int __init planted_init(void)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(planted_faults); i++) {
		if (strcmp(planted_faults[i].name, fault))
			continue;
		err = planted_faults[i].plant();
		if (err)
			planted_exit();
		return err;
	}
	return -EINVAL;
}

module_init(planted_init);
module_exit(planted_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Faults planted on purpose, for tests of the sanitizers");
