/* SPDX-License-Identifier: GPL-2.0-only */
/* The consumer: keeps a replica of one disk by the rules of blkferry.h, one thread, checks what it is given. */
#ifndef FOLLOW_H
#define FOLLOW_H

#include <stdint.h>

struct follow_options {
    uint32_t disk;
    const char *source;
    const char *replica;
    unsigned int delay_us; /* after each record: a slow consumer */
    int compare;           /* at the end, ignoring what was discarded */
};

/*
 * Runs until SIGUSR1, then until the gap is closed and the ring is empty. Returns 0 if everything it saw was legal
 * and, with compare, the replica equals the source. The disk may go away: returns 3.
 */
int follow(const struct follow_options *o);

#endif
