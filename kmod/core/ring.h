/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Index arithmetic of one disk's descriptor ring and data ring.  Pure: no
 * memory is touched but struct bf_ring.  The caller serializes.
 *
 * Indices and positions only grow; they are reduced modulo the ring size on
 * use.  used descriptors = [tail, head), used payload = [data_tail, data_head).
 */
#ifndef BF_CORE_RING_H
#define BF_CORE_RING_H

#include "types.h"

#define BF_RING_SECTOR		512U
#define BF_RING_PAGE		4096U

struct bf_ring {
	u64 head;		/* next descriptor index */
	u64 tail;		/* first index not yet given back */
	u64 target;		/* tail as last read, tail <= target <= head */
	u64 data_head;		/* next free byte */
	u64 data_tail;		/* first byte in use */
	u64 data_bytes;		/* power of two */
	u64 soft_head;		/* below both no look at the consumer is needed */
	u64 soft_data;
	u32 desc_count;		/* power of two */
	u32 desc_mask;
};

static inline void bf_ring_init(struct bf_ring *r, u32 desc_count, u64 data_bytes)
{
	memset(r, 0, sizeof(*r));
	r->desc_count = desc_count;
	r->desc_mask = desc_count - 1;
	r->data_bytes = data_bytes;
}

/* Descriptors that can still be appended. */
static inline u32 bf_ring_room(const struct bf_ring *r)
{
	return r->desc_count - (u32)(r->head - r->tail);
}

/* Payloads of whole 4 KiB pages keep page alignment, others sector alignment. */
static inline u32 bf_ring_align(u64 sector, u32 len)
{
	return (!(sector & 7) && len >= BF_RING_PAGE) ? BF_RING_PAGE : BF_RING_SECTOR;
}

/* Where a payload of len bytes would go: aligned, never wrapping around the end. */
static inline u64 bf_ring_pos(const struct bf_ring *r, u64 sector, u32 len)
{
	u64 align = bf_ring_align(sector, len);
	u64 p = (r->data_head + align - 1) & -align;
	u64 off = p & (r->data_bytes - 1);

	if (unlikely(off + len > r->data_bytes))
		p += r->data_bytes - off;
	return p;
}

/* The same; false when there is no room.  Nothing is reserved yet. */
static inline bool bf_ring_place(const struct bf_ring *r, u64 sector, u32 len, u64 *pos)
{
	*pos = bf_ring_pos(r, sector, len);
	return *pos + len - r->data_tail <= r->data_bytes;
}

/* Take the payload that bf_ring_place() found. */
static inline void bf_ring_take(struct bf_ring *r, u64 pos, u32 len)
{
	r->data_head = pos + len;
}

/*
 * Check a tail read from the consumer's page: not before what was given back
 * already, not beyond head.  It may be before a tail that was read earlier but
 * not reached yet: a new consumer starts at the published tail.
 */
static inline bool bf_ring_tail_ok(const struct bf_ring *r, u64 tail)
{
	return tail - r->tail <= r->head - r->tail;
}

/*
 * Below the soft limits there is room for sure.  They lie a quarter of the
 * ring ahead of the tail, or, when more than that is in use, a little ahead of
 * the head, so that the consumer is looked at every now and then.
 */
static inline void bf_ring_soften(struct bf_ring *r, u32 keep)
{
	u64 head = bf_max64(r->tail + r->desc_count / 4, r->head + 32);
	u64 data = bf_max64(r->data_tail + r->data_bytes / 4, r->data_head + r->data_bytes / 64);

	r->soft_head = bf_min64(head, r->tail + r->desc_count - keep);
	r->soft_data = bf_min64(data, r->data_tail + r->data_bytes);
}

/* Give back the descriptor at tail; pos and len as stored in it. */
static inline void bf_ring_pop(struct bf_ring *r, u64 pos, u32 len)
{
	r->tail++;
	if (len)
		r->data_tail = pos + len;
	if (r->tail == r->head)
		r->data_tail = r->data_head;
}

#endif /* BF_CORE_RING_H */
