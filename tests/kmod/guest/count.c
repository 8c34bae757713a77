// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "count.h"

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#define RUNS 6
// A write that cost more than this many times the median of its run was interrupted: on 7.2 one clock tick of a guest
// whose clock follows its instructions costs up to 1.4 million of them.
#define INTERRUPTED 4

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

// The mean of those that were not interrupted; sorts them.
static uint64_t mean(uint64_t *costs, unsigned int n)
{
    uint64_t sum = 0;
    unsigned int i;

    qsort(costs, n, sizeof(*costs), ascending);
    for (i = 0; i < n && costs[i] <= INTERRUPTED * costs[n / 2]; i++)
        sum += costs[i];
    return sum / i;
}

int count_writes(const char *device, unsigned int n, size_t bytes)
{
    int fd = open(device, O_RDWR | O_DIRECT | O_CLOEXEC);
    uint64_t x = 88172645463325252ULL, best = UINT64_MAX, *costs = calloc(n, sizeof(*costs));
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    void *buffer;
    int run;

    if (fd < 0 || !n || !costs || size < (off_t)bytes || posix_memalign(&buffer, 4096, bytes)) {
        perror(device);
        return 1;
    }
    memset(buffer, 7, bytes);
    for (run = 0; run < RUNS; run++) {
        uint64_t start, each;
        unsigned int i;

        sched_yield();
        for (i = 0; i < n; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            start = __rdtsc();
            if (pwrite(fd, buffer, bytes, (off_t)(x % ((uint64_t)size / bytes) * bytes)) != (ssize_t)bytes) {
                perror(device);
                return 1;
            }
            costs[i] = __rdtsc() - start;
        }
        each = mean(costs, n);
        best = each < best ? each : best;
    }
    printf("%llu\n", (unsigned long long)best);
    return 0;
}
