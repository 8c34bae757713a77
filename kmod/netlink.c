// SPDX-License-Identifier: GPL-2.0-only
/*
 * The generic netlink family: requests.  Each handler checks the caller's
 * capability, takes bf_admin_sem, does one thing and replies.
 */
#include <linux/capability.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/module.h>

#include "cut.h"
#include "inflight.h"
#include "netlink.h"
#include "resync.h"

#define BF_SEQ_MAX	(1ULL << 62)
#define BF_FREEZE_MS_DEF 5000U

static const struct nla_policy bf_policy[BLKFERRY_A_MAX + 1] = {
	[BLKFERRY_A_SEQ] = { .type = NLA_U64 },
	[BLKFERRY_A_DEV] = { .type = NLA_U64 },
	[BLKFERRY_A_DISK] = { .type = NLA_U32 },
	[BLKFERRY_A_DATA_BYTES] = { .type = NLA_U64 },
	[BLKFERRY_A_DESCS] = { .type = NLA_U32 },
	[BLKFERRY_A_INLINE_MAX] = { .type = NLA_U32 },
	[BLKFERRY_A_RANGES] = { .type = NLA_BINARY,
				.len = BLKFERRY_RANGES_MAX * sizeof(struct blkferry_range) },
	[BLKFERRY_A_FREEZE_DEVS] = { .type = NLA_BINARY,
				     .len = BLKFERRY_FREEZE_MAX * sizeof(u64) },
	[BLKFERRY_A_FREEZE_MS] = NLA_POLICY_RANGE(NLA_U32, 1, BLKFERRY_FREEZE_MS_MAX),
	[BLKFERRY_A_FD] = { .type = NLA_U32 },
};

static struct nlattr *bf_attr(struct genl_info *info, u16 attr)
{
	if (!info->attrs[attr])
		NL_SET_ERR_MSG(info->extack, "an attribute that the command needs is missing");
	return info->attrs[attr];
}

/*
 * Who may talk to us at all: every command asks.  CAP_SYS_ADMIN alone decides, as
 * for the rings; GENL_ADMIN_PERM would ask for CAP_NET_ADMIN besides.
 */
static int bf_allowed(struct sk_buff *skb, struct netlink_ext_ack *extack)
{
	if (netlink_capable(skb, CAP_SYS_ADMIN))
		return 0;
	NL_SET_ERR_MSG(extack, "CAP_SYS_ADMIN is needed");
	return -EPERM;
}

/* The disk that a request names; bf_admin_sem held. */
static struct bf_disk *bf_named(struct genl_info *info)
{
	struct nlattr *a = bf_attr(info, BLKFERRY_A_DISK);
	struct bf_disk *d;

	if (!a)
		return ERR_PTR(-EINVAL);
	d = bf_lookup_id(nla_get_u32(a));
	if (d)
		return d;
	NL_SET_ERR_MSG_ATTR(info->extack, a, "no disk is attached under this id");
	return ERR_PTR(-ENODEV);
}

/* An attribute that is an array of size-byte items: how many, or < 0. */
static int bf_items(struct genl_info *info, u16 attr, size_t size)
{
	struct nlattr *a = info->attrs[attr];

	if (nla_len(a) && !(nla_len(a) % size))
		return nla_len(a) / size;
	NL_SET_ERR_MSG_ATTR(info->extack, a, "the array is empty or cut in an element");
	return -EINVAL;
}

static int bf_do_info(struct sk_buff *skb, struct genl_info *info)
{
	int err = bf_allowed(skb, info->extack);

	return err ? err : bf_reply_info(info);
}

/* bf_admin_sem held exclusively: nobody leaves BITMAP meanwhile. */
static int bf_seq_floor(u64 seq, struct netlink_ext_ack *extack)
{
	u32 id;

	for (id = 0; id < BLKFERRY_DISKS_MAX; id++) {
		struct bf_disk *d = bf_lookup_id(id);
		bool busy;

		if (!d)
			continue;
		bf_ring_catch_up(d);
		raw_spin_lock_irq(&d->lock);
		busy = d->state >= BLKFERRY_RESYNC || d->ring.head != d->ring.tail;
		raw_spin_unlock_irq(&d->lock);
		if (busy) {
			NL_SET_ERR_MSG(extack, "a disk has numbers in its ring");
			return -EBUSY;
		}
	}
	if (seq > atomic64_read(&bf_seq)) {
		atomic64_set(&bf_seq, seq);
		atomic64_set(&bf_void_seq, seq);
	}
	return 0;
}

