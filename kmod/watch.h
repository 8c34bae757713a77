/* SPDX-License-Identifier: GPL-2.0-only */
/* What is looked at from time to time while a disk is attached. */
#ifndef BF_WATCH_H
#define BF_WATCH_H

void bf_watch_start(void);
void bf_watch_stop(void);

#endif /* BF_WATCH_H */
