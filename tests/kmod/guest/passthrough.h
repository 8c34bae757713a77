/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PASSTHROUGH_H
#define PASSTHROUGH_H

#include <stdint.h>

/* Writes one block of 512 bytes (all 0xa5) with a SCSI command. Returns 0, or 1 and prints why. */
int passthrough_write(const char *path, uint32_t block);

#endif