static int bf_do_seq_floor(struct sk_buff *skb, struct genl_info *info)
{
	int err = bf_allowed(skb, info->extack);
	struct nlattr *a = bf_attr(info, BLKFERRY_A_SEQ);

	if (err || !a)
		return err ? err : -EINVAL;
	if (nla_get_u64(a) >= BF_SEQ_MAX) {
		NL_SET_ERR_MSG_ATTR(info->extack, a, "the number is not below 2^62");
		return -EINVAL;
	}
	down_write(&bf_admin_sem);
	err = bf_seq_floor(nla_get_u64(a), info->extack);
	up_write(&bf_admin_sem);
	return err;
}

/*
 * The device to attach, and the caller's open file of it.  An open device has its
 * driver: to open it once more loads none.  A driver that registers a generic
 * netlink family (nbd) would wait for the lock that we are called under.
 */
static struct file *bf_open_file(struct genl_info *info, dev_t *dev)
{
	struct nlattr *a = bf_attr(info, BLKFERRY_A_DEV);
	struct nlattr *fd = a ? bf_attr(info, BLKFERRY_A_FD) : NULL;
	struct inode *inode;
	struct file *file;

	if (!fd)
		return ERR_PTR(-EINVAL);
	if (!bf_decode_dev(nla_get_u64(a), dev)) {
		NL_SET_ERR_MSG_ATTR(info->extack, a, "not a device number");
		return ERR_PTR(-EINVAL);
	}
	file = fget(nla_get_u32(fd));
	if (!file) {
		NL_SET_ERR_MSG_ATTR(info->extack, fd, "the descriptor is not open");
		return ERR_PTR(-EBADF);
	}
	inode = file_inode(file);
	if (S_ISBLK(inode->i_mode) && inode->i_rdev == *dev)
		return file;
	NL_SET_ERR_MSG_ATTR(info->extack, fd, "the descriptor is not one of the device");
	fput(file);
	return ERR_PTR(-EINVAL);
}

static int bf_do_attach(struct sk_buff *skb, struct genl_info *info)
{
	struct bf_disk_config cfg = {};
	int err = bf_allowed(skb, info->extack);
	struct bf_disk *d;
	struct file *file;
	dev_t dev;

	if (err)
		return err;
	file = bf_open_file(info, &dev);
	if (IS_ERR(file))
		return PTR_ERR(file);
	if (info->attrs[BLKFERRY_A_DATA_BYTES])
		cfg.data_bytes = nla_get_u64(info->attrs[BLKFERRY_A_DATA_BYTES]) ?: 1;
	if (info->attrs[BLKFERRY_A_DESCS])
		cfg.descs = nla_get_u32(info->attrs[BLKFERRY_A_DESCS]) ?: 1;
	if (info->attrs[BLKFERRY_A_INLINE_MAX])
		cfg.inline_max = nla_get_u32(info->attrs[BLKFERRY_A_INLINE_MAX]) ?: 1;
	down_write(&bf_admin_sem);
	err = bf_attach(dev, &cfg, &d, info->extack);
	if (!err)
		err = bf_reply_disk(info, d);
	up_write(&bf_admin_sem);
	fput(file);
	return err;
}

static int bf_do_detach(struct sk_buff *skb, struct genl_info *info)
{
	int err = bf_allowed(skb, info->extack);
	struct bf_disk *d;

	if (err)
		return err;
	down_write(&bf_admin_sem);
	d = bf_named(info);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		bf_detach(d);
		err = bf_reply_u64(info, BLKFERRY_CMD_DETACH, BLKFERRY_A_VOID_SEQ,
				   atomic64_read(&bf_void_seq));
	}
	up_write(&bf_admin_sem);
	return err;
}

static int bf_do_disk_get(struct sk_buff *skb, struct genl_info *info)
{
	int err = bf_allowed(skb, info->extack);
	struct bf_disk *d;

	if (err)
		return err;
	down_read(&bf_admin_sem);
	d = bf_named(info);
	err = IS_ERR(d) ? PTR_ERR(d) : bf_reply_disk(info, d);
	up_read(&bf_admin_sem);
	return err;
}

static int bf_dump_disk_get(struct sk_buff *skb, struct netlink_callback *cb)
{
	int err = bf_allowed(cb->skb, cb->extack);
	u32 id;

	if (err)
		return err;
	down_read(&bf_admin_sem);
	for (id = cb->args[0]; id < BLKFERRY_DISKS_MAX; id++) {
		struct bf_disk *d = bf_lookup_id(id);

		if (d && bf_fill_disk(skb, d, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
				      NLM_F_MULTI))
			break;
	}
	up_read(&bf_admin_sem);
	cb->args[0] = id;
	return skb->len;
}

