/* SPDX-License-Identifier: GPL-2.0-only */
/* What happens to a write at completion. */
#ifndef BF_COMPLETE_H
#define BF_COMPLETE_H

#include "compat/compat.h"
#include "disk.h"
#include "inflight.h"

BF_TP_RQ_COMPLETE(bf_probe_rq_complete);
BF_TP_BIO_COMPLETE(bf_probe_bio_complete);

/* Pass as "why" when no counter of its own applies. */
#define BF_WHY_NONE	BLKFERRY_C_MAX

int bf_complete_init(void);
void bf_end(struct bf_entry *e, enum blkferry_desc_state how, enum blkferry_counter why);
void bf_end_keep(struct bf_entry *e, enum blkferry_desc_state how, enum blkferry_counter why);

#endif /* BF_COMPLETE_H */
