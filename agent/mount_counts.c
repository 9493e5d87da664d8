/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mount's servers count in the shared tables (common/mountmem.h), added to the agent's metrics when
 * these are read, and for the last time when the mount ends. A server that lies spoils these counts, which
 * nothing is decided by; a count that runs backwards is believed when it has caught up.
 */
#include "agent/metrics.h"
#include "agent/mount.h"

static const enum metric metrics[WD_MM_COUNTS] = {
	[WD_MM_PASSTHROUGH_OPENS] = METRIC_OPENS_PASSTHROUGH,
	[WD_MM_PASSTHROUGH_BYTES] = METRIC_READ_LOCAL,
	[WD_MM_CACHED_OPENS] = METRIC_OPENS_CACHED,
	[WD_MM_READ_BYTES] = METRIC_SERVER_READ_BYTES,
};

static _Atomic uint64_t totals[WD_MM_COUNTS]; /* of all mounts that were */

/* What is opened by passthrough without a question is in the cache in whole. */
static void count(enum wd_mm_count what, uint64_t n)
{
	metric_add(metrics[what], n);
	atomic_fetch_add(&totals[what], n);
	if (what == WD_MM_PASSTHROUGH_OPENS)
		metric_add(METRIC_HITS, n);
	else if (what == WD_MM_PASSTHROUGH_BYTES)
		metric_add(METRIC_HIT_BYTES, n);
}

void mount_counts_begin(struct mount *mnt)
{
	for (int i = 0; i < WD_MM_COUNTS; i++)
		atomic_store(&mnt->counted[i], wd_mm_counted(&mnt->mm, i));
}

void mount_counts_take(struct mount *mnt)
{
	for (int i = 0; i < WD_MM_COUNTS; i++) {
		uint64_t now = wd_mm_counted(&mnt->mm, i), before = atomic_load(&mnt->counted[i]);

		/* who exchanges it adds the difference: two pages may be asked for at once */
		if (now > before && atomic_compare_exchange_strong(&mnt->counted[i], &before, now))
			count(i, now - before);
	}
}

void mount_count_open(struct mount *mnt, uint64_t size)
{
	atomic_fetch_add_explicit(&mnt->opened, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&mnt->passthrough_bytes, size, memory_order_relaxed);
}

void mounts_counts_take(struct agent *a)
{
	wd_lock(&a->lock);
	for (struct mount *mnt = a->mounts; mnt; mnt = mnt->next)
		mount_counts_take(mnt);
	wd_unlock(&a->lock);
}

uint64_t mounts_counted(enum wd_mm_count count)
{
	return atomic_load(&totals[count]);
}