/* The operations on one disk that draw a number or change its map. */
static int bf_do_resync(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *ranges = info->attrs[BLKFERRY_A_RANGES];
	struct nlattr *epoch = info->attrs[BLKFERRY_A_SEQ];
	u8 cmd = info->genlhdr->cmd;
	int n = 0, err = bf_allowed(skb, info->extack);
	u64 seq = epoch ? nla_get_u64(epoch) : 0;
	struct bf_disk *d;

	if (!err && ranges) {
		n = bf_items(info, BLKFERRY_A_RANGES, sizeof(struct blkferry_range));
		err = min(n, 0);
	}
	if (!err && cmd == BLKFERRY_CMD_RESYNC_CLEAR && !bf_attr(info, BLKFERRY_A_RANGES))
		err = -EINVAL;
	if (err)
		return err;
	down_read(&bf_admin_sem);
	d = bf_named(info);
	err = PTR_ERR_OR_ZERO(d);
	if (!err) {
		switch (cmd) {
		case BLKFERRY_CMD_RESYNC_BEGIN:
			err = bf_resync_begin(d, &seq, info->extack);
			break;
		case BLKFERRY_CMD_RESYNC_END:
			err = bf_resync_end(d, &seq, info->extack);
			break;
		case BLKFERRY_CMD_RESYNC_CLEAR:
			err = bf_resync_clear(d, nla_data(ranges), n, epoch ? &seq : NULL,
					      info->extack);
			break;
		case BLKFERRY_CMD_MARK_DIRTY:
			err = bf_mark_dirty(d, ranges ? nla_data(ranges) : NULL, n, info->extack);
			break;
		}
	}
	up_read(&bf_admin_sem);
	if (!err && (cmd == BLKFERRY_CMD_RESYNC_BEGIN || cmd == BLKFERRY_CMD_RESYNC_END))
		err = bf_reply_u64(info, cmd, BLKFERRY_A_SEQ, seq);
	return err;
}

static int bf_do_cut(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr *devs = info->attrs[BLKFERRY_A_FREEZE_DEVS];
	struct nlattr *ms = info->attrs[BLKFERRY_A_FREEZE_MS];
	int n, err = bf_allowed(skb, info->extack);
	u64 seq;

	if (err)
		return err;
	if (devs) {
		n = bf_items(info, BLKFERRY_A_FREEZE_DEVS, sizeof(u64));
		if (n < 0)
			return n;
		err = bf_cut_frozen(nla_data(devs), n, ms ? nla_get_u32(ms) : BF_FREEZE_MS_DEF,
				    &seq, info->extack);
	} else {
		err = bf_cut(&seq);
	}
	if (err == -ENODEV)
		NL_SET_ERR_MSG(info->extack, "no disk is in RING or RESYNC");
	return err ? err : bf_reply_u64(info, BLKFERRY_CMD_CUT, BLKFERRY_A_SEQ, seq);
}

static const struct genl_small_ops bf_ops[] = {
	{ .cmd = BLKFERRY_CMD_INFO, .doit = bf_do_info },
	{ .cmd = BLKFERRY_CMD_SEQ_FLOOR, .doit = bf_do_seq_floor },
	{ .cmd = BLKFERRY_CMD_ATTACH, .doit = bf_do_attach },
	{ .cmd = BLKFERRY_CMD_DETACH, .doit = bf_do_detach },
	{ .cmd = BLKFERRY_CMD_DISK_GET, .doit = bf_do_disk_get, .dumpit = bf_dump_disk_get },
	{ .cmd = BLKFERRY_CMD_RESYNC_BEGIN, .doit = bf_do_resync },
	{ .cmd = BLKFERRY_CMD_RESYNC_CLEAR, .doit = bf_do_resync },
	{ .cmd = BLKFERRY_CMD_RESYNC_END, .doit = bf_do_resync },
	{ .cmd = BLKFERRY_CMD_MARK_DIRTY, .doit = bf_do_resync },
	{ .cmd = BLKFERRY_CMD_CUT, .doit = bf_do_cut },
};

static const struct genl_multicast_group bf_groups[] = {
	{ .name = BLKFERRY_GENL_MCGRP },
};

/*
 * parallel_ops: a cut may keep file systems frozen, and nobody else's netlink
 * request may wait for that.
 */
struct genl_family bf_family __ro_after_init = {
	.name = BLKFERRY_GENL_NAME,
	.version = BLKFERRY_GENL_VERSION,
	.maxattr = BLKFERRY_A_MAX,
	.policy = bf_policy,
	.module = THIS_MODULE,
	.parallel_ops = true,
	.small_ops = bf_ops,
	.n_small_ops = ARRAY_SIZE(bf_ops),
	.mcgrps = bf_groups,
	.n_mcgrps = ARRAY_SIZE(bf_groups),
};

int __init bf_netlink_init(void)
{
	return genl_register_family(&bf_family);
}

void bf_netlink_exit(void)
{
	genl_unregister_family(&bf_family);
}
