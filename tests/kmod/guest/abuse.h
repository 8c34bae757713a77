/* SPDX-License-Identifier: GPL-2.0-only */
/* What a wrong or hostile consumer tries. */
#ifndef ABUSE_H
#define ABUSE_H

#include <stdint.h>

/* Tries every mapping and access that must be refused, and those that must work. 0, or 1 and a line on stderr. */
int abuse_maps(uint32_t disk);

/* Writes a tail into the consumer's page. relative: to head. */
int abuse_tail(uint32_t disk, uint64_t tail, int relative);

#endif
