/* SPDX-License-Identifier: Apache-2.0 */
/* How large the cache may be, changed while it runs. The evictor finds what is above the limit by itself. */
#include <sys/statvfs.h>

#include "agent/store_internal.h"

uint64_t size_of_setting(const struct store *s, uint64_t bytes)
{
	struct statvfs fs;

	if (bytes)
		return bytes;
	return fstatvfs(s->dir_fd, &fs) == 0 ? (uint64_t)fs.f_blocks * fs.f_frsize / 10 * 9 : 0;
}

static void changed_locked(struct store *s) WD_REQUIRES(s->lock)
{
	s->idle_gen++; /* what was hopeless is not any more */
	s->sample_ns = 0;
	evict_wake_locked(s);
}

void store_set_limit(struct store *s, uint64_t bytes)
{
	wd_lock(&s->lock);
	s->limit = bytes;
	changed_locked(s);
	wd_unlock(&s->lock);
}

void store_set_configured(struct store *s, uint64_t bytes)
{
	bytes = size_of_setting(s, bytes);
	wd_lock(&s->lock);
	s->configured = bytes;
	s->limit = bytes;
	changed_locked(s);
	wd_unlock(&s->lock);
}

void store_set_floor(struct store *s, uint64_t bytes)
{
	wd_lock(&s->lock);
	s->config.free_floor_bytes = bytes;
	changed_locked(s);
	wd_unlock(&s->lock);
}

void store_set_draining(struct store *s, bool is_draining)
{
	wd_lock(&s->lock);
	s->is_draining = is_draining;
	changed_locked(s);
	wd_unlock(&s->lock);
}
