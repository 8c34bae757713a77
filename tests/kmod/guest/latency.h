/* SPDX-License-Identifier: GPL-2.0-only */
/* What the module tells about its own latency, as words name_samples=N name_p50_ns=N name_p99_ns=N name_max_ns=N. */
#ifndef LATENCY_H
#define LATENCY_H

#include "nl.h"

/* The sets of a DISK_GET reply; "not measured" if it has none. */
void show_latency(const struct attrs *a, void *arg);
/* The one set of an INFO reply. */
void show_frozen(const struct attrs *a);

#endif
