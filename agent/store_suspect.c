/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Suspect blocks: the map says that they are on disk, but the machine went down before that was synced
 * (their record is of an older era), or nothing but the map vouches for them (an adopted file).
 *
 *	record of this era ─► present          older, or no record ─► suspect ─ check ─┬─► present
 *	                                                                               └─► absent
 *
 * A suspect block is charged like a present one and is shown to nobody: readers ask for it, and it is
 * checked before it is fetched. An object with suspect blocks always has a map, and is partial: it gets
 * passthrough again when the last one was checked. Its record keeps the older era until then, so that
 * nothing is forgotten by another restart.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "common/cleanup.h"

bool object_is_suspect(const struct object *o)
{
	return atomic_load_explicit(&o->suspect_bytes, memory_order_acquire) != 0;
}

int suspect_add(struct object *o, uint32_t block, uint64_t hash)
{
	uint64_t mask = (uint64_t)1 << (block % 64);

	wd_lock(&o->lock);
	if (!o->suspect)
		o->suspect = calloc(o->nblocks / 64 + 1, sizeof(*o->suspect));
	if (o->suspect && !(o->suspect[block / 64] & mask)) {
		o->suspect[block / 64] |= mask;
		atomic_fetch_add(&o->suspect_bytes, block_len(o, block));
		if (o->nblocks <= SMALL_BLOCKS)
			o->hashes[block] = hash;
	}
	wd_unlock(&o->lock);
	return o->suspect ? 0 : -ENOMEM;
}

bool suspect_has_locked(const struct object *o, uint32_t block)
{
	return o->suspect && (o->suspect[block / 64] >> (block % 64) & 1);
}

bool suspect_has(struct object *o, uint32_t block)
{
	bool has;

	if (!object_is_suspect(o))
		return false;
	wd_lock(&o->lock);
	has = suspect_has_locked(o, block);
	wd_unlock(&o->lock);
	return has;
}

bool suspect_clear_locked(struct object *o, uint32_t block)
{
	if (!suspect_has_locked(o, block))
		return false;
	o->suspect[block / 64] &= ~((uint64_t)1 << (block % 64));
	atomic_fetch_sub(&o->suspect_bytes, block_len(o, block));
	return true;
}

int suspect_give_up(struct object *o, uint64_t offset, uint64_t len)
{
	struct store *s = o->store;
	wd_autoclose int map = -1;

	if (len == 0)
		return 0;
	for (uint32_t block = (uint32_t)(offset / WD_BLOCK_SIZE);
		block <= (offset + len - 1) / WD_BLOCK_SIZE; block++) {
		int rc;

		if (!suspect_has(o, block))
			continue;
		/* on disk first: a map that vouches for half-written bytes would be believed later */
		if (map < 0)
			map = file_open(s, &o->id, ".map", O_RDWR);
		rc = map < 0 ? map : map_clear(map, block);
		if (rc < 0)
			return store_io_error(s, -rc, "write a map file");
		wd_lock(&s->lock);
		wd_lock(&o->lock);
		if (suspect_clear_locked(o, block)) {
			o->charged -= block_charge(o, block);
			s->used -= block_charge(o, block);
			o->is_dirty = true;
		}
		wd_unlock(&o->lock);
		wd_unlock(&s->lock);
	}
	return 0;
}
