// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finding the kernel's tracepoints and hooking the probes in.  They are
 * hooked in only while a disk is attached.  The order matters: an in-flight
 * entry must never be made without its completer, so the completion probes
 * come first and go last.
 */
#include <linux/tracepoint.h>
#include <trace/events/block.h>

#include "capture.h"
#include "complete.h"
#include "tracepoints.h"

struct bf_tracepoint {
	const char *name;
	void *probe;
	struct tracepoint *tp;
};

static struct bf_tracepoint bf_tps[] = {
	{ "block_rq_complete", bf_probe_rq_complete },
	{ "block_bio_complete", bf_probe_bio_complete },
	{ "block_bio_queue", bf_probe_bio_queue },
	{ "block_rq_issue", bf_probe_rq_issue },
};

/* A prototype that does not fit would be a crash: the compiler checks. */
static void __maybe_unused bf_tracepoints_check(void)
{
	check_trace_callback_type_block_rq_complete(bf_probe_rq_complete);
	check_trace_callback_type_block_bio_complete(bf_probe_bio_complete);
	check_trace_callback_type_block_bio_queue(bf_probe_bio_queue);
	check_trace_callback_type_block_rq_issue(bf_probe_rq_issue);
}

static void __init bf_tracepoint_match(struct tracepoint *tp, void *priv)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bf_tps); i++)
		if (!strcmp(tp->name, bf_tps[i].name))
			bf_tps[i].tp = tp;
}

int __init bf_tracepoints_find(void)
{
	size_t i;

	for_each_kernel_tracepoint(bf_tracepoint_match, NULL);
	for (i = 0; i < ARRAY_SIZE(bf_tps); i++) {
		if (bf_tps[i].tp)
			continue;
		pr_err("blkferry: this kernel has no tracepoint %s\n", bf_tps[i].name);
		return -EOPNOTSUPP;
	}
	return 0;
}

static void bf_tracepoints_remove(size_t n)
{
	while (n--)
		tracepoint_probe_unregister(bf_tps[n].tp, bf_tps[n].probe, NULL);
	tracepoint_synchronize_unregister();
}

/* May sleep. */
int bf_tracepoints_register(void)
{
	size_t i;
	int err;

	for (i = 0; i < ARRAY_SIZE(bf_tps); i++) {
		err = tracepoint_probe_register(bf_tps[i].tp, bf_tps[i].probe, NULL);
		if (err) {
			bf_tracepoints_remove(i);
			return err;
		}
	}
	return 0;
}

/* No probe runs any more when this returns.  May sleep. */
void bf_tracepoints_unregister(void)
{
	bf_tracepoints_remove(ARRAY_SIZE(bf_tps));
}
