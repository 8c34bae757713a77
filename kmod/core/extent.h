/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ranges of sectors against a disk's size, and their translation to blocks of
 * the dirty map.  Everything is unsigned 64-bit and checked for overflow; the
 * input may be hostile.
 */
#ifndef BF_CORE_EXTENT_H
#define BF_CORE_EXTENT_H

#include "types.h"

/* Cut [sector, sector + nr) to [0, end); returns how many sectors remain. */
static inline u64 bf_extent_clip(u64 sector, u64 nr, u64 end)
{
	if (sector >= end)
		return 0;
	return bf_min64(nr, end - sector);
}

/* True if the range is not empty and lies wholly on the disk. */
static inline bool bf_extent_valid(u64 sector, u64 nr, u64 end)
{
	return nr && sector < end && nr <= end - sector;
}

/* Blocks touched by a valid range: [first, *past). */
static inline u64 bf_extent_outer(u64 sector, u64 nr, u32 shift, u64 *past)
{
	*past = ((sector + nr - 1) >> shift) + 1;
	return sector >> shift;
}

/*
 * Blocks that lie wholly in a valid range: [first, *past), empty if first >=
 * *past.  A last block that is cut by the disk's end counts as whole when the
 * range reaches that end.  shift is log2 of sectors per block.
 */
static inline u64 bf_extent_inner(u64 sector, u64 nr, u64 end, u32 shift, u64 *past)
{
	u64 mask = (1ULL << shift) - 1;

	if (sector + nr == end)
		*past = (end + mask) >> shift;
	else
		*past = (sector + nr) >> shift;
	return (sector + mask) >> shift;
}

/* Smallest shift >= min so that end sectors need at most max_bits blocks. */
static inline u32 bf_extent_shift(u64 end, u32 min, u64 max_bits)
{
	u32 shift = min;

	while (((end - 1) >> shift) + 1 > max_bits)
		shift++;
	return shift;
}

#endif /* BF_CORE_EXTENT_H */
