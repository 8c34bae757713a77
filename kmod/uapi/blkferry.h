/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * blkferry: the whole contract between the kernel module and user space.
 *
 * Both sides include this file; nothing of it is written down anywhere else.
 * It compiles alone, as C and as C++.
 *
 * Overview
 * --------
 * A protected disk has
 *   - a descriptor ring and a data ring, allocated by the module at attach and
 *     mapped by the one consumer (the agent) through the disk's character
 *     device /dev/blkferry/<disk id> (mode 0600, a single open at a time);
 *   - a dirty map in two halves, "active" (written by capture) and "snapshot"
 *     (what the running resync round has still to ship);
 *   - a state (enum blkferry_state).
 *
 * Control goes through the generic netlink family "blkferry" (every operation
 * needs CAP_SYS_ADMIN in the initial user namespace).  Bulk data goes through
 * the mappings.
 *
 * Sequence numbers
 * ----------------
 * One counter for the whole machine.  Every descriptor of every ring carries
 * the number drawn for it under the disk's lock, so a ring holds ascending
 * numbers, and the rings of all disks together hold every number exactly once
 * ("gapless").  Whoever merges the rings by number and never skips one has, at
 * every number S, a cut over all disks.  Numbers that were never put into a
 * ring, or left with a ring that was detached, are all <= void_seq (see
 * BLKFERRY_A_VOID_SEQ); a merger may skip a missing number only if it is
 * <= void_seq.  Number 0 is never drawn.
 *
 * Life of a descriptor
 * --------------------
 *   BUSY -> COPIED -> DONE        the write reached the disk, payload valid
 *                  -> CANCELLED   the write never happened (EAGAIN of a NOWAIT
 *                                 submission); skip it
 *                  -> FAILED      the disk reported an error, or the module
 *                                 lost track of it; the range is in the dirty
 *                                 map, skip the payload
 *   DIRTY                         no payload was taken (too large, encrypted
 *                                 inline, no in-flight slot); the range is in
 *                                 the dirty map
 * BUSY and COPIED are unfinished, all others are final.  A completion can
 * overtake the copy of its own payload only in theory (the probe copies before
 * the bio is submitted), the states are nevertheless ordered: a state is
 * stored with release semantics after everything it stands for.
 * The consumer must stop at the first unfinished descriptor.
 *
 * Indices
 * -------
 * Descriptor indices and data positions are 64-bit, only grow, and are reduced
 * modulo the (power of two) ring size on use.  ctl->head is the next index the
 * module will use; cons->tail is the first index the consumer still needs.
 * The consumer moves tail only over descriptors that the server acknowledged.
 * The module copies tail at most once per use, accepts it only while
 * old tail <= tail <= head and every descriptor it passes is final; anything
 * else puts the disk into BITMAP with BLKFERRY_CTL_BAD_CONSUMER set.
 * A payload never wraps around the end of the data ring.
 *
 * Gaps
 * ----
 * ctl->gap_seq is 0 while every write is in the ring; else it is the number of
 * the first operation that is not wholly in the ring.  A mark S is consistent
 * for this disk if gap_seq == 0 or S < gap_seq, provided S >= close_seq,
 * the number of the CUT at which the last gap was closed (close_seq is 0 and
 * gap_seq is 1 before the first resync ended).  gap_seq must be read after S
 * was chosen.
 *
 * Resync
 * ------
 *   BITMAP  --RESYNC_BEGIN-->  RESYNC  --RESYNC_END-->  RING
 *   RING with gap_seq != 0  --RESYNC_BEGIN-->  RESYNC
 *   RESYNC or RING, no room in the ring  -->  BITMAP (OVERFLOW descriptor)
 * RESYNC_BEGIN appends SWITCH (its number is seq0, the epoch's start), moves
 * every bit of the active map into the snapshot map and waits until each write
 * that was in flight at the switch has completed.  Only after it returned 0
 * may the consumer read the disk.  Data read by a resync counts as of seq0:
 * each captured operation with a number > seq0 wins over it.  RESYNC_CLEAR
 * clears snapshot bits whose data is durable on the server, so a new agent
 * goes on where the old one died.  RESYNC_END succeeds if both maps are empty,
 * then appends CUT; if only the snapshot map is empty it fails with EAGAIN and
 * the consumer calls RESYNC_BEGIN for one more (small) round.
 */
#ifndef BLKFERRY_UAPI_H
#define BLKFERRY_UAPI_H

#include <linux/types.h>

#define BLKFERRY_ABI_VERSION	1
#define BLKFERRY_CTL_MAGIC	0x79726662U	/* "bfry" */
#define BLKFERRY_DISKS_MAX	256
#define BLKFERRY_UUID_LEN	16
#define BLKFERRY_SECTOR_SHIFT	9

/* ---- Ring limits ------------------------------------------------------- */

#define BLKFERRY_DATA_BYTES_MIN	(64ULL << 10)
#define BLKFERRY_DATA_BYTES_MAX	(4ULL << 30)
#define BLKFERRY_DATA_BYTES_DEF	(64ULL << 20)
#define BLKFERRY_DESCS_MIN	64U
#define BLKFERRY_DESCS_MAX	(1U << 22)

/* ---- The mappings ------------------------------------------------------ */

/* mmap offset of a region; each is mapped whole or in part, MAP_SHARED. */
#define BLKFERRY_MMAP_SHIFT	40
#define BLKFERRY_MMAP_OFFSET(r)	((__u64)(r) << BLKFERRY_MMAP_SHIFT)

enum blkferry_region {
	BLKFERRY_REGION_CTL = 0,	/* struct blkferry_ctl, 1 page, read-only */
	BLKFERRY_REGION_CONS = 1,	/* struct blkferry_cons, 1 page, read-write */
	BLKFERRY_REGION_DESC = 2,	/* desc_count descriptors, read-only */
	BLKFERRY_REGION_DATA = 3,	/* data_bytes, read-only */
	BLKFERRY_REGION_SNAP = 4,	/* snapshot map, map_bytes, read-only; bit n
					 * of byte n / 8 (little-endian words) is
					 * block n of 1 << block_shift bytes */
};

enum blkferry_state {
	BLKFERRY_STOPPED = 0,	/* nothing is tracked: disk gone or detached */
	BLKFERRY_BITMAP = 1,	/* writes go to the dirty map only */
	BLKFERRY_RESYNC = 2,	/* writes go to the ring, a resync runs */
	BLKFERRY_RING = 3,	/* writes go to the ring */
};

/* ctl->flags; sticky until the disk is detached unless said otherwise */
#define BLKFERRY_CTL_BAD_CONSUMER	0x01U	/* cleared by RESYNC_BEGIN */
#define BLKFERRY_CTL_RESIZED		0x02U	/* capacity is not nr_sectors any more */
#define BLKFERRY_CTL_GONE		0x04U	/* the disk was removed */
#define BLKFERRY_CTL_UNTRACKED		0x08U	/* a passthrough write was seen: verify.
						 * cleared by MARK_DIRTY of the disk */
#define BLKFERRY_CTL_DRAINING		0x10U	/* RESYNC_BEGIN has not returned 0 yet */

/* Counters in struct blkferry_ctl, also BLKFERRY_A_COUNTERS (array of __u64). */
enum blkferry_counter {
	BLKFERRY_C_OPS,			/* descriptors of operations (not markers) */
	BLKFERRY_C_SECTORS,		/* their sectors */
	BLKFERRY_C_DONE,		/* descriptors DONE */
	BLKFERRY_C_CANCELLED,		/* descriptors CANCELLED */
	BLKFERRY_C_CANCELLED_SECTORS,
	BLKFERRY_C_FAILED,		/* descriptors FAILED */
	BLKFERRY_C_DIRTY_OPS,		/* operations that went to the dirty map at submit */
	BLKFERRY_C_DIRTY_SECTORS,
	BLKFERRY_C_OVERFLOWS,		/* RING or RESYNC -> BITMAP for want of room */
	BLKFERRY_C_OVERSIZE,		/* payload above the inline limit */
	BLKFERRY_C_OVERLAPS,		/* overlapping writes in flight, re-read */
	BLKFERRY_C_UNKNOWN,		/* completions without an in-flight entry */
	BLKFERRY_C_INFLIGHT_FULL,	/* no in-flight slot at submit */
	BLKFERRY_C_REUSED,		/* bio pointer seen again before its completion */
	BLKFERRY_C_WATCHDOG,		/* entries ended by the watchdog */
	BLKFERRY_C_INLINE_CRYPT,	/* inline-encrypted writes */
	BLKFERRY_C_RESTACKED,		/* bios that came without a queue event */
	BLKFERRY_C_PASSTHROUGH,		/* passthrough writes seen */
	BLKFERRY_C_BEYOND_END,		/* writes beyond the tracked size */
	BLKFERRY_C_BAD_CONSUMER,	/* refused consumer indices */
	BLKFERRY_C_WAKEUPS,
	BLKFERRY_C_MAX			/* keep <= 64 */
};

/* ---- Latency ----------------------------------------------------------- */
/*
 * How long the module's own code kept the path of an operation, interrupts and
 * stolen time that fell into it included: BLKFERRY_A_LATENCY is an array of
 * struct blkferry_latency, indexed by enum blkferry_latency_set, since attach.
 * It counts in ticks; BLKFERRY_A_TICKS of them last BLKFERRY_A_TICKS_NS
 * nanoseconds.  All three are missing on a machine without a cycle counter.
 * The sets are read while they grow: max may be of an operation that no bucket
 * has yet, or the other way round.
 */
#define BLKFERRY_LATENCY_BUCKETS	64
#define BLKFERRY_LATENCY_EVERY		64	/* one in so many is measured where it says "sampled" */

enum blkferry_latency_set {
	/* every operation in RING and RESYNC, in the submitter: from the disk
	 * found to the payload copied, waits for locks included */
	BLKFERRY_L_SUBMIT,
	/* the same in BITMAP, sampled */
	BLKFERRY_L_SUBMIT_BITMAP,
	/* the end of an operation, in any state and any context, sampled: from
	 * its last byte counted to the consumer woken */
	BLKFERRY_L_END,
	BLKFERRY_L_MAX			/* keep <= 5: a reply is one page */
};

struct blkferry_latency {
	__u64	max;			/* longest measured, ticks */
	__u64	count[BLKFERRY_LATENCY_BUCKETS];	/* 2^n <= ticks < 2^(n+1); [0]: 0 too */
};

/* Written by the module only; every field is naturally aligned. */
struct blkferry_ctl {
	__u32	magic;			/* BLKFERRY_CTL_MAGIC */
	__u32	abi;			/* BLKFERRY_ABI_VERSION */
	__u32	disk;			/* disk id, the character device's minor */
	__u32	desc_count;		/* power of two */
	__u64	data_bytes;		/* power of two */
	__u64	nr_sectors;		/* tracked size in 512-byte sectors */
	__u32	dev_major;
	__u32	dev_minor;
	__u32	block_shift;		/* log2 of the bytes per dirty-map bit, >= 12 */
	__u32	logical_block;		/* bytes */
	__u64	map_bytes;		/* size of the SNAP region, multiple of 8 */
	__u8	attach_id[BLKFERRY_UUID_LEN];	/* random, new at each attach */
	__u64	pad0[7];		/* to offset 128 */

	/* the next fields change; read each once */
	__u64	head;			/* release */
	__u64	kernel_tail;		/* tail as the module accepted it */
	__u32	state;			/* enum blkferry_state */
	__u32	flags;			/* BLKFERRY_CTL_* */
	__u64	gap_seq;
	__u64	close_seq;
	__u64	epoch_seq;		/* seq0 of the running resync, else 0 */
	__u64	active_blocks;		/* set bits, active map */
	__u64	snap_blocks;		/* set bits, snapshot map */
	__u64	pad1[8];		/* to offset 256 */

	__u64	counters[64];		/* enum blkferry_counter */
};

/* Written by the consumer only: hostile input for the module. */
struct blkferry_cons {
	__u64	tail;			/* release */
	__u32	need_wake;		/* non-zero: wake me when a descriptor ends */
	__u32	pad;
};

enum blkferry_desc_state {
	BLKFERRY_D_FREE = 0,
	BLKFERRY_D_BUSY = 1,
	BLKFERRY_D_COPIED = 2,
	BLKFERRY_D_DONE = 3,
	BLKFERRY_D_CANCELLED = 4,
	BLKFERRY_D_FAILED = 5,
	BLKFERRY_D_DIRTY = 6,
};

enum blkferry_op {
	BLKFERRY_OP_WRITE = 1,
	BLKFERRY_OP_ZEROES = 2,		/* no payload */
	BLKFERRY_OP_DISCARD = 3,	/* no payload, contents undefined after it */
	BLKFERRY_OP_SECURE_ERASE = 4,	/* no payload, handled as discard */
	/* markers: sector, nr_sectors and data_len are 0, state is DONE at once */
	BLKFERRY_OP_OVERFLOW = 16,	/* the disk went to BITMAP */
	BLKFERRY_OP_SWITCH = 17,	/* a resync epoch starts at this number */
	BLKFERRY_OP_CUT = 18,		/* asked for by CUT or drawn by RESYNC_END */
};

/* desc->flags */
#define BLKFERRY_F_FUA		0x01U
#define BLKFERRY_F_PREFLUSH	0x02U
#define BLKFERRY_F_META		0x04U
#define BLKFERRY_F_OVERLAP	0x08U	/* overlapped another write in flight; its
					 * range goes to the dirty map at completion */
#define BLKFERRY_F_CUT_FS	0x10U	/* CUT taken with file systems frozen */

struct blkferry_desc {
	__u64	seq;
	__u64	sector;			/* whole-disk, 512-byte units */
	__u64	data_pos;		/* position, see data_len */
	__u64	time_ns;		/* CLOCK_REALTIME (coarse) at submit */
	__u32	nr_sectors;
	__u32	data_len;		/* bytes at data_pos % data_bytes; 0 if none */
	__u32	state;			/* enum blkferry_desc_state, acquire */
	__u16	op;			/* enum blkferry_op */
	__u16	flags;			/* BLKFERRY_F_* */
	__u64	pad[2];
};

/* ---- Poll -------------------------------------------------------------- */
/*
 * poll() of the character device reports POLLIN once after each wake-up (it
 * clears the event as eventfd's read does): a descriptor ended while
 * cons->need_wake was set, or the state changed.  POLLHUP: the disk was
 * detached or is gone; the mappings stay valid until they are unmapped.
 */

/* ---- Generic netlink --------------------------------------------------- */

#define BLKFERRY_GENL_NAME	"blkferry"
#define BLKFERRY_GENL_VERSION	1
#define BLKFERRY_GENL_MCGRP	"events"

enum blkferry_cmd {
	BLKFERRY_CMD_UNSPEC,
	/*
	 * -> ABI, VERSION, LOAD_ID, SEQ, VOID_SEQ, INFLIGHT, LATENCY (one set: how
	 * long file systems stood frozen for a cut, since load), TICKS, TICKS_NS
	 */
	BLKFERRY_CMD_INFO,
	/*
	 * SEQ -> .  Raises the counter so that the next number is > SEQ (marks of
	 * a source stay ordered over reboots).  EBUSY unless every disk is in
	 * BITMAP or STOPPED with an empty ring; EINVAL if SEQ >= 2^62.
	 */
	BLKFERRY_CMD_SEQ_FLOOR,
	/*
	 * DEV, FD, DATA_BYTES?, DESCS?, INLINE_MAX? -> the disk's attributes.
	 * Starts in BITMAP with every bit of the active map set.
	 * FD is a descriptor of the caller that has DEV open, so that no driver is
	 * looked for or loaded while generic netlink's lock is held; it may be
	 * closed after the call.  EBADF it is not open.
	 * ENODEV no such device, EEXIST attached already, EINVAL a partition, FD is
	 * not DEV or a size out of range, EROFS read-only, EOPNOTSUPP zoned or DAX,
	 * ENOMEM, ENOSPC BLKFERRY_DISKS_MAX reached; the extended ack says more.
	 */
	BLKFERRY_CMD_ATTACH,
	/* DISK -> VOID_SEQ.  Always succeeds on an attached disk, also under load. */
	BLKFERRY_CMD_DETACH,
	/* DISK (do) or nothing (dump) -> the disk's attributes. */
	BLKFERRY_CMD_DISK_GET,
	/*
	 * DISK -> SEQ (seq0).  EAGAIN: writes that were in flight at the switch
	 * have not ended yet (bounded wait), call again.  ENOSPC: the ring has
	 * no room to start with, consume it first.  EBUSY: the snapshot map is not
	 * empty and the state is RESYNC.
	 */
	BLKFERRY_CMD_RESYNC_BEGIN,
	/*
	 * DISK, RANGES, SEQ?.  Clears the snapshot bits of blocks that lie wholly
	 * in a range (a block that ends beyond the disk counts up to the disk's
	 * end).  With SEQ only while the epoch of that number runs, else ESTALE:
	 * a late acknowledgement must not clear blocks of the next round.
	 */
	BLKFERRY_CMD_RESYNC_CLEAR,
	/*
	 * DISK -> SEQ (the CUT).  EAGAIN: the active map is not empty.  EBUSY: the
	 * snapshot map is not empty.  EINVAL: state is not RESYNC.  ENOSPC: no room for
	 * the CUT descriptor, consume first.
	 */
	BLKFERRY_CMD_RESYNC_END,
	/*
	 * DISK, RANGES?.  Marks the ranges, or the whole disk, in the active map;
	 * opens a gap.
	 */
	BLKFERRY_CMD_MARK_DIRTY,
	/*
	 * FREEZE_DEVS?, FREEZE_MS? -> SEQ.  Draws one number S and appends CUT to
	 * the ring of one disk in RING or RESYNC.  With FREEZE_DEVS (array of __u64
	 * device numbers, top-down) their file systems are frozen before and
	 * thawed in reverse order after it, within this call, at the latest
	 * FREEZE_MS after the first freeze (then ETIMEDOUT and no cut).
	 * ENODEV: no disk in RING or RESYNC.  ENOSPC: no room.
	 */
	BLKFERRY_CMD_CUT,
	/* multicast: DISK, EVENT, STATE, FLAGS, SEQ */
	BLKFERRY_CMD_EVENT,
	BLKFERRY_CMD_MAX_PLUS_1
};
#define BLKFERRY_CMD_MAX (BLKFERRY_CMD_MAX_PLUS_1 - 1)

enum blkferry_attr {
	BLKFERRY_A_UNSPEC,
	BLKFERRY_A_PAD,
	BLKFERRY_A_ABI,			/* u32 */
	BLKFERRY_A_VERSION,		/* string */
	BLKFERRY_A_LOAD_ID,		/* binary 16: random, new at each module load */
	BLKFERRY_A_SEQ,			/* u64 */
	BLKFERRY_A_VOID_SEQ,		/* u64 */
	BLKFERRY_A_INFLIGHT,		/* u32: entries in the in-flight table */
	BLKFERRY_A_DEV,			/* u64: (major << 32) | minor */
	BLKFERRY_A_DISK,		/* u32 */
	BLKFERRY_A_NAME,		/* string: kernel name of the disk, e.g. "vda" */
	BLKFERRY_A_DATA_BYTES,		/* u64, rounded up to a power of two */
	BLKFERRY_A_DESCS,		/* u32, rounded up to a power of two */
	BLKFERRY_A_INLINE_MAX,		/* u32: largest payload copied, bytes */
	BLKFERRY_A_STATE,		/* u32 */
	BLKFERRY_A_FLAGS,		/* u32: BLKFERRY_CTL_* */
	BLKFERRY_A_SECTORS,		/* u64 */
	BLKFERRY_A_BLOCK_SHIFT,		/* u32 */
	BLKFERRY_A_ATTACH_ID,		/* binary 16 */
	BLKFERRY_A_GAP_SEQ,		/* u64 */
	BLKFERRY_A_CLOSE_SEQ,		/* u64 */
	BLKFERRY_A_EPOCH_SEQ,		/* u64 */
	BLKFERRY_A_ACTIVE_BLOCKS,	/* u64 */
	BLKFERRY_A_SNAP_BLOCKS,		/* u64 */
	BLKFERRY_A_COUNTERS,		/* binary: __u64[BLKFERRY_C_MAX] */
	BLKFERRY_A_RANGES,		/* binary: struct blkferry_range[], 1..1024 */
	BLKFERRY_A_FREEZE_DEVS,		/* binary: __u64[], 1..64 */
	BLKFERRY_A_FREEZE_MS,		/* u32, 1..10000 */
	BLKFERRY_A_EVENT,		/* u32, enum blkferry_event */
	BLKFERRY_A_MEMORY,		/* u64: bytes reserved for the disk */
	BLKFERRY_A_WRITES,		/* u32: writes of the disk in flight, at the
					 * same instant as A_COUNTERS
					 */
	BLKFERRY_A_LATENCY,		/* binary: struct blkferry_latency[] */
	BLKFERRY_A_TICKS,		/* u64, not 0 */
	BLKFERRY_A_TICKS_NS,		/* u64, not 0: what TICKS last */
	BLKFERRY_A_FD,			/* u32: a descriptor of the caller */
	BLKFERRY_A_MAX_PLUS_1
};
#define BLKFERRY_A_MAX (BLKFERRY_A_MAX_PLUS_1 - 1)

#define BLKFERRY_RANGES_MAX	1024
#define BLKFERRY_FREEZE_MAX	64
#define BLKFERRY_FREEZE_MS_MAX	10000

enum blkferry_event {
	BLKFERRY_EV_ATTACHED = 1,
	BLKFERRY_EV_DETACHED = 2,
	BLKFERRY_EV_STATE = 3,		/* state or gap_seq changed */
	BLKFERRY_EV_RESIZED = 4,
	BLKFERRY_EV_GONE = 5,
	BLKFERRY_EV_UNTRACKED = 6,
};

struct blkferry_range {
	__u64	sector;
	__u64	nr_sectors;
};

/* ---- Layout, asserted on both sides ------------------------------------ */

#if defined(__KERNEL__) || !defined(__cplusplus)
#define BLKFERRY_LAYOUT(c)	_Static_assert(c, #c)
#else
#define BLKFERRY_LAYOUT(c)	static_assert(c, #c)
#endif
BLKFERRY_LAYOUT(sizeof(struct blkferry_desc) == 64);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_desc, nr_sectors) == 32);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_desc, state) == 40);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_desc, pad) == 48);
BLKFERRY_LAYOUT(sizeof(struct blkferry_cons) == 16);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_ctl, attach_id) == 56);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_ctl, head) == 128);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_ctl, gap_seq) == 152);
BLKFERRY_LAYOUT(__builtin_offsetof(struct blkferry_ctl, counters) == 256);
BLKFERRY_LAYOUT(sizeof(struct blkferry_ctl) == 768);
BLKFERRY_LAYOUT(sizeof(struct blkferry_range) == 16);
BLKFERRY_LAYOUT(sizeof(struct blkferry_latency) == 520);
BLKFERRY_LAYOUT(BLKFERRY_L_MAX <= 5);
BLKFERRY_LAYOUT(BLKFERRY_C_MAX <= 64);
#undef BLKFERRY_LAYOUT

#endif /* BLKFERRY_UAPI_H */
