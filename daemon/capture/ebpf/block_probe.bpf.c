// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Marks the blocks that writes change, on kernels that cannot load the module: docs/capture.md, "Without the module".
 *
 * Requests, not bios, are followed: a request has its whole extent when the driver gets it, no splits, no parents, no phantoms, and the
 * number of requests of a disk is bounded by its tags.  A write that waits above the driver has changed nothing and is told to nobody.
 *
 *   block_rq_issue      1. into "inflight"   2. events++   3. its blocks are marked     then the driver gets it
 *   block_rq_complete   1. its blocks are marked   2. events++   3. out of "inflight"   then its bios end
 *
 * Every step may be done twice without harm: bits are set, the table says whether a request was in it.  That is needed, because the kernel
 * skips a program that it interrupted on the same CPU (a completion in interrupt context during one in task context).  So each program
 * is attached BF_PROBE_COPIES times: there are three contexts, task, soft and hard interrupt, and a copy that is free in each of them.
 *
 * "events" is added with a fetching atomic, which is a full barrier on every architecture.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "block_probe.h"

#define REQ_OP_MASK	0xffU
#define REQ_OP_DISCARD	3U
#define REQ_OP_DRV_OUT	35U
#define BF_EEXIST	17

#define FINE_WORDS_MAX	(BF_PROBE_COARSE / 64U + 2U)
#define COARSE_WORDS_MAX	8U	/* a request is below 4 GiB, a coarse bit at least 16 MiB */

/* What is used of the kernel's structures; the offsets are the running kernel's (CO-RE). */
#define KERNEL __attribute__((preserve_access_index))

struct gendisk {
	int major;
	int first_minor;
} KERNEL;

struct request_queue {
	struct gendisk *disk;		/* since 5.15 */
} KERNEL;

struct bvec_iter {
	__u64 bi_sector;
	unsigned int bi_size;
} KERNEL;

struct bio {
	struct bio *bi_next;
	struct bvec_iter bi_iter;
} KERNEL;

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	unsigned int __data_len;
	__u64 __sector;
	struct bio *bio;
} KERNEL;

struct request___rq_disk {		/* before 5.17 */
	struct gendisk *rq_disk;
} KERNEL;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, BF_PROBE_DISKS);
	__type(key, __u64);
	__type(value, __u32);
} disks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BF_PROBE_DISKS);
	__type(key, __u32);
	__type(value, struct bf_probe_disk);
} counts SEC(".maps");

struct dirty_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, BF_PROBE_DISKS);
	__type(key, __u32);
	__array(values, struct dirty_map);
} dirty SEC(".maps");

/* The size is set at load, from the tags of all disks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct bf_probe_request);
} inflight SEC(".maps");

static __always_inline void set_bits(void *map, __u32 at, __u64 mask)
{
	__u64 *word = bpf_map_lookup_elem(map, &at);

	if (word && (*word & mask) != mask)
		__sync_fetch_and_or(word, mask);
}

/* Bits of word w that lie in [first, last]. */
static __always_inline __u64 mask_of(__u64 w, __u64 first, __u64 last)
{
	__u64 mask = ~0ULL;

	if (w == first >> 6)
		mask <<= first & 63;
	if (w == last >> 6)
		mask &= ~0ULL >> (63 - (last & 63));
	return mask;
}

/* Marks the blocks of [sector, sector + bytes).  A function of its own, so that it is verified once. */
__noinline int mark(__u32 slot, __u64 sector, __u64 bytes)
{
	struct bf_probe_disk *d = bpf_map_lookup_elem(&counts, &slot);
	void *map = bpf_map_lookup_elem(&dirty, &slot);
	__u64 first, last, end, w, i;
	__u32 shift;

	if (!d || !map || !bytes)
		return 0;
	end = sector + ((bytes + 511) >> 9);
	if (end > d->sectors) {
		__sync_fetch_and_add(&d->beyond_end, 1);
		end = d->sectors;
	}
	if (sector >= end)
		return 0;
	shift = d->block_shift & 31;
	first = sector >> shift;
	last = (end - 1) >> shift;
	if (last - first < BF_PROBE_COARSE) {
		w = first >> 6;
		for (i = 0; i < FINE_WORDS_MAX && w <= last >> 6; i++, w++)
			set_bits(map, w, mask_of(w, first, last));
		return 0;
	}
	first >>= BF_PROBE_COARSE_SHIFT;
	last >>= BF_PROBE_COARSE_SHIFT;
	w = first >> 6;
	for (i = 0; i < COARSE_WORDS_MAX && w <= last >> 6; i++, w++)
		set_bits(map, d->fine_words + w, mask_of(w, first, last));
	return 0;
}

static __always_inline struct gendisk *disk_of(struct request *rq)
{
	struct request___rq_disk *old = (void *)rq;

	if (bpf_core_field_exists(old->rq_disk))
		return old->rq_disk;
	return rq->q->disk;
}

