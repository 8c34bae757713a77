/* SPDX-License-Identifier: GPL-2.0-only */
/* What the model tests share: a seeded generator and a check that prints its seed. */
#ifndef MODEL_H
#define MODEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t model_seed;
static uint64_t model_state;

static inline void model_start(uint64_t seed)
{
    model_seed = seed;
    model_state = seed * 0x9e3779b97f4a7c15ULL + 1;
}

/* xorshift64* */
static inline uint64_t model_random(uint64_t below)
{
    model_state ^= model_state >> 12;
    model_state ^= model_state << 25;
    model_state ^= model_state >> 27;
    return (model_state * 0x2545f4914f6cdd1dULL >> 11) % below;
}

#define CHECK(cond)                                                                                  \
    do {                                                                                             \
        if (!(cond)) {                                                                               \
            fprintf(stderr, "%s:%d: seed %llu: not true: %s\n", __FILE__, __LINE__,                  \
                    (unsigned long long)model_seed, #cond);                                          \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

#endif
