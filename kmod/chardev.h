/* SPDX-License-Identifier: GPL-2.0-only */
/* The character device of a disk: mappings and poll. */
#ifndef BF_CHARDEV_H
#define BF_CHARDEV_H

struct bf_disk;

int bf_chardev_init(void);
void bf_chardev_exit(void);
int bf_chardev_add(struct bf_disk *d);
void bf_chardev_del(struct bf_disk *d);

#endif /* BF_CHARDEV_H */
