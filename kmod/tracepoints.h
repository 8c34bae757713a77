/* SPDX-License-Identifier: GPL-2.0-only */
/* Finding the kernel's tracepoints and hooking the probes in. */
#ifndef BF_TRACEPOINTS_H
#define BF_TRACEPOINTS_H

int bf_tracepoints_find(void);
int bf_tracepoints_register(void);
void bf_tracepoints_unregister(void);

#endif /* BF_TRACEPOINTS_H */
