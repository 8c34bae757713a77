// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The module's pure cores, compiled in user space: ring arithmetic, dirty map, extents, overlapping writes.
#include <blkferry.h>
#include <core/dirtymap.h>
#include <core/extent.h>
#include <core/overlap.h>
#include <core/ring.h>
