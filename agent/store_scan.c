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
		.configured_bytes = s->configured,
		.is_draining = s->is_draining,
		.free_bytes = free_bytes,
		.objects = s->nobjects,
		.evicted_objects = s->evicted_objects,
		.evicted_bytes = s->evicted_bytes,
		.refused_admissions = s->refused_admissions,
		.refused_bytes = s->refused_bytes,
		.policy = s->config.policy,
		.ruler = evict_ruler(s->policy),
		.pinned_bytes = s->pinned[STORE_PIN_SETTING] + s->pinned[STORE_PIN_ASKED],
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

uint64_t store_last_used(struct store *s, const struct object_id *id)
{
	uint64_t seconds = 0;
	struct record rec;
	struct object *o;

	wd_lock(&s->lock);
	o = store_find_locked(s, id);
	if (o && o->is_recorded)
		seconds = o->use.seconds;
	wd_unlock(&s->lock);
	return !o && record_read(s->meta, id, &rec) == 0 ? rec.use.seconds : seconds;
}

/* Bytes present of the blocks from first on. */
static uint64_t count_blocks(const struct object *o, _Atomic uint64_t *bits, uint32_t first, uint32_t end)
{
	uint64_t sum = 0;

	for (uint32_t b = first; b < end;) {
		uint32_t n = end - b < 64 - b % 64 ? end - b : 64 - b % 64;
		uint64_t mask = (n == 64 ? ~(uint64_t)0 : ((uint64_t)1 << n) - 1) << (b % 64);
		uint64_t word = atomic_load_explicit(&bits[b / 64], memory_order_relaxed) & mask;

		sum += (uint64_t)__builtin_popcountll(word) * WD_BLOCK_SIZE;
		if (b + n == o->nblocks && word >> ((o->nblocks - 1) % 64) & 1)
			sum -= WD_BLOCK_SIZE - block_len(o, o->nblocks - 1);
		b += n;
	}
	return sum;
}

/* 0: it has no bits to be looked at. The lock is held for the counting of one bit per block. */
static unsigned peek_bits(struct store *s, const struct object_id *id, uint64_t size,
	uint64_t ret_present[STORE_PIECES], uint64_t *ret_piece)
{
	uint32_t nblocks = wd_nblocks(size), per = nblocks / STORE_PIECES + (nblocks % STORE_PIECES != 0);
	_Atomic uint64_t *bits = NULL;
	struct object *o;
	unsigned n = 0;

	wd_lock(&s->lock);
	o = store_find_locked(s, id);
	if (o && !o->is_busy && o->size == size && !atomic_load(&o->is_complete) && !atomic_load(&o->suspect_bytes))
		bits = atomic_load(&o->bits);
	for (uint32_t b = 0; bits && b < nblocks; b += per)
		ret_present[n++] = count_blocks(o, bits, b, nblocks - b < per ? nblocks : b + per);
	wd_unlock(&s->lock);
	*ret_piece = (uint64_t)per * WD_BLOCK_SIZE;
	return n;
}

unsigned store_peek_pieces(struct store *s, const struct object_id *id, uint64_t size,
	uint64_t ret_present[STORE_PIECES], uint64_t *ret_piece)
{
	unsigned n = size > WD_BLOCK_SIZE ? peek_bits(s, id, size, ret_present, ret_piece) : 0;

	if (n > 0)
		return n;
	*ret_piece = size;
	store_peek(s, id, size, &ret_present[0]);
	return 1;
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
