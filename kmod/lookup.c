// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of disks, twice: by id for the control side, by gendisk for the
 * probes (open addressing, read without a lock).  Changed under bf_admin_sem
 * held exclusively.
 */
#include "disk.h"

struct bf_disk __rcu *bf_lookup_table[BF_LOOKUP_SLOTS];

/* Marks a slot that was used; no gendisk has this address. */
struct bf_disk bf_lookup_tomb = { .gd = (struct gendisk *)-1L };

static struct bf_disk *bf_disks[BLKFERRY_DISKS_MAX];
static u32 bf_disks_nr;

DECLARE_RWSEM(bf_admin_sem);

/* Under bf_admin_sem. */
struct bf_disk *bf_lookup_id(u32 id)
{
	return id < BLKFERRY_DISKS_MAX ? bf_disks[id] : NULL;
}

/* Under bf_admin_sem. */
bool bf_lookup_attached(const struct gendisk *gd)
{
	u32 i;

	for (i = 0; i < BLKFERRY_DISKS_MAX; i++)
		if (bf_disks[i] && bf_disks[i]->gd == gd)
			return true;
	return false;
}

/* The lowest free id, or -ENOSPC. */
int bf_lookup_new_id(void)
{
	u32 i;

	for (i = 0; i < BLKFERRY_DISKS_MAX; i++)
		if (!bf_disks[i])
			return i;
	return -ENOSPC;
}

u32 bf_lookup_count(void)
{
	return bf_disks_nr;
}

static struct bf_disk *bf_slot(u32 i)
{
	return rcu_dereference_protected(bf_lookup_table[i], lockdep_is_held(&bf_admin_sem));
}

/*
 * From now on probes find the disk.  A tomb may be taken over: whoever removed
 * its disk has waited for all probes.
 */
int bf_lookup_add(struct bf_disk *d)
{
	u32 i = hash_ptr(d->gd, BF_LOOKUP_SHIFT);
	u32 n;

	if (bf_disks_nr == BLKFERRY_DISKS_MAX)
		return -ENOSPC;
	for (n = 0; n < BF_LOOKUP_SLOTS; n++) {
		if (!bf_slot(i) || bf_slot(i) == &bf_lookup_tomb)
			break;
		i = (i + 1) & (BF_LOOKUP_SLOTS - 1);
	}
	if (WARN_ON_ONCE(n == BF_LOOKUP_SLOTS))
		return -ENOSPC;
	bf_disks[d->id] = d;
	bf_disks_nr++;
	rcu_assign_pointer(bf_lookup_table[i], d);
	return 0;
}

/* Probes that start later do not find the disk; the caller waits for the others. */
void bf_lookup_del_gd(struct bf_disk *d)
{
	u32 i;

	for (i = 0; i < BF_LOOKUP_SLOTS; i++) {
		if (bf_slot(i) != d)
			continue;
		rcu_assign_pointer(bf_lookup_table[i], &bf_lookup_tomb);
		/* tombs before an empty slot serve nobody */
		while (!bf_slot((i + 1) & (BF_LOOKUP_SLOTS - 1)) && bf_slot(i) == &bf_lookup_tomb) {
			RCU_INIT_POINTER(bf_lookup_table[i], NULL);
			i = (i - 1) & (BF_LOOKUP_SLOTS - 1);
		}
		return;
	}
}

void bf_lookup_del_id(struct bf_disk *d)
{
	bf_disks[d->id] = NULL;
	bf_disks_nr--;
}
