// SPDX-License-Identifier: Apache-2.0
/*
 * The writer of the cross-disk order oracle.
 *
 *   order A B FILE [PAUSE]    until FILE appears: write n to A, flush; write n to B, flush; n = n + 1; PAUSE microseconds
 *
 * n begins after what B holds, so a second run (after a crash of the machine) goes on in order.
 * So at every moment, on stable storage: n(B) <= n(A) <= n(B) + 1. Prints how many rounds it made.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int put(int fd, void *block, unsigned long n)
{
	memset(block, 0, 4096);
	snprintf(block, 64, "blkferry-order %lu\n", n);
	if (pwrite(fd, block, 4096, 0) != 4096 || fsync(fd) != 0) {
		perror("order");
		return -1;
	}
	return 0;
}

/* The number in B's block; 0 if it has none. */
static unsigned long last(int fd, char *block)
{
	unsigned long n = 0;

	if (pread(fd, block, 4096, 0) != 4096)
		return 0;
	block[64] = 0;
	return sscanf(block, "blkferry-order %lu\n", &n) == 1 ? n : 0;
}

int main(int argc, char **argv)
{
	unsigned long n;
	void *block;
	int a, b;

	if (argc < 4 || argc > 5 || posix_memalign(&block, 4096, 4096) != 0)
		return 2;
	a = open(argv[1], O_WRONLY | O_DIRECT);
	b = open(argv[2], O_RDWR | O_DIRECT);
	if (a < 0 || b < 0) {
		perror("order: open");
		return 1;
	}
	n = last(b, block);
	do {
		n++;
		if (put(a, block, n) != 0 || put(b, block, n) != 0)
			return 1;
		if (argc == 5)
			usleep(strtoul(argv[4], NULL, 10));
	} while (access(argv[3], F_OK) != 0);
	printf("%lu\n", n);
	return 0;
}
