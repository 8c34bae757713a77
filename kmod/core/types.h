/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The few types and helpers that the pure cores need, so that they compile in
 * the kernel and, for tests and fuzzers, in user space as C11.
 */
#ifndef BF_CORE_TYPES_H
#define BF_CORE_TYPES_H

#ifdef __KERNEL__
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/string.h>
#include <linux/types.h>

#define bf_popcount64(w)	hweight64(w)
#else
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#ifndef likely
#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#endif
#define bf_popcount64(w)	((unsigned int)__builtin_popcountll(w))
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the snapshot map is little-endian by contract; big-endian hosts need conversions here"
#endif

static inline u64 bf_min64(u64 a, u64 b)
{
	return a < b ? a : b;
}

static inline u64 bf_max64(u64 a, u64 b)
{
	return a > b ? a : b;
}

#endif /* BF_CORE_TYPES_H */
