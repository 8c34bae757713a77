// SPDX-License-Identifier: GPL-2.0-only
/* The dirty map against two arrays of bool, with a move running in between. */
#include <string.h>

#include "core/dirtymap.h"
#include "model.h"

#define BITS_MAX (BF_MAP_CHUNK_BITS * 3 + 77)

static bool active[BITS_MAX], snap[BITS_MAX];

/* Borders are where the mistakes are: words, chunks, the end. */
static u64 pick(u64 nbits)
{
    static const u64 near[] = {64, 128, BF_MAP_CHUNK_BITS, 2 * BF_MAP_CHUNK_BITS};
    u64 at;

    if (model_random(2))
        return model_random(nbits);
    at = near[model_random(4)] + model_random(5) - 2;
    return at < nbits ? at : nbits - 1;
}

static void same(const struct bf_map *m)
{
    u64 i, a = 0, s = 0;

    for (i = 0; i < m->nbits; i++) {
        a += active[i];
        s += snap[i];
        CHECK((m->active[i / 64] >> (i % 64) & 1) == active[i]);
        CHECK((m->snap[i / 64] >> (i % 64) & 1) == snap[i]);
    }
    for (; i < m->nwords * 64; i++)
        CHECK(!(m->active[i / 64] >> (i % 64) & 1) && !(m->snap[i / 64] >> (i % 64) & 1));
    CHECK(m->active_bits == a && m->snap_bits == s);
}

/* While a move runs the real map lags behind the model, which moves at once; so compare at its end. */
static void run(u64 seed)
{
    struct bf_map m;
    u64 nbits, chunk = 0, i;
    int step;

    model_start(seed);
    nbits = model_random(3) ? 1 + model_random(BITS_MAX) : 1 + model_random(200);
    memset(active, 0, sizeof(active));
    memset(snap, 0, sizeof(snap));
    bf_map_init(&m, nbits, calloc(bf_map_words(nbits), 8), calloc(bf_map_words(nbits), 8),
                calloc(bf_map_chunks(nbits), 1));
    for (step = 0; step < 400; step++) {
        u64 a = pick(nbits), b = pick(nbits), first = a < b ? a : b, past = (a < b ? b : a) + 1;

        if (model_random(3))
            past = first + 1 + model_random(past - first < 9 ? past - first : 9);
        switch (model_random(6)) {
        case 0:
            if (!m.moving) {
                bf_map_move_begin(&m);
                chunk = 0;
                for (i = 0; i < nbits; i++) {
                    snap[i] |= active[i];
                    active[i] = false;
                }
            }
            break;
        case 1:
            if (m.moving && chunk < m.nchunks)
                bf_map_move_chunk(&m, chunk++);
            if (m.moving && chunk == m.nchunks) {
                bf_map_move_end(&m);
                same(&m);
            }
            break;
        case 2:
            if (!m.moving) {
                bf_map_clear_snap(&m, first, past);
                memset(snap + first, 0, past - first);
            }
            break;
        default:
            bf_map_mark(&m, first, past);
            memset(active + first, 1, past - first);
        }
        if (!m.moving && !model_random(8))
            same(&m);
    }
    while (m.moving && chunk < m.nchunks)
        bf_map_move_chunk(&m, chunk++);
    bf_map_move_end(&m);
    same(&m);
    free(m.active);
    free(m.snap);
    free(m.moved);
}

int main(void)
{
    u64 seed;

    for (seed = 1; seed <= 120; seed++)
        run(seed);
    return 0;
}
