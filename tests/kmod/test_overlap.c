// SPDX-License-Identifier: GPL-2.0-only
/*
 * The overlap filter against brute force over the list of operations in flight: every real overlap must be told; a
 * false alarm is allowed only where a contested region is still busy, or without a slot.
 */
#include <string.h>

#include "core/overlap.h"
#include "model.h"

#define FLIGHT 600

struct op {
    u64 first, past;
    u32 entered;
    bool used;
    bool tainted; /* shares a region with contested sectors */
};

static struct op ops[FLIGHT];
static struct bf_overlap *o;

static bool meets(const struct op *a, const struct op *b)
{
    return a->first < b->past && b->first < a->past;
}

static bool share_region(const struct op *a, const struct op *b)
{
    struct op x = {.first = a->first & ~63ULL, .past = (a->past + 63) & ~63ULL};
    struct op y = {.first = b->first & ~63ULL, .past = (b->past + 63) & ~63ULL};

    return meets(&x, &y);
}

/* A sector stays contested as long as anything keeps its region busy. */
static bool near_tainted(const struct op *n)
{
    int i;

    for (i = 0; i < FLIGHT; i++)
        if (ops[i].used && ops[i].tainted && share_region(&ops[i], n))
            return true;
    return false;
}

static void taint_near(const struct op *n)
{
    int i;

    for (i = 0; i < FLIGHT; i++)
        if (ops[i].used && share_region(&ops[i], n))
            ops[i].tainted = true;
}

static void enter(struct op *n, u64 span, u32 max)
{
    bool real = false, tainted;
    u64 shared_first = ~0ULL, shared_past = 0;
    int i;

    n->first = model_random(span);
    n->past = n->first + 1 + model_random(max);
    tainted = near_tainted(n);
    for (i = 0; i < FLIGHT; i++) {
        /* one without a slot marks its own range at its end, which covers the pair */
        if (!ops[i].used || ops[i].entered & BF_OVL_LOST || !meets(&ops[i], n))
            continue;
        real = true;
        shared_first = bf_min64(shared_first, bf_max64(n->first, ops[i].first));
        shared_past = bf_max64(shared_past, bf_min64(n->past, ops[i].past));
    }
    n->entered = bf_ovl_enter(o, n->first, n->past);
    n->used = true;
    n->tainted = tainted;
    if (real)
        taint_near(n);
    if (real)
        CHECK(n->entered & BF_OVL_HIT);
    else if (n->entered & BF_OVL_HIT)
        CHECK(tainted || n->entered & BF_OVL_LOST || n->past - n->first > BF_OVL_WIDE);
    if (real && n->entered & BF_OVL_WIDE_OP) {
        /* what it has to re-read holds all that it shares */
        CHECK(o->wide[BF_OVL_INDEX(n->entered)].hit_first <= shared_first);
        CHECK(o->wide[BF_OVL_INDEX(n->entered)].hit_past >= shared_past);
    }
}

static void leave(struct op *n)
{
    u64 first, past;
    bool mark = bf_ovl_leave(o, n->first, n->past, n->entered, &first, &past);

    CHECK(mark == !!(n->entered & BF_OVL_HIT));
    if (mark)
        CHECK(first >= n->first && past <= n->past && first < past);
    n->used = false;
}

static void run(u64 seed)
{
    static const u64 spans[] = {200, 5000, 1 << 20, 1ULL << 40};
    static const u32 maxes[] = {1, 8, 64, 300, 2048, 9000};
    int step, i;

    model_start(seed);
    memset(o, 0, sizeof(*o));
    memset(ops, 0, sizeof(ops));
    for (step = 0; step < 4000; step++) {
        struct op *n = &ops[model_random(seed % 3 ? 40 : FLIGHT)];

        if (n->used)
            leave(n);
        else
            enter(n, spans[seed % 4], maxes[(seed / 4) % 6]);
    }
    for (i = 0; i < FLIGHT; i++)
        if (ops[i].used)
            leave(&ops[i]);
    CHECK(!o->wide_used);
    for (i = 0; i < (int)BF_OVL_SETS; i++)
        CHECK(!o->busy[i]);
}

/* Neighbours below 4 KiB are not overlaps. */
static void neighbours(void)
{
    u64 first, past;
    u32 a, b;

    memset(o, 0, sizeof(*o));
    a = bf_ovl_enter(o, 8, 9);
    b = bf_ovl_enter(o, 9, 10);
    CHECK(!(a & BF_OVL_HIT) && !(b & BF_OVL_HIT));
    CHECK(bf_ovl_enter(o, 7, 9) == BF_OVL_HIT);
    CHECK(!bf_ovl_leave(o, 8, 9, a, &first, &past));
    /* still in flight: the third one */
    CHECK(bf_ovl_enter(o, 8, 9) == BF_OVL_HIT);
}

int main(void)
{
    u64 seed;

    o = calloc(1, sizeof(*o));
    neighbours();
    for (seed = 1; seed <= 240; seed++)
        run(seed);
    free(o);
    return 0;
}
