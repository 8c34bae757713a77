// SPDX-License-Identifier: GPL-2.0-only
/* The generic netlink family: replies and events. */
#include "inflight.h"
#include "latency.h"
#include "netlink.h"
#include "version.h"

u8 bf_load_id[BLKFERRY_UUID_LEN];

static int bf_put_u64(struct sk_buff *skb, u16 attr, u64 value)
{
	return nla_put_u64_64bit(skb, attr, value, BLKFERRY_A_PAD);
}

static int bf_put_info(struct sk_buff *skb)
{
	return nla_put_u32(skb, BLKFERRY_A_ABI, BLKFERRY_ABI_VERSION) ||
	       nla_put_string(skb, BLKFERRY_A_VERSION, BF_VERSION) ||
	       nla_put(skb, BLKFERRY_A_LOAD_ID, sizeof(bf_load_id), bf_load_id) ||
	       bf_put_u64(skb, BLKFERRY_A_SEQ, atomic64_read(&bf_seq)) ||
	       bf_put_u64(skb, BLKFERRY_A_VOID_SEQ, atomic64_read(&bf_void_seq)) ||
	       nla_put_u32(skb, BLKFERRY_A_INFLIGHT, bf_inflight_size()) ||
	       bf_latency_put_frozen(skb);
}

/* What cannot change while a disk is attached. */
static int bf_put_disk_fixed(struct sk_buff *skb, struct bf_disk *d)
{
	const struct blkferry_ctl *ctl = d->ctl;

	return nla_put_u32(skb, BLKFERRY_A_DISK, d->id) ||
	       bf_put_u64(skb, BLKFERRY_A_DEV, (u64)ctl->dev_major << 32 | ctl->dev_minor) ||
	       nla_put_string(skb, BLKFERRY_A_NAME, d->name) ||
	       bf_put_u64(skb, BLKFERRY_A_DATA_BYTES, ctl->data_bytes) ||
	       nla_put_u32(skb, BLKFERRY_A_DESCS, ctl->desc_count) ||
	       nla_put_u32(skb, BLKFERRY_A_INLINE_MAX, d->inline_max) ||
	       bf_put_u64(skb, BLKFERRY_A_SECTORS, ctl->nr_sectors) ||
	       nla_put_u32(skb, BLKFERRY_A_BLOCK_SHIFT, ctl->block_shift) ||
	       nla_put(skb, BLKFERRY_A_ATTACH_ID, sizeof(ctl->attach_id), ctl->attach_id) ||
	       bf_put_u64(skb, BLKFERRY_A_MEMORY, d->memory);
}

/* What changes, as one consistent picture. */
static int bf_put_disk_state(struct sk_buff *skb, struct bf_disk *d)
{
	struct blkferry_ctl now;
	u32 writes;

	raw_spin_lock_irq(&d->lock);
	now = *d->ctl;
	writes = d->inflight[0] + d->inflight[1];
	raw_spin_unlock_irq(&d->lock);
	return nla_put_u32(skb, BLKFERRY_A_STATE, now.state) ||
	       nla_put_u32(skb, BLKFERRY_A_FLAGS, now.flags) ||
	       bf_put_u64(skb, BLKFERRY_A_GAP_SEQ, now.gap_seq) ||
	       bf_put_u64(skb, BLKFERRY_A_CLOSE_SEQ, now.close_seq) ||
	       bf_put_u64(skb, BLKFERRY_A_EPOCH_SEQ, now.epoch_seq) ||
	       bf_put_u64(skb, BLKFERRY_A_ACTIVE_BLOCKS, now.active_blocks) ||
	       bf_put_u64(skb, BLKFERRY_A_SNAP_BLOCKS, now.snap_blocks) ||
	       nla_put_u32(skb, BLKFERRY_A_WRITES, writes) ||
	       nla_put(skb, BLKFERRY_A_COUNTERS, BLKFERRY_C_MAX * sizeof(u64), now.counters);
}

/* One DISK_GET message.  -EMSGSIZE: does not fit any more. */
int bf_fill_disk(struct sk_buff *skb, struct bf_disk *d, u32 portid, u32 seq, int flags)
{
	void *hdr = genlmsg_put(skb, portid, seq, &bf_family, flags, BLKFERRY_CMD_DISK_GET);

	if (!hdr)
		return -EMSGSIZE;
	if (bf_put_disk_fixed(skb, d) || bf_put_disk_state(skb, d) ||
	    bf_latency_put_disk(skb, d)) {
		genlmsg_cancel(skb, hdr);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return 0;
}

int bf_reply_info(struct genl_info *info)
{
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *hdr;

	if (!skb)
		return -ENOMEM;
	hdr = genlmsg_put_reply(skb, info, &bf_family, 0, BLKFERRY_CMD_INFO);
	if (!hdr || bf_put_info(skb)) {
		nlmsg_free(skb);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return genlmsg_reply(skb, info);
}

int bf_reply_disk(struct genl_info *info, struct bf_disk *d)
{
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	int err;

	if (!skb)
		return -ENOMEM;
	err = bf_fill_disk(skb, d, info->snd_portid, info->snd_seq, 0);
	if (err) {
		nlmsg_free(skb);
		return err;
	}
	return genlmsg_reply(skb, info);
}

/* A reply of one number. */
int bf_reply_u64(struct genl_info *info, u8 cmd, u16 attr, u64 value)
{
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *hdr;

	if (!skb)
		return -ENOMEM;
	hdr = genlmsg_put_reply(skb, info, &bf_family, 0, cmd);
	if (!hdr || bf_put_u64(skb, attr, value)) {
		nlmsg_free(skb);
		return -EMSGSIZE;
	}
	genlmsg_end(skb, hdr);
	return genlmsg_reply(skb, info);
}

/* Tell whoever listens.  Lost events are found again in the ctl page. */
void bf_netlink_event(struct bf_disk *d, enum blkferry_event ev)
{
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *hdr;

	if (!skb)
		return;
	hdr = genlmsg_put(skb, 0, 0, &bf_family, 0, BLKFERRY_CMD_EVENT);
	if (!hdr || nla_put_u32(skb, BLKFERRY_A_DISK, d->id) ||
	    nla_put_u32(skb, BLKFERRY_A_EVENT, ev) ||
	    nla_put_u32(skb, BLKFERRY_A_STATE, READ_ONCE(d->ctl->state)) ||
	    nla_put_u32(skb, BLKFERRY_A_FLAGS, READ_ONCE(d->ctl->flags)) ||
	    bf_put_u64(skb, BLKFERRY_A_SEQ, atomic64_read(&bf_seq))) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_end(skb, hdr);
	genlmsg_multicast(&bf_family, skb, 0, 0, GFP_KERNEL);
}