/* True if the request is a write to a tracked disk. */
static __always_inline int tracked(struct request *rq, __u32 *slot)
{
	struct gendisk *disk;
	__u32 *found;
	__u64 dev;

	if (!(rq->cmd_flags & 1))
		return 0;
	disk = disk_of(rq);
	if (!disk)
		return 0;
	dev = (__u64)(__u32)disk->major << 32 | (__u32)disk->first_minor;
	found = bpf_map_lookup_elem(&disks, &dev);
	if (!found)
		return 0;
	*slot = *found;
	return 1;
}

static __always_inline int has_segments(struct request *rq)
{
	struct bio *bio;

	if ((rq->cmd_flags & REQ_OP_MASK) != REQ_OP_DISCARD)
		return 0;
	bio = rq->bio;
	return bio && bio->bi_next;
}

/* A request is one extent, but for discards that were merged: each bio is one. */
static __always_inline void mark_request(struct request *rq, __u32 slot, struct bf_probe_disk *d)
{
	struct bio *bio;
	__u32 i;

	if (!has_segments(rq)) {
		mark(slot, rq->__sector, rq->__data_len);
		return;
	}
	bio = rq->bio;
	for (i = 0; i < BF_PROBE_SEGMENTS && bio; i++) {
		mark(slot, bio->bi_iter.bi_sector, bio->bi_iter.bi_size);
		bio = bio->bi_next;
	}
	if (bio)
		__sync_fetch_and_add(&d->passthrough, 1);
}

/* Fetching, hence a full barrier. */
static __always_inline int event(struct bf_probe_disk *d)
{
	return __sync_fetch_and_add(&d->events, 1) == ~0ULL;
}

static __always_inline void leave(__u64 key, __u32 slot)
{
	struct bf_probe_disk *d = bpf_map_lookup_elem(&counts, &slot);

	if (d && bpf_map_delete_elem(&inflight, &key) == 0)
		__sync_fetch_and_sub(&d->inflight, 1);
}

static __always_inline int enter(__u64 key, const struct bf_probe_request *r, struct bf_probe_disk *d)
{
	int err = bpf_map_update_elem(&inflight, &key, r, BPF_NOEXIST);

	if (!err) {
		__sync_fetch_and_add(&d->inflight, 1);
		__sync_fetch_and_add(&d->ops, 1);
		__sync_fetch_and_add(&d->sectors_issued, r->bytes >> 9);
	}
	return err;
}

static __always_inline int issued(__u64 *ctx)
{
	struct request *rq = (struct request *)ctx[0];
	struct bf_probe_request r = {};
	struct bf_probe_request *old;
	struct bf_probe_disk *d;
	__u64 key = (__u64)rq;
	int err;

	if (!tracked(rq, &r.slot))
		return 0;
	d = bpf_map_lookup_elem(&counts, &r.slot);
	if (!d)
		return 0;
	r.sector = rq->__sector;
	r.bytes = rq->__data_len;
	r.segments = has_segments(rq);
	if ((rq->cmd_flags & REQ_OP_MASK) == REQ_OP_DRV_OUT) {
		__sync_fetch_and_add(&d->passthrough, 1);
		return event(d);
	}
	if (!r.bytes)
		return 0;
	err = enter(key, &r, d);
	if (err == -BF_EEXIST) {
		/* Issued again, or marked by a copy before this one; else its completion was missed. */
		old = bpf_map_lookup_elem(&inflight, &key);
		if (old && (old->sector != r.sector || old->bytes != r.bytes || old->slot != r.slot)) {
			__sync_fetch_and_add(&d->stale, 1);
			if (old->segments)
				__sync_fetch_and_add(&d->passthrough, 1);
			mark(old->slot, old->sector, old->bytes);
			leave(key, old->slot);
			err = enter(key, &r, d);
		} else {
			err = 0;
		}
	}
	if (err)
		__sync_fetch_and_add(&d->full, 1);
	err = event(d);
	mark_request(rq, r.slot, d);
	return err;
}

static __always_inline int completed(__u64 *ctx, int first)
{
	struct request *rq = (struct request *)ctx[0];
	__u32 bytes = (__u32)ctx[2];
	struct bf_probe_disk *d;
	__u64 key = (__u64)rq;
	__u32 slot = 0;
	int over;

	if (!tracked(rq, &slot) || (rq->cmd_flags & REQ_OP_MASK) == REQ_OP_DRV_OUT || !rq->__data_len)
		return 0;
	d = bpf_map_lookup_elem(&counts, &slot);
	if (!d)
		return 0;
	if (first && !bpf_map_lookup_elem(&inflight, &key))
		__sync_fetch_and_add(&d->unknown, 1);
	if (first && (__u32)ctx[1])
		__sync_fetch_and_add(&d->failed, 1);
	mark_request(rq, slot, d);
	over = event(d);
	if (bytes >= rq->__data_len)
		leave(key, slot);
	return over;
}

#define COPY(n)									\
	SEC("tp_btf/block_rq_issue") int issue_##n(__u64 *ctx)			\
	{									\
		return issued(ctx);						\
	}									\
	SEC("tp_btf/block_rq_complete") int complete_##n(__u64 *ctx)		\
	{									\
		return completed(ctx, n == 1);				\
	}

COPY(1)
COPY(2)
COPY(3)

char LICENSE[] SEC("license") = "GPL";
