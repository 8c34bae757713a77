// SPDX-License-Identifier: GPL-2.0-only
#include <stdio.h>
#include <string.h>

#include "latency.h"

static const char *const names[BLKFERRY_L_MAX] = {"submit", "submit_bitmap", "end"};

struct ratio {
    uint64_t ticks, ns;
};

static unsigned long long to_ns(const struct ratio *r, uint64_t ticks)
{
    __extension__ typedef unsigned __int128 wide;

    return (unsigned long long)(((wide)ticks * r->ns + r->ticks - 1) / r->ticks);
}

/* The longest time of the bucket that the quantile lies in, at most the maximum. */
static uint64_t quantile(const struct blkferry_latency *set, uint64_t samples, uint64_t permille)
{
    uint64_t rank = (samples * permille + 999) / 1000, seen = 0;
    int i;

    for (i = 0; i < BLKFERRY_LATENCY_BUCKETS - 1; i++) {
        seen += set->count[i];
        if (seen && seen >= rank) {
            uint64_t upper = (2ULL << i) - 1;

            return upper < set->max ? upper : set->max;
        }
    }
    return 0;
}

static void show_set(const struct ratio *r, const char *name, const struct blkferry_latency *set)
{
    uint64_t samples = 0;
    int i;

    for (i = 0; i < BLKFERRY_LATENCY_BUCKETS; i++)
        samples += set->count[i];
    printf("%s_samples=%llu %s_p50_ns=%llu %s_p99_ns=%llu %s_max_ns=%llu\n", name, (unsigned long long)samples, name,
           to_ns(r, quantile(set, samples, 500)), name, to_ns(r, quantile(set, samples, 990)), name, to_ns(r, set->max));
}

static int read_ratio(const struct attrs *a, struct ratio *r)
{
    if (!a->data[BLKFERRY_A_LATENCY] || !a->data[BLKFERRY_A_TICKS] || !a->data[BLKFERRY_A_TICKS_NS])
        return 0;
    r->ticks = attr_u64(a, BLKFERRY_A_TICKS);
    r->ns = attr_u64(a, BLKFERRY_A_TICKS_NS);
    return r->ticks && r->ns;
}

void show_latency(const struct attrs *a, void *arg)
{
    struct blkferry_latency sets[BLKFERRY_L_MAX];
    struct ratio r;
    int i;

    (void)arg;
    if (!a->data[BLKFERRY_A_DISK])
        return;
    if (!read_ratio(a, &r) || a->len[BLKFERRY_A_LATENCY] != sizeof(sets)) {
        printf("not measured\n");
        return;
    }
    memcpy(sets, a->data[BLKFERRY_A_LATENCY], sizeof(sets));
    printf("ticks=%llu ticks_ns=%llu\n", (unsigned long long)r.ticks, (unsigned long long)r.ns);
    for (i = 0; i < BLKFERRY_L_MAX; i++)
        show_set(&r, names[i], &sets[i]);
}

void show_frozen(const struct attrs *a)
{
    struct blkferry_latency set;
    struct ratio r;

    if (!read_ratio(a, &r) || a->len[BLKFERRY_A_LATENCY] != sizeof(set))
        return;
    memcpy(&set, a->data[BLKFERRY_A_LATENCY], sizeof(set));
    show_set(&r, "frozen", &set);
}
