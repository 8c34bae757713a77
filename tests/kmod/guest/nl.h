/* SPDX-License-Identifier: GPL-2.0-only */
/* A minimal generic netlink client for the blkferry family: no library, so that a busybox guest can run it. */
#ifndef NL_H
#define NL_H

#include <stddef.h>
#include <stdint.h>

#include "blkferry.h"

struct attrs {
    const void *data[BLKFERRY_A_MAX + 1];
    size_t len[BLKFERRY_A_MAX + 1];
};

struct request {
    uint8_t buffer[32768];
    size_t len;
};

void nl_open(void);
void nl_request(struct request *r, uint8_t cmd, int dump);
void nl_put(struct request *r, uint16_t type, const void *data, size_t len);
void nl_put_u32(struct request *r, uint16_t type, uint32_t value);
void nl_put_u64(struct request *r, uint16_t type, uint64_t value);

/* Sends and waits for the end. Calls reply for each message. Returns 0 or -errno; nl_error holds the kernel's text. */
int nl_call(struct request *r, void (*reply)(const struct attrs *a, void *arg), void *arg);
extern char nl_error[256];

uint64_t attr_u64(const struct attrs *a, int type);
uint32_t attr_u32(const struct attrs *a, int type);

/* Joins the event group and prints events until the count is reached. */
int nl_events(int count);

#endif
