// SPDX-License-Identifier: GPL-2.0-only
/* blkferry: captures the writes to protected disks into memory rings. */
#include <linux/module.h>
#include <linux/random.h>
#include <linux/workqueue.h>

#include "chardev.h"
#include "complete.h"
#include "disk.h"
#include "inflight.h"
#include "latency.h"
#include "netlink.h"
#include "tracepoints.h"
#include "version.h"
#include "watch.h"

struct workqueue_struct *bf_wq;
struct workqueue_struct *bf_thaw_wq;

static int __init bf_init(void)
{
	int err;

	get_random_bytes(bf_load_id, sizeof(bf_load_id));
	bf_latency_init();
	err = bf_complete_init();
	if (err)
		return err;
	err = bf_tracepoints_find();
	if (err)
		return err;
	err = bf_inflight_init();
	if (err)
		return err;
	err = -ENOMEM;
	bf_wq = alloc_workqueue("blkferry", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!bf_wq)
		goto inflight;
	bf_thaw_wq = alloc_workqueue("blkferry_thaw", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!bf_thaw_wq)
		goto wq;
	err = bf_chardev_init();
	if (err)
		goto thaw_wq;
	err = bf_netlink_init();
	if (err)
		goto chardev;
	pr_info("blkferry: loaded version=%s abi=%u\n", BF_VERSION, BLKFERRY_ABI_VERSION);
	return 0;
chardev:
	bf_chardev_exit();
thaw_wq:
	destroy_workqueue(bf_thaw_wq);
wq:
	destroy_workqueue(bf_wq);
inflight:
	bf_inflight_exit();
	return err;
}

/* Each attached disk holds a reference on the module, so none is left here. */
static void __exit bf_exit(void)
{
	bf_netlink_exit();
	bf_chardev_exit();
	bf_watch_stop();
	destroy_workqueue(bf_thaw_wq);
	destroy_workqueue(bf_wq);
	bf_inflight_exit();
}

module_init(bf_init);
module_exit(bf_exit);

MODULE_DESCRIPTION("Continuous block replication: captures block writes into memory rings");
MODULE_AUTHOR("The blkferry authors");
MODULE_LICENSE("GPL");
MODULE_VERSION(BF_VERSION);
