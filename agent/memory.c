/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of hash tables and of metadata that is to be written: needed in the middle of changes that
 * cannot be taken back, many of them under a lock, so that an error has nowhere to go. Memory that is
 * short for a moment is waited for; an agent for which it stays short is of no use to anybody and
 * better started anew.
 */
#include "agent/memory.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/log.h"

#define TRIES 100
#define WAIT_US 50000

void *alloc_patiently(size_t size)
{
	for (int i = 0; i < TRIES; i++) {
		void *p = malloc(size);

		if (p)
			return p;
		usleep(i == 0 ? 0 : WAIT_US);
	}
	wd_error("no memory for %zu bytes; the agent ends", size);
	abort();
}
