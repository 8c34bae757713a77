/* SPDX-License-Identifier: GPL-2.0-only */
/* The generic netlink family. */
#ifndef BF_NETLINK_H
#define BF_NETLINK_H

#include <net/genetlink.h>

#include "disk.h"

int bf_netlink_init(void);
void bf_netlink_exit(void);
void bf_netlink_event(struct bf_disk *d, enum blkferry_event ev);

/* netlink_reply.c */
extern struct genl_family bf_family;
extern u8 bf_load_id[BLKFERRY_UUID_LEN];

int bf_reply_info(struct genl_info *info);
int bf_reply_disk(struct genl_info *info, struct bf_disk *d);
int bf_reply_u64(struct genl_info *info, u8 cmd, u16 attr, u64 value);
int bf_fill_disk(struct sk_buff *skb, struct bf_disk *d, u32 portid, u32 seq, int flags);

#endif /* BF_NETLINK_H */
