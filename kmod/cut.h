/* SPDX-License-Identifier: GPL-2.0-only */
/* Cuts: one number over all disks, crash-consistent or with frozen file systems. */
#ifndef BF_CUT_H
#define BF_CUT_H

#include <linux/types.h>

struct netlink_ext_ack;

int bf_cut(u64 *seq);
int bf_cut_frozen(const u64 *devs, u32 n, u32 ms, u64 *seq, struct netlink_ext_ack *extack);

#endif /* BF_CUT_H */
