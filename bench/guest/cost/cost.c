// SPDX-License-Identifier: Apache-2.0
/*
 * Instructions per O_DIRECT pwrite, seen by a guest whose time stamp counter counts instructions (qemu -icount).
 *
 *   cost write DEVICE BYTES COUNT [DISK]   random aligned writes of BYTES; prints "median mean" per write
 *
 * With DISK (a blkferry disk id) the program is also the ring's consumer: outside of the counted window it moves the
 * consumer's tail so that the ring stays half full, the regime in which every write also gives descriptors back.
 *
 * The first eighth of the writes warms up and is not counted. The median leaves out the writes that a timer tick
 * interrupted; the mean of the writes up to twice the median is the second figure.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../../kmod/uapi/blkferry.h"

struct ring {
    const struct blkferry_ctl *ctl;
    struct blkferry_cons *cons;
    const struct blkferry_desc *desc;
};

static uint64_t tsc(void)
{
    uint32_t lo, hi;

    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi)::"memory");
    return (uint64_t)hi << 32 | lo;
}

static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void *map(int fd, enum blkferry_region region, size_t bytes, int prot)
{
    void *at = mmap(NULL, bytes, prot, MAP_SHARED, fd, (off_t)BLKFERRY_MMAP_OFFSET(region));

    if (at == MAP_FAILED)
        die("mmap of the ring");
    return at;
}

static void ring_open(struct ring *ring, const char *disk)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/dev/blkferry/%s", disk);
    fd = open(path, O_RDWR);
    if (fd < 0)
        die(path);
    ring->ctl = map(fd, BLKFERRY_REGION_CTL, 4096, PROT_READ);
    ring->cons = map(fd, BLKFERRY_REGION_CONS, 4096, PROT_READ | PROT_WRITE);
    ring->desc = map(fd, BLKFERRY_REGION_DESC, (size_t)ring->ctl->desc_count * sizeof(*ring->desc), PROT_READ);
}

/* The consumer: payload up to half of the data ring and half of the descriptors stay unacknowledged. */
static void ring_consume(const struct ring *ring)
{
    uint64_t head = __atomic_load_n(&ring->ctl->head, __ATOMIC_ACQUIRE);
    uint64_t tail = ring->cons->tail;
    uint64_t keep = ring->ctl->desc_count / 2;
    const struct blkferry_desc *last;

    if (!head)
        return;
    last = &ring->desc[(head - 1) & (ring->ctl->desc_count - 1)];
    while (tail < head) {
        const struct blkferry_desc *d = &ring->desc[tail & (ring->ctl->desc_count - 1)];

        if (head - tail <= keep && (!d->data_len || last->data_pos - d->data_pos < ring->ctl->data_bytes / 2))
            break;
        tail++;
    }
    __atomic_store_n(&ring->cons->tail, tail, __ATOMIC_RELEASE);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void show(uint64_t *samples, size_t n)
{
    uint64_t median, sum = 0;
    size_t counted = 0;

    qsort(samples, n, sizeof(*samples), compare);
    median = samples[n / 2];
    for (; counted < n && samples[counted] <= 2 * median; counted++)
        sum += samples[counted];
    printf("%llu %.1f\n", (unsigned long long)median, (double)sum / (double)counted);
}

static void cost_write(const char *device, size_t bytes, size_t count, const struct ring *ring)
{
    uint64_t state = 88172645463325252ULL, size, before, after, *samples = calloc(count, sizeof(*samples));
    void *buffer;
    size_t i;
    int fd = open(device, O_WRONLY | O_DIRECT);

    if (fd < 0)
        die(device);
    if (ioctl(fd, BLKGETSIZE64, &size) != 0)
        die("BLKGETSIZE64");
    if (!samples || size < bytes || posix_memalign(&buffer, 4096, bytes) != 0)
        die("buffer");
    memset(buffer, 0x5a, bytes);
    memset(samples, 0, count * sizeof(*samples));
    for (i = 0; i < count; i++) {
        off_t at = (off_t)(next(&state) % (size / bytes) * bytes);

        before = tsc();
        if (pwrite(fd, buffer, bytes, at) != (ssize_t)bytes)
            die("pwrite");
        after = tsc();
        samples[i] = after - before;
        if (ring->ctl)
            ring_consume(ring);
    }
    show(samples + count / 8, count - count / 8);
}

int main(int argc, char **argv)
{
    struct ring ring = {0};

    if (argc < 5 || argc > 6 || strcmp(argv[1], "write")) {
        fputs("usage: cost write DEVICE BYTES COUNT [DISK]\n", stderr);
        return 2;
    }
    if (argc == 6)
        ring_open(&ring, argv[5]);
    cost_write(argv[2], strtoul(argv[3], NULL, 10), strtoul(argv[4], NULL, 10), &ring);
    return 0;
}
