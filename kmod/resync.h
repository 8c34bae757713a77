/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Resync rounds: the control operations that move a disk between BITMAP,
 * RESYNC and RING.  bf_admin_sem is held shared; all of them may sleep.
 */
#ifndef BF_RESYNC_H
#define BF_RESYNC_H

#include "disk.h"

struct netlink_ext_ack;

int bf_resync_begin(struct bf_disk *d, u64 *seq, struct netlink_ext_ack *extack);
int bf_resync_clear(struct bf_disk *d, const struct blkferry_range *r, u32 n, const u64 *epoch,
		    struct netlink_ext_ack *extack);
int bf_resync_end(struct bf_disk *d, u64 *seq, struct netlink_ext_ack *extack);
int bf_mark_dirty(struct bf_disk *d, const struct blkferry_range *r, u32 n,
		  struct netlink_ext_ack *extack);
int bf_ring_catch_up(struct bf_disk *d);
void bf_resync_fill(struct bf_disk *d);

#endif /* BF_RESYNC_H */
