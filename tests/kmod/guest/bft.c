// SPDX-License-Identifier: GPL-2.0-only
/* bft: drives the module from a test guest. Every command exits with 0, or with 1 and prints the error's name. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "abuse.h"
#include "count.h"
#include "follow.h"
#include "latency.h"
#include "nl.h"
#include "passthrough.h"

static const char *const counters[BLKFERRY_C_MAX] = {
    "ops", "sectors", "done", "cancelled", "cancelled_sectors", "failed", "dirty_ops", "dirty_sectors", "overflows",
    "oversize", "overlaps", "unknown", "inflight_full", "reused", "watchdog", "inline_crypt", "restacked",
    "passthrough", "beyond_end", "bad_consumer", "wakeups",
};

static void show_disk(const struct attrs *a, void *arg)
{
    uint64_t values[BLKFERRY_C_MAX] = {0};
    int i;

    (void)arg;
    if (!a->data[BLKFERRY_A_DISK])
        return;
    printf("disk=%u name=%.*s state=%u flags=%u sectors=%llu data_bytes=%llu descs=%u inline_max=%u block_shift=%u\n",
           attr_u32(a, BLKFERRY_A_DISK), (int)a->len[BLKFERRY_A_NAME], (const char *)a->data[BLKFERRY_A_NAME],
           attr_u32(a, BLKFERRY_A_STATE), attr_u32(a, BLKFERRY_A_FLAGS),
           (unsigned long long)attr_u64(a, BLKFERRY_A_SECTORS),
           (unsigned long long)attr_u64(a, BLKFERRY_A_DATA_BYTES), attr_u32(a, BLKFERRY_A_DESCS),
           attr_u32(a, BLKFERRY_A_INLINE_MAX), attr_u32(a, BLKFERRY_A_BLOCK_SHIFT));
    printf("gap_seq=%llu close_seq=%llu epoch_seq=%llu active=%llu snap=%llu memory=%llu\n",
           (unsigned long long)attr_u64(a, BLKFERRY_A_GAP_SEQ), (unsigned long long)attr_u64(a, BLKFERRY_A_CLOSE_SEQ),
           (unsigned long long)attr_u64(a, BLKFERRY_A_EPOCH_SEQ),
           (unsigned long long)attr_u64(a, BLKFERRY_A_ACTIVE_BLOCKS),
           (unsigned long long)attr_u64(a, BLKFERRY_A_SNAP_BLOCKS),
           (unsigned long long)attr_u64(a, BLKFERRY_A_MEMORY));
    if (a->len[BLKFERRY_A_COUNTERS] == sizeof(values))
        memcpy(values, a->data[BLKFERRY_A_COUNTERS], sizeof(values));
    for (i = 0; i < BLKFERRY_C_MAX; i++)
        printf("%s=%llu%c", counters[i], (unsigned long long)values[i], i + 1 < BLKFERRY_C_MAX ? ' ' : '\n');
}

static void show_numbers(const struct attrs *a, void *arg)
{
    (void)arg;
    if (a->data[BLKFERRY_A_SEQ])
        printf("seq=%llu\n", (unsigned long long)attr_u64(a, BLKFERRY_A_SEQ));
    if (a->data[BLKFERRY_A_VOID_SEQ])
        printf("void_seq=%llu\n", (unsigned long long)attr_u64(a, BLKFERRY_A_VOID_SEQ));
    if (a->data[BLKFERRY_A_VERSION])
        printf("version=%.*s abi=%u inflight=%u\n", (int)a->len[BLKFERRY_A_VERSION],
               (const char *)a->data[BLKFERRY_A_VERSION], attr_u32(a, BLKFERRY_A_ABI),
               attr_u32(a, BLKFERRY_A_INFLIGHT));
    show_frozen(a);
}

static uint64_t device_number(const char *path)
{
    struct stat st;

    if (stat(path, &st)) {
        perror(path);
        exit(2);
    }
    return (uint64_t)major(st.st_rdev) << 32 | minor(st.st_rdev);
}

static int end(struct request *r, void (*reply)(const struct attrs *a, void *arg))
{
    int err = nl_call(r, reply, NULL);

    if (!err)
        return 0;
    printf("error=%s text=%s\n", strerrorname_np(-err), nl_error);
    return 1;
}

static void put_ranges(struct request *r, int argc, char **argv)
{
    struct blkferry_range ranges[BLKFERRY_RANGES_MAX];
    int n = 0;

    for (; argc >= 2 && n < BLKFERRY_RANGES_MAX; argc -= 2, argv += 2, n++) {
        ranges[n].sector = strtoull(argv[0], NULL, 0);
        ranges[n].nr_sectors = strtoull(argv[1], NULL, 0);
    }
    if (n)
        nl_put(r, BLKFERRY_A_RANGES, ranges, (size_t)n * sizeof(ranges[0]));
}

static int do_follow(int argc, char **argv)
{
    struct follow_options o = {0};

    if (argc < 3)
        return 2;
    o.disk = (uint32_t)strtoul(argv[0], NULL, 0);
    o.source = argv[1];
    o.replica = argv[2];
    for (argc -= 3, argv += 3; argc; argc--, argv++) {
        if (!strcmp(*argv, "compare"))
            o.compare = 1;
        else
            o.delay_us = (unsigned int)strtoul(*argv, NULL, 0);
    }
    return follow(&o);
}

static int do_cut(int argc, char **argv)
{
    uint64_t devs[BLKFERRY_FREEZE_MAX];
    struct request r;
    size_t n = 0;

    nl_request(&r, BLKFERRY_CMD_CUT, 0);
    if (argc) {
        nl_put_u32(&r, BLKFERRY_A_FREEZE_MS, (uint32_t)strtoul(argv[0], NULL, 0));
        for (argc--, argv++; argc && n < BLKFERRY_FREEZE_MAX; argc--, argv++)
            devs[n++] = device_number(*argv);
        nl_put(&r, BLKFERRY_A_FREEZE_DEVS, devs, n * sizeof(devs[0]));
    }
    return end(&r, show_numbers);
}

static int do_attach(const char *file, int argc, char **argv)
{
    struct request r;

    nl_request(&r, BLKFERRY_CMD_ATTACH, 0);
    nl_put_u64(&r, BLKFERRY_A_DEV, device_number(argv[0]));
    /* "attach-by FILE DEV …": what the module must refuse if FILE is not DEV; the process' end closes it */
    nl_put_u32(&r, BLKFERRY_A_FD, (uint32_t)open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (argc > 1)
        nl_put_u64(&r, BLKFERRY_A_DATA_BYTES, strtoull(argv[1], NULL, 0));
    if (argc > 2)
        nl_put_u32(&r, BLKFERRY_A_DESCS, (uint32_t)strtoul(argv[2], NULL, 0));
    if (argc > 3)
        nl_put_u32(&r, BLKFERRY_A_INLINE_MAX, (uint32_t)strtoul(argv[3], NULL, 0));
    return end(&r, show_disk);
}

