// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "follow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nl.h"

#define CHUNK_MAX (1U << 20)

struct state {
    const struct follow_options *o;
    int dev, source, replica;
    const struct blkferry_ctl *ctl;
    struct blkferry_cons *cons;
    const struct blkferry_desc *desc;
    const uint8_t *data;
    const uint64_t *snap;
    uint64_t tail;
    uint64_t last_seq;
    uint64_t epoch;      /* seq0 of the round that runs, 0: none */
    uint64_t seen_epoch; /* number of the last SWITCH taken from the ring */
    uint8_t *newer;      /* per sector: written by a record after the SWITCH */
    uint8_t *undefined;  /* per sector: discarded, not written since */
    uint8_t *block;      /* aligned buffer */
    uint64_t applied, rounds, resynced;
    int gone;
};

static volatile sig_atomic_t finish;

static void on_signal(int sig)
{
    (void)sig;
    finish = 1;
}

static void die(const char *what)
{
    fprintf(stderr, "follow: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void broken(const char *what, uint64_t a, uint64_t b)
{
    fprintf(stderr, "follow: CONTRACT BROKEN: %s (%llu, %llu)\n", what, (unsigned long long)a, (unsigned long long)b);
    exit(1);
}

static void *map(struct state *s, int region, uint64_t bytes, int prot)
{
    void *p = mmap(NULL, bytes, prot, MAP_SHARED, s->dev, (off_t)BLKFERRY_MMAP_OFFSET(region));

    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

static void open_all(struct state *s)
{
    char path[64];

    snprintf(path, sizeof(path), "/dev/blkferry/%u", s->o->disk);
    s->dev = open(path, O_RDWR | O_CLOEXEC);
    if (s->dev < 0)
        die(path);
    s->ctl = map(s, BLKFERRY_REGION_CTL, 4096, PROT_READ);
    if (s->ctl->magic != BLKFERRY_CTL_MAGIC || s->ctl->abi != BLKFERRY_ABI_VERSION)
        broken("magic or abi", s->ctl->magic, s->ctl->abi);
    s->cons = map(s, BLKFERRY_REGION_CONS, 4096, PROT_READ | PROT_WRITE);
    s->desc = map(s, BLKFERRY_REGION_DESC, (uint64_t)s->ctl->desc_count * 64, PROT_READ);
    s->data = map(s, BLKFERRY_REGION_DATA, s->ctl->data_bytes, PROT_READ);
    s->snap = map(s, BLKFERRY_REGION_SNAP, s->ctl->map_bytes, PROT_READ);
    s->source = open(s->o->source, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (s->source < 0)
        die(s->o->source);
    s->replica = open(s->o->replica, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->replica < 0)
        die(s->o->replica);
    s->newer = calloc(1, s->ctl->nr_sectors);
    s->undefined = calloc(1, s->ctl->nr_sectors);
    if (!s->newer || !s->undefined || posix_memalign((void **)&s->block, 4096, CHUNK_MAX))
        die("memory");
    s->tail = s->ctl->kernel_tail;
    __atomic_store_n(&s->cons->tail, s->tail, __ATOMIC_RELEASE);
}

static void put(struct state *s, const void *from, size_t len, uint64_t sector)
{
    if (pwrite(s->replica, from, len, (off_t)(sector * 512)) != (ssize_t)len)
        die("write to the replica");
}

static void put_zeroes(struct state *s, uint64_t sector, uint64_t nr)
{
    static const uint8_t zero[65536];

    while (nr) {
        uint64_t n = nr < 128 ? nr : 128;

        put(s, zero, n * 512, sector);
        sector += n;
        nr -= n;
    }
}

static void check_desc(struct state *s, const struct blkferry_desc *d, uint32_t state)
{
    if (d->seq <= s->last_seq)
        broken("numbers do not ascend", d->seq, s->last_seq);
    s->last_seq = d->seq;
    if (d->op >= BLKFERRY_OP_OVERFLOW) {
        if (state != BLKFERRY_D_DONE || d->nr_sectors || d->data_len || d->op > BLKFERRY_OP_CUT)
            broken("marker", d->op, state);
        return;
    }
    if (!d->nr_sectors || d->sector + d->nr_sectors > s->ctl->nr_sectors)
        broken("range", d->sector, d->nr_sectors);
    if (d->op != BLKFERRY_OP_WRITE && d->data_len)
        broken("payload of a data-less operation", d->op, d->data_len);
    if (d->op == BLKFERRY_OP_WRITE && state != BLKFERRY_D_DIRTY && d->data_len != d->nr_sectors * 512)
        broken("payload length", d->data_len, d->nr_sectors);
    if (d->data_len && (d->data_pos & (s->ctl->data_bytes - 1)) + d->data_len > s->ctl->data_bytes)
        broken("payload wraps", d->data_pos, d->data_len);
}

static void apply(struct state *s, const struct blkferry_desc *d)
{
    memset(s->newer + d->sector, 1, d->nr_sectors);
    memset(s->undefined + d->sector, d->op == BLKFERRY_OP_DISCARD || d->op == BLKFERRY_OP_SECURE_ERASE, d->nr_sectors);
    if (d->data_len)
        put(s, s->data + (d->data_pos & (s->ctl->data_bytes - 1)), d->data_len, d->sector);
    else
        put_zeroes(s, d->sector, d->nr_sectors);
    s->applied++;
}

/* Takes what is final; returns how many. */
static unsigned int consume(struct state *s)
{
    uint64_t head = __atomic_load_n(&s->ctl->head, __ATOMIC_ACQUIRE);
    unsigned int n = 0;

    while (s->tail != head && n < 256) {
        const struct blkferry_desc *d = &s->desc[s->tail & (s->ctl->desc_count - 1)];
        uint32_t state = __atomic_load_n(&d->state, __ATOMIC_ACQUIRE);

        if (state < BLKFERRY_D_DONE)
            break;
        check_desc(s, d, state);
        if (d->op == BLKFERRY_OP_SWITCH) {
            memset(s->newer, 0, s->ctl->nr_sectors);
            s->seen_epoch = d->seq;
        } else if (d->op < BLKFERRY_OP_OVERFLOW && state == BLKFERRY_D_DONE) {
            apply(s, d);
        }
        s->tail++;
        n++;
        if (s->o->delay_us)
            usleep(s->o->delay_us);
    }
    if (n)
        __atomic_store_n(&s->cons->tail, s->tail, __ATOMIC_RELEASE);
    return n;
}

static void got_seq(const struct attrs *a, void *arg)
{
    *(uint64_t *)arg = attr_u64(a, BLKFERRY_A_SEQ);
}

static int control(struct state *s, uint8_t cmd, uint64_t *seq)
{
    struct request r;

    nl_request(&r, cmd, 0);
    nl_put_u32(&r, BLKFERRY_A_DISK, s->o->disk);
    return nl_call(&r, got_seq, seq);
}

static void clear(struct state *s, uint64_t sector, uint64_t nr)
{
    struct blkferry_range range = {.sector = sector, .nr_sectors = nr};
    struct request r;
    int err;

    nl_request(&r, BLKFERRY_CMD_RESYNC_CLEAR, 0);
    nl_put_u32(&r, BLKFERRY_A_DISK, s->o->disk);
    nl_put_u64(&r, BLKFERRY_A_SEQ, s->epoch);
    nl_put(&r, BLKFERRY_A_RANGES, &range, sizeof(range));
    err = nl_call(&r, NULL, NULL);
    if (err == -ESTALE)
        s->epoch = 0;
    else if (err == -ENODEV)
        s->gone = 1;
    else if (err)
        broken("RESYNC_CLEAR", (uint64_t)-err, sector);
}

/* Reads blocks [first, past) of the source and writes what is not newer. */
static int ship(struct state *s, uint64_t first, uint64_t past)
{
    uint32_t per = 1U << (s->ctl->block_shift - 9);
    uint64_t sector = first * per, i;
    uint64_t nr = past * per;
    ssize_t got;

    nr = (nr < s->ctl->nr_sectors ? nr : s->ctl->nr_sectors) - sector;
    got = pread(s->source, s->block, nr * 512, (off_t)(sector * 512));
    if (got != (ssize_t)(nr * 512)) {
        fprintf(stderr, "follow: cannot read the source at %llu: %s\n", (unsigned long long)sector, strerror(errno));
        s->gone = 1;
        return -1;
    }
    for (i = 0; i < nr; i++) {
        uint64_t run = i;

        while (run < nr && !s->newer[sector + run])
            run++;
        if (run > i) {
            put(s, s->block + i * 512, (run - i) * 512, sector + i);
            memset(s->undefined + sector + i, 0, run - i);
        }
        i = run;
    }
    s->resynced += nr;
    clear(s, sector, nr);
    return 0;
}

static void begin(struct state *s)
{
    uint64_t seq = 0;
    int err = control(s, BLKFERRY_CMD_RESYNC_BEGIN, &seq);

    if (!err) {
        s->epoch = seq;
        s->rounds++;
    } else if (err == -ENODEV) {
        s->gone = 1;
    } else if (err != -EAGAIN && err != -ENOSPC) {
        broken("RESYNC_BEGIN", (uint64_t)-err, s->ctl->state);
    }
}

/* One step of a resync: begin a round, ship a run of blocks, or end it. */
static void resync_step(struct state *s)
{
    uint64_t words = s->ctl->map_bytes / 8, w, first, past, most;
    uint64_t seq;
    int err;

    if (!s->epoch || s->ctl->state != BLKFERRY_RESYNC) {
        s->epoch = 0;
        begin(s);
        return;
    }
    if (s->seen_epoch < s->epoch)
        return;
    if (s->seen_epoch > s->epoch)
        broken("SWITCH of an epoch that was not begun", s->seen_epoch, s->epoch);
    for (w = 0; w < words && !s->snap[w]; w++)
        ;
    if (w == words) {
        err = control(s, BLKFERRY_CMD_RESYNC_END, &seq);
        s->epoch = 0;
        if (err == -ENODEV)
            s->gone = 1;
        else if (err && err != -EAGAIN && err != -ENOSPC && err != -EINVAL)
            broken("RESYNC_END", (uint64_t)-err, s->ctl->snap_blocks);
        if (err == -EAGAIN)
            begin(s);
        return;
    }
    first = w * 64 + (uint64_t)__builtin_ctzll(s->snap[w]);
    most = CHUNK_MAX >> s->ctl->block_shift;
    for (past = first + 1; past < words * 64 && past - first < most; past++)
        if (!(s->snap[past / 64] >> (past % 64) & 1))
            break;
    ship(s, first, past);
}

static int compare(struct state *s)
{
    uint8_t *other = malloc(CHUNK_MAX);
    uint64_t sector, i, bad = 0, skipped = 0;

    for (sector = 0; sector < s->ctl->nr_sectors; sector += CHUNK_MAX / 512) {
        uint64_t nr = s->ctl->nr_sectors - sector;

        nr = nr < CHUNK_MAX / 512 ? nr : CHUNK_MAX / 512;
        if (pread(s->source, s->block, nr * 512, (off_t)sector * 512) != (ssize_t)nr * 512 ||
            pread(s->replica, other, nr * 512, (off_t)sector * 512) != (ssize_t)nr * 512)
            die("compare");
        for (i = 0; i < nr; i++) {
            if (s->undefined[sector + i])
                skipped++;
            else if (memcmp(s->block + i * 512, other + i * 512, 512) && bad++ < 10)
                fprintf(stderr, "follow: sector %llu differs\n", (unsigned long long)(sector + i));
        }
    }
    printf("compare: differ=%llu undefined=%llu sectors=%llu\n", (unsigned long long)bad, (unsigned long long)skipped,
           (unsigned long long)s->ctl->nr_sectors);
    free(other);
    return bad ? 1 : 0;
}

static int clean(const struct state *s)
{
    return s->ctl->state == BLKFERRY_RING && !__atomic_load_n(&s->ctl->gap_seq, __ATOMIC_ACQUIRE) &&
           s->tail == __atomic_load_n(&s->ctl->head, __ATOMIC_ACQUIRE);
}

static void wait_for_more(struct state *s)
{
    struct pollfd p = {.fd = s->dev, .events = POLLIN};
    const struct blkferry_desc *d = &s->desc[s->tail & (s->ctl->desc_count - 1)];

    __atomic_store_n(&s->cons->need_wake, 1, __ATOMIC_SEQ_CST);
    if (s->tail == __atomic_load_n(&s->ctl->head, __ATOMIC_SEQ_CST) ||
        __atomic_load_n(&d->state, __ATOMIC_SEQ_CST) < BLKFERRY_D_DONE)
        poll(&p, 1, 1000);
    __atomic_store_n(&s->cons->need_wake, 0, __ATOMIC_RELAXED);
    if (p.revents & POLLHUP)
        s->gone = 1;
}

int follow(const struct follow_options *o)
{
    struct state s = {.o = o};
    struct sigaction act = {.sa_handler = on_signal};

    sigaction(SIGUSR1, &act, NULL);
    open_all(&s);
    printf("following\n");
    fflush(stdout);
    while (!s.gone && !(finish && clean(&s))) {
        unsigned int n = consume(&s);

        if (s.ctl->state == BLKFERRY_STOPPED)
            s.gone = 1;
        else if (s.ctl->gap_seq)
            resync_step(&s);
        else if (!n)
            wait_for_more(&s);
    }
    printf("follow: applied=%llu rounds=%llu resynced_sectors=%llu gone=%d\n", (unsigned long long)s.applied,
           (unsigned long long)s.rounds, (unsigned long long)s.resynced, s.gone);
    if (s.gone)
        return 3;
    return o->compare ? compare(&s) : 0;
}
