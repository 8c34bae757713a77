// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include "abuse.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blkferry.h"

static int failures;

static void expect(const char *what, int ok)
{
    if (ok)
        return;
    fprintf(stderr, "abuse: %s: not as it must be (errno %s)\n", what, strerror(errno));
    failures++;
}

static int open_disk(uint32_t disk)
{
    char path[64];

    snprintf(path, sizeof(path), "/dev/blkferry/%u", disk);
    return open(path, O_RDWR | O_CLOEXEC);
}

static void *try_map(int fd, uint64_t offset, uint64_t len, int prot, int flags)
{
    return mmap(NULL, len, prot, flags, fd, (off_t)offset);
}

static void region(int fd, int r, uint64_t len, const char *name)
{
    uint64_t offset = BLKFERRY_MMAP_OFFSET(r);
    void *p;

    expect(name, try_map(fd, offset, len, PROT_READ | PROT_WRITE, MAP_SHARED) == MAP_FAILED && errno == EACCES);
    expect(name, try_map(fd, offset, len, PROT_READ, MAP_PRIVATE) == MAP_FAILED);
    expect(name, try_map(fd, offset, len + 4096, PROT_READ, MAP_SHARED) == MAP_FAILED && errno == EINVAL);
    expect(name, try_map(fd, offset + len, 4096, PROT_READ, MAP_SHARED) == MAP_FAILED && errno == EINVAL);
    p = try_map(fd, offset, len, PROT_READ, MAP_SHARED);
    expect(name, p != MAP_FAILED);
    if (p == MAP_FAILED)
        return;
    expect(name, mprotect(p, len, PROT_READ | PROT_WRITE) && errno == EACCES);
    expect(name, mremap(p, len, len + 4096, MREMAP_MAYMOVE) == MAP_FAILED);
    /* the kernel must not write there for us either */
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC), mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    expect(name, read(zero, p, 8) < 0 && errno == EFAULT);
    expect(name, mem >= 0 && pwrite(mem, "12345678", 8, (off_t)(uintptr_t)p) < 0);
    close(mem);
    close(zero);
    munmap(p, len);
}

int abuse_maps(uint32_t disk)
{
    int fd = open_disk(disk);
    struct blkferry_ctl *ctl;
    uint64_t map_bytes;
    void *p;

    expect("open", fd >= 0);
    if (fd < 0)
        return 1;
    expect("a second open", open_disk(disk) < 0 && errno == EBUSY);
    expect("read", read(fd, &failures, 1) < 0);
    ctl = try_map(fd, BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_CTL), 4096, PROT_READ, MAP_SHARED);
    expect("ctl", ctl != MAP_FAILED && ctl->magic == BLKFERRY_CTL_MAGIC);
    region(fd, BLKFERRY_REGION_CTL, 4096, "ctl");
    region(fd, BLKFERRY_REGION_DESC, (uint64_t)ctl->desc_count * 64, "desc");
    region(fd, BLKFERRY_REGION_DATA, ctl->data_bytes, "data");
    map_bytes = (ctl->map_bytes + 4095) & ~4095ULL;
    region(fd, BLKFERRY_REGION_SNAP, map_bytes, "snap");
    p = try_map(fd, BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_CONS), 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
    expect("cons", p != MAP_FAILED);
    expect("cons beyond", try_map(fd, BLKFERRY_MMAP_OFFSET(1), 8192, PROT_READ, MAP_SHARED) == MAP_FAILED);
    expect("no region 5", try_map(fd, BLKFERRY_MMAP_OFFSET(5), 4096, PROT_READ, MAP_SHARED) == MAP_FAILED);
    expect("no region 255", try_map(fd, BLKFERRY_MMAP_OFFSET(255), 4096, PROT_READ, MAP_SHARED) == MAP_FAILED);
    printf("abuse: failures=%d\n", failures);
    return failures ? 1 : 0;
}

int abuse_tail(uint32_t disk, uint64_t tail, int relative)
{
    int fd = open_disk(disk);
    const struct blkferry_ctl *ctl;
    struct blkferry_cons *cons;

    if (fd < 0) {
        perror("open");
        return 1;
    }
    ctl = try_map(fd, BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_CTL), 4096, PROT_READ, MAP_SHARED);
    cons = try_map(fd, BLKFERRY_MMAP_OFFSET(BLKFERRY_REGION_CONS), 4096, PROT_READ | PROT_WRITE, MAP_SHARED);
    if (ctl == MAP_FAILED || cons == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    __atomic_store_n(&cons->tail, relative ? ctl->head + tail : tail, __ATOMIC_RELEASE);
    return 0;
}
