/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What block_probe.bpf.c and the agent share: the layout of the maps.
 *
 * "disks"    hash, device number (major << 32 | minor) -> slot
 * "counts"   array by slot, struct bf_probe_disk, mapped by the agent
 * "dirty"    array of maps by slot: the disk's dirty map, an array of words, mapped by the agent
 * "inflight" hash, address of a request -> struct bf_probe_request
 *
 * A dirty map has a bit per block, bit n % 64 of word n / 64.  Behind these words, at word `fine_words`, follow coarse bits, one per
 * BF_PROBE_COARSE blocks: what an operation of more blocks sets, so that a discard of gigabytes is a few words.
 */
#ifndef BLKFERRY_BLOCK_PROBE_H
#define BLKFERRY_BLOCK_PROBE_H

#define BF_PROBE_DISKS		256U
#define BF_PROBE_COARSE_SHIFT	12U
#define BF_PROBE_COARSE		(1U << BF_PROBE_COARSE_SHIFT)
#define BF_PROBE_COPIES		3U	/* of each program, see block_probe.bpf.c */
#define BF_PROBE_SEGMENTS	256U	/* bios of one discard that are followed */

struct bf_probe_disk {
	/* the agent's, before the disk is in "disks" */
	unsigned long long sectors;
	unsigned long long fine_words;
	unsigned int block_shift;	/* log2 of sectors per block */
	unsigned int pad0;
	/* the programs' (and the agent adds to events) */
	unsigned long long events;	/* moves with every write issued or completed */
	unsigned long long inflight;	/* writes issued and not completed */
	unsigned long long ops;		/* writes issued */
	unsigned long long sectors_issued;
	unsigned long long failed;	/* completions with an error */
	unsigned long long unknown;	/* completions of what was issued before the disk was tracked */
	unsigned long long full;	/* no room in "inflight" */
	unsigned long long stale;	/* a completion was not seen; found at the request's next use */
	unsigned long long passthrough;	/* writes of unknown extent */
	unsigned long long beyond_end;
	unsigned long long pad1[3];	/* to 128 bytes */
};

struct bf_probe_request {
	unsigned long long sector;
	unsigned int bytes;
	unsigned int slot;
	unsigned int segments;		/* 1: more than one range */
	unsigned int pad;
};

#endif /* BLKFERRY_BLOCK_PROBE_H */
