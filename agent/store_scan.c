/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at the store as a whole: numbers, and every object in the order of last use. For status
 * and tests; takes its time.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "common/cleanup.h"

void store_get_stats(struct store *s, struct store_stats *ret_stats)
{
	struct statvfs fs;
	uint64_t free_bytes =
		fstatvfs(s->dir_fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;

	wd_lock(&s->lock);
	*ret_stats = (struct store_stats){.used_bytes = s->used,
		.admitted_bytes = s->admitted,
		.limit_bytes = s->limit,
		.free_bytes = free_bytes,
		.objects = s->nobjects,
		.evicted_objects = s->evicted_objects,
		.evicted_bytes = s->evicted_bytes,
		.refused_admissions = s->refused_admissions,
		.refused_bytes = s->refused_bytes,
		.policy = s->config.policy,
		.ruler = evict_ruler(s->policy),
		.pinned_bytes = s->pinned,
		.refused_pins = s->refused_pins,
		.io_errors = s->io_errors,
		.checked_blocks = atomic_load(&s->checked_blocks),
		.corrupt_blocks = atomic_load(&s->corrupt_blocks),
		.damaged_objects = atomic_load(&s->damaged_objects),
		.is_broken = s->is_broken};
	memcpy(ret_stats->evictions, s->evictions, sizeof(s->evictions));
	evict_get_shadow_stats(s->policy, &ret_stats->shadows);
	wd_unlock(&s->lock);
}

struct scan_page {
	unsigned char keys[256][LRU_KEY_LEN];
	unsigned n;
};

static bool collect_key(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct scan_page *page = arg;

	if (key_len == LRU_KEY_LEN)
		memcpy(page->keys[page->n++], key, key_len);
	return page->n < 256;
}

int store_scan(struct store *s, store_visit visit, void *arg)
{
	wd_autofree struct scan_page *page = malloc(sizeof(*page));
	unsigned char from[LRU_KEY_LEN + 1] = {0};
	size_t from_len = 0;

	if (!page)
		return -ENOMEM;
	store_write_touches(s);
	do {
		int rc;

		page->n = 0;
		rc = meta_scan(s->meta, META_LRU, from, from_len, collect_key, page);
		if (rc < 0)
			return rc;
		for (unsigned i = 0; i < page->n; i++) {
			struct last_use use;
			struct object_id id;
			struct record rec;
			uint64_t present;

			lru_key_parse(page->keys[i], &use, &id);
			if (record_read(s->meta, &id, &rec) < 0)
				continue;
			store_peek(s, &id, rec.size, &present);
			if (!visit(arg, &id, rec.size, present))
				return 0;
		}
		if (page->n > 0)
			memcpy(from, page->keys[page->n - 1], LRU_KEY_LEN);
		from_len = LRU_KEY_LEN + 1; /* just behind the last one */
	} while (page->n == 256);
	return 0;
}
