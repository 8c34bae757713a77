// SPDX-License-Identifier: GPL-2.0-only
/* Ranges against a disk's size, by brute force on a small disk and at the ends of 64 bits. */
#include "core/extent.h"
#include "model.h"

static void brute(u64 end, u32 shift)
{
    u64 sector, nr, block, blocks = ((end - 1) >> shift) + 1;

    for (sector = 0; sector < end; sector++) {
        for (nr = 1; nr <= end - sector; nr++) {
            u64 opast, ipast;
            u64 ofirst = bf_extent_outer(sector, nr, shift, &opast);
            u64 ifirst = bf_extent_inner(sector, nr, end, shift, &ipast);

            for (block = 0; block < blocks; block++) {
                u64 lo = block << shift, hi = bf_min64((block + 1) << shift, end);
                bool touched = lo < sector + nr && sector < hi;
                bool whole = sector <= lo && hi <= sector + nr;

                CHECK((ofirst <= block && block < opast) == touched);
                CHECK((ifirst <= block && block < ipast) == whole);
            }
        }
    }
}

int main(void)
{
    u64 past;

    brute(64, 3);
    brute(61, 3);
    brute(7, 3);
    CHECK(bf_extent_clip(10, 5, 12) == 2);
    CHECK(bf_extent_clip(12, 5, 12) == 0);
    CHECK(bf_extent_clip(~0ULL, ~0ULL, 12) == 0);
    CHECK(bf_extent_clip(0, ~0ULL, 12) == 12);
    CHECK(bf_extent_valid(0, 12, 12));
    CHECK(!bf_extent_valid(0, 13, 12));
    CHECK(!bf_extent_valid(0, 0, 12));
    CHECK(!bf_extent_valid(12, 1, 12));
    CHECK(!bf_extent_valid(1, ~0ULL, 12));
    CHECK(!bf_extent_valid(~0ULL, 2, ~0ULL));
    /* beyond 2 TiB */
    CHECK(bf_extent_outer(1ULL << 33, 8, 3, &past) == 1ULL << 30 && past == (1ULL << 30) + 1);
    CHECK(bf_extent_shift(1ULL << 35, 3, 1ULL << 32) == 3);
    CHECK(bf_extent_shift((1ULL << 35) + 1, 3, 1ULL << 32) == 4);
    CHECK(bf_extent_shift(1, 3, 1) == 3);
    return 0;
}
