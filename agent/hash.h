/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HASH_H
#define WD_AGENT_HASH_H
/*
 * uthash with a memory that does not fail at once: left alone, an insertion for which there is no
 * memory ends the process. Include this, never <uthash.h>.
 */
#include "agent/memory.h"

#define uthash_malloc(size) alloc_patiently(size)
#include <uthash.h>

#endif
