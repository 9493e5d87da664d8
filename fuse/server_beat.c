/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the keeper's PING is answered from. A process that can run its main thread is not yet one
 * that serves: so each thread that receives or answers requests says when it begins to work on
 * something and when it waits for others, and a PING is left unanswered when one of them is at the
 * same work as at the PING before, or when a lock of the server cannot be had.
 *
 * Waiting is no hang: neither for the kernel's next request, nor for a free slot while all are
 * parked, nor for an agent that does not read. Parked requests have no thread at all.
 *
 * One word per thread: it is odd while the thread works, and different for each piece of work.
 * Only its thread writes it.
 */
#include "fuse/server.h"

static _Atomic uint32_t words[BEAT_THREADS];
static _Thread_local _Atomic uint32_t *mine; /* NULL: nobody looks after this thread */

void beat_enter(unsigned thread)
{
	mine = thread < BEAT_THREADS ? &words[thread] : NULL;
}

void beat_work(void)
{
	if (mine)
		atomic_store(mine, (atomic_load(mine) + 1) | 1);
}

void beat_wait(void)
{
	if (mine)
		atomic_store(mine, (atomic_load(mine) | 1) + 1);
}

bool beat_is_alive(void)
{
	static uint32_t seen[BEAT_THREADS];
	bool is_alive = true;

	wd_lock(&server.lock);
	wd_unlock(&server.lock);
	wd_lock(&server.slot_lock);
	wd_unlock(&server.slot_lock);
	for (unsigned i = 0; i < BEAT_THREADS; i++) {
		uint32_t now = atomic_load(&words[i]);

		if ((now & 1) && now == seen[i])
			is_alive = false;
		seen[i] = now;
	}
	return is_alive;
}
