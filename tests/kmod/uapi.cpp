// SPDX-License-Identifier: GPL-2.0-only
#include "blkferry.h"

typedef struct blkferry_ctl kmod_uapi_cpp_used;