/* The commands that name one disk and perhaps ranges. */
static int do_disk(const char *name, int argc, char **argv)
{
    static const struct {
        const char *name;
        uint8_t cmd;
    } table[] = {
        {"get", BLKFERRY_CMD_DISK_GET},       {"latency", BLKFERRY_CMD_DISK_GET},   {"detach", BLKFERRY_CMD_DETACH},
        {"begin", BLKFERRY_CMD_RESYNC_BEGIN}, {"end", BLKFERRY_CMD_RESYNC_END},      {"clear", BLKFERRY_CMD_RESYNC_CLEAR},
        {"dirty", BLKFERRY_CMD_MARK_DIRTY},
    };
    struct request r;
    size_t i;

    for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(name, table[i].name))
            continue;
        nl_request(&r, table[i].cmd, 0);
        nl_put_u32(&r, BLKFERRY_A_DISK, (uint32_t)strtoul(argv[0], NULL, 0));
        put_ranges(&r, argc - 1, argv + 1);
        return end(&r, i > 1 ? show_numbers : i ? show_latency : show_disk);
    }
    return 2;
}

int main(int argc, char **argv)
{
    struct request r;
    int err = 2;

    if (argc < 2)
        goto usage;
    if (strcmp(argv[1], "count") && strcmp(argv[1], "sgwrite"))
        nl_open();
    if (!strcmp(argv[1], "info") || !strcmp(argv[1], "floor")) {
        nl_request(&r, argv[1][0] == 'i' ? BLKFERRY_CMD_INFO : BLKFERRY_CMD_SEQ_FLOOR, 0);
        if (argc > 2)
            nl_put_u64(&r, BLKFERRY_A_SEQ, strtoull(argv[2], NULL, 0));
        err = end(&r, show_numbers);
    } else if (!strcmp(argv[1], "list")) {
        nl_request(&r, BLKFERRY_CMD_DISK_GET, 1);
        err = end(&r, show_disk);
    } else if (!strcmp(argv[1], "events") && argc > 2) {
        err = nl_events(atoi(argv[2]));
    } else if (!strcmp(argv[1], "follow")) {
        err = do_follow(argc - 2, argv + 2);
    } else if (!strcmp(argv[1], "cut")) {
        err = do_cut(argc - 2, argv + 2);
    } else if (!strcmp(argv[1], "attach") && argc > 2) {
        err = do_attach(argv[2], argc - 2, argv + 2);
    } else if (!strcmp(argv[1], "attach-by") && argc > 3) {
        err = do_attach(argv[2], argc - 3, argv + 3);
    } else if (!strcmp(argv[1], "maps") && argc > 2) {
        err = abuse_maps((uint32_t)strtoul(argv[2], NULL, 0));
    } else if (!strcmp(argv[1], "count") && argc > 4) {
        err = count_writes(argv[2], (unsigned int)strtoul(argv[3], NULL, 0), strtoul(argv[4], NULL, 0));
    } else if (!strcmp(argv[1], "sgwrite") && argc > 3) {
        err = passthrough_write(argv[2], (uint32_t)strtoul(argv[3], NULL, 0));
    } else if (!strcmp(argv[1], "tail") && argc > 3) {
        err = abuse_tail((uint32_t)strtoul(argv[2], NULL, 0), strtoull(argv[3] + (argv[3][0] == 'h'), NULL, 0),
                         argv[3][0] == 'h');
    } else if (argc > 2) {
        err = do_disk(argv[1], argc - 2, argv + 2);
    }
usage:
    if (err == 2)
        fprintf(stderr, "usage: bft info | floor SEQ | list | events N | [attach | attach-by FILE] DEV [DATA_BYTES [DESCS [INLINE]]]\n"
                        "  | get|latency|detach|begin|end ID | clear|dirty ID [SECTOR NR]... | cut [MS DEV...]\n"
                        "  | count DEV N BYTES | sgwrite DEV BLOCK | maps ID | tail ID N|hN | follow ID SOURCE REPLICA [compare] [DELAY_US]\n");
    return err;
}
