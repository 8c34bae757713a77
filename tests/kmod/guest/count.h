/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef COUNT_H
#define COUNT_H

#include <stddef.h>

/*
 * Prints the time stamp counter per random O_DIRECT write of `bytes`, the least of several runs of n writes. In a
 * guest under -icount that is instructions.
 */
int count_writes(const char *device, unsigned int n, size_t bytes);

#endif
