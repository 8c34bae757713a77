/* SPDX-License-Identifier: GPL-2.0-only */
/* What happens to a write at submit. */
#ifndef BF_CAPTURE_H
#define BF_CAPTURE_H

#include "compat/compat.h"

BF_TP_BIO_QUEUE(bf_probe_bio_queue);
BF_TP_RQ_ISSUE(bf_probe_rq_issue);

#endif /* BF_CAPTURE_H */
