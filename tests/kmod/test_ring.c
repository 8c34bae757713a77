// SPDX-License-Identifier: GPL-2.0-only
/* Ring arithmetic against a model that owns each byte and each descriptor. */
#include <string.h>

#include "core/ring.h"
#include "model.h"

#define DESCS 64
#define BYTES 65536

struct item {
    u64 pos;
    u32 len;
};

static struct item items[DESCS];
static u64 appended, refused;
static u64 owner[BYTES]; /* index + 1 of the descriptor that owns the byte's sector start, 0 free */

static void own(u64 pos, u32 len, u64 who)
{
    u64 i;

    for (i = 0; i < len; i += 512) {
        CHECK(!who || !owner[(pos + i) % BYTES]);
        owner[(pos + i) % BYTES] = who;
    }
}

static u64 free_bytes_exist(u32 len)
{
    u64 i, run = 0;

    for (i = 0; i < BYTES; i += 512) {
        run = owner[i] ? 0 : run + 512;
        if (run >= len)
            return 1;
    }
    return 0;
}

static void append(struct bf_ring *r)
{
    u64 sector = model_random(1000), pos = ~0ULL;
    u32 len = model_random(4) ? (u32)model_random(16) * 512 : (u32)model_random(33) * 512;
    bool placed = bf_ring_place(r, sector, len, &pos);

    if (!bf_ring_room(r))
        return;
    if (!placed) {
        /* an empty ring takes whatever is at most a quarter of it (the module's inline limit) */
        CHECK(r->head != r->tail || len > BYTES / 4);
        refused++;
        return;
    }
    CHECK(len == 0 || free_bytes_exist(len));
    CHECK(pos % BYTES + len <= BYTES);
    CHECK(pos % 512 == 0);
    if (!(sector & 7) && len >= 4096)
        CHECK(pos % 4096 == 0);
    if (len) {
        bf_ring_take(r, pos, len);
        own(pos, len, r->head + 1);
    }
    items[r->head % DESCS] = (struct item){len ? pos : 0, len};
    r->head++;
    appended++;
}

static void pop(struct bf_ring *r)
{
    struct item *it = &items[r->tail % DESCS];

    if (r->tail == r->head)
        return;
    own(it->pos, it->len, 0);
    bf_ring_pop(r, it->pos, it->len);
    if (r->tail == r->head)
        CHECK(r->data_head == r->data_tail);
}

static void run(u64 seed)
{
    struct bf_ring r;
    int step;

    model_start(seed);
    memset(owner, 0, sizeof(owner));
    bf_ring_init(&r, DESCS, BYTES);
    /* far along: nothing may depend on small indices, or on the wrap of 32 bits */
    r.head = r.tail = r.target = (1ULL << 32) - 20 + seed;
    r.data_head = r.data_tail = (1ULL << 40) - 4096 * (seed % 7);
    for (step = 0; step < 4000; step++) {
        u64 push = 1 + (seed + (u64)step / 400) % 3;

        if (model_random(4) < push)
            append(&r);
        else
            pop(&r);
        CHECK(r.head - r.tail <= DESCS);
        CHECK(bf_ring_room(&r) == DESCS - (r.head - r.tail));
        CHECK(r.data_head - r.data_tail <= BYTES);
    }
}

static void hostile_tails(void)
{
    struct bf_ring r;

    bf_ring_init(&r, DESCS, BYTES);
    r.tail = 100;
    r.head = 120;
    CHECK(bf_ring_tail_ok(&r, 100));
    CHECK(bf_ring_tail_ok(&r, 120));
    CHECK(!bf_ring_tail_ok(&r, 99));
    CHECK(!bf_ring_tail_ok(&r, 121));
    CHECK(!bf_ring_tail_ok(&r, 0));
    CHECK(!bf_ring_tail_ok(&r, ~0ULL));
    CHECK(!bf_ring_tail_ok(&r, 100 + (1ULL << 32)));
    CHECK(!bf_ring_tail_ok(&r, 110 | 1ULL << 63));
}

int main(void)
{
    u64 seed;

    hostile_tails();
    for (seed = 1; seed <= 300; seed++)
        run(seed);
    CHECK(appended > 100000 && refused > 1000);
    return 0;
}
