/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From disk to memory: an object at its first reference, and the sums of the whole cache at start.
 *
 * An object that is being loaded is busy: nobody else looks at it, and its files are read without a
 * lock. What does not fit together (no file, another size, a damaged map) begins empty and is said
 * once; it costs a fetch, never a wrong byte. What is of an older era, or has no record, is suspect
 * (store_suspect.c).
 *
 * At start the records are summed up. Only the maps of objects that were being written when the
 * agent was killed are read, to know what they take; no directory is.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define SETTLE_MAX 4096 /* maps read at start; the rest when they are next used */

/* The object is busy: nobody else looks at it. */
static void mark_loaded(void *arg, uint32_t block, uint64_t hash) WD_NO_ANALYSIS
{
	object_mark_locked(arg, block, hash);
}

static void suspect_loaded(void *arg, uint32_t block, uint64_t hash)
{
	struct object *o = arg;

	/* out of memory: the block is fetched anew */
	(void)suspect_add(o, block, hash);
}

static uint64_t present_charge(struct object *o)
{
	uint64_t sum = map_charge(o->nblocks);

	for (uint32_t i = 0; i < o->nblocks; i++)
		if (object_has_block(o, i) || suspect_has(o, i))
			sum += block_charge(o, i);
	return sum;
}

/* The bits from the map, as present or as suspect; -ENOENT when there is none that fits. */
static int load_map(struct object *o, bool is_trusted)
{
	wd_autoclose int fd = file_open(o->store, &o->id, ".map", O_RDWR);
	int rc;

	if (fd == -EROFS)
		fd = file_open(o->store, &o->id, ".map", O_RDONLY);
	if (fd < 0)
		return fd;
	rc = map_check_header(fd, &o->id, o->size);
	if (rc == 0)
		rc = map_load(fd, &o->id, o->nblocks, is_trusted ? mark_loaded : suspect_loaded, o);
	return rc == -EILSEQ ? -ENOENT : rc;
}

/* The map has less than the record: its pages were lost, or zeroed, which looks like absent blocks. */
static bool lacks_blocks(const struct object *o, const struct record *rec)
{
	uint64_t had = rec->flags & RECORD_COMPLETE ? rec->size : rec->present;

	return atomic_load(&o->present) + atomic_load(&o->suspect_bytes) < had;
}

/* What is on disk is of no use: the object begins empty. */
static void load_nothing(struct object *o, const struct record *rec)
{
	struct store *s = o->store;
	_Atomic uint64_t *bits = atomic_load(&o->bits);

	(void)file_unlink(s, &o->id);
	for (uint32_t i = 0; bits && i < (o->nblocks + 63) / 64; i++)
		atomic_store(&bits[i], 0);
	atomic_store(&o->present, 0);
	for (uint32_t i = 0; i < o->nblocks && object_is_suspect(o); i++) {
		wd_lock(&o->lock);
		suspect_clear_locked(o, i);
		wd_unlock(&o->lock);
	}
	if (!rec)
		return;
	store_tell_damage(s, &o->id, "its files are missing, cut or damaged: it is fetched anew");
	record_delete(s->meta, &o->id, &rec->use);
	wd_lock(&s->lock);
	s->used -= rec->charged;
	s->nobjects--;
	pin_gone_locked(s, rec);
	evict_removed(s->policy, &o->id, rec->size, false);
	wd_unlock(&s->lock);
}

/* `charged` is what the accounts had before. */
static void load_done(struct object *o, const struct record *rec, uint64_t charged, uint32_t flags)
{
	struct store *s = o->store;

	wd_lock(&s->lock);
	wd_lock(&o->lock);
	o->is_created = true;
	o->is_recorded = rec != NULL;
	o->has_map = (flags & RECORD_HAS_MAP) != 0;
	o->is_marked = (flags & RECORD_IN_USE) != 0;
	o->era = rec ? rec->era : UINT64_MAX;
	o->pin = rec ? record_pin(s, rec) : STORE_UNPINNED; /* counted at start */
	if (rec)
		o->use = o->recorded_use = rec->use;
	else
		store_touch_locked(s, o);
	o->charged = charged;
	s->used += charged - (rec ? rec->charged : 0);
	if (flags & RECORD_COMPLETE)
		atomic_store(&o->is_complete, true);
	else if (atomic_load(&o->present) == o->size)
		object_complete_locked(s, o);
	else if (!rec)
		record_write_locked(s, o);
	else
		o->is_dirty = charged != rec->charged;
	wd_unlock(&o->lock);
	wd_unlock(&s->lock);
}

/* Every block as the map says. `rec` NULL: adopt what a kill left without its record. */
static int load_blocks(struct object *o, const struct record *rec, bool is_trusted)
{
	struct store *s = o->store;
	int rc = object_alloc_bits(o);
	bool is_torn;

	if (rc < 0)
		return rc;
	rc = rec && rec->size != o->size ? -ENOENT : 0;
	if (rc == 0 && rec && (rec->flags & RECORD_COMPLETE)) {
		/* complete, trusted, and yet here: the file is not what it should be */
		if (is_trusted || !file_has_size(s, &o->id, o->size))
			rc = -ENOENT;
		else if (o->nblocks <= SMALL_BLOCKS && !(rec->flags & RECORD_HAS_MAP))
			rc = map_remake(o, UINT32_MAX, rec->hashes);
	}
	if (rc == 0)
		rc = load_map(o, is_trusted);
	if (rc == -ENOMEM)
		return rc;
	is_torn = rc == -EUCLEAN || (rc == 0 && rec && lacks_blocks(o, rec));
	if (rc == -EUCLEAN)
		rc = 0;
	if (is_torn && file_has_size(s, &o->id, o->size))
		store_tell_damage(s, &o->id, "its map is torn: the blocks that it lacks are fetched anew");
	if (rc == 0 && file_has_size(s, &o->id, o->size))
		load_done(o, rec, present_charge(o),
			RECORD_HAS_MAP | (rec ? rec->flags & RECORD_IN_USE : 0));
	else if (rc != -ENOENT || rec)
		load_nothing(o, rec);
	return 0;
}

int object_load(struct object *o)
{
	struct store *s = o->store;
	struct record rec;
	int found = record_read(s->meta, &o->id, &rec);
	bool is_trusted = found == 0 && rec.era == meta_era(s->meta);

	if (found == 0 && (rec.flags & RECORD_COMPLETE) && rec.size == o->size &&
		(is_trusted || o->size == 0) && file_has_size(s, &o->id, o->size)) {
		memcpy(o->hashes, rec.hashes, sizeof(rec.hashes));
		atomic_store(&o->present, o->size);
		load_done(o, &rec, rec.charged, rec.flags);
		return 0;
	}
	if (o->size == 0 && found != 0)
		return 0;
	if (found < 0 && found != -ENOENT)
		return object_alloc_bits(o); /* unknown: empty, until the metadata works again */
	return load_blocks(o, found == 0 ? &rec : NULL, is_trusted);
}

/* ---- the whole cache, at start ---- */

struct totals {
	const struct store *store;
	uint64_t used, nobjects, pinned[STORE_PINS], last_seq;
	struct unsettled {
		struct object_id id;
		uint64_t size;
	} unsettled[SETTLE_MAX];
	unsigned nunsettled;
};

static bool add_record(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct totals *t = arg;
	struct record rec;

	if (key_len != sizeof(struct object_id) || !record_decode(value, len, &rec))
		return true;
	t->used += rec.charged;
	t->nobjects++;
	t->pinned[record_pin(t->store, &rec)] += rec.size;
	if (rec.use.seq > t->last_seq)
		t->last_seq = rec.use.seq;
	if ((rec.flags & RECORD_IN_USE) && t->nunsettled < SETTLE_MAX) {
		struct unsettled *u = &t->unsettled[t->nunsettled++];

		memcpy(&u->id, key, key_len);
		u->size = rec.size;
	}
	return true;
}

int store_load_totals(struct store *s, struct wd_err *err)
{
	wd_autofree struct totals *t = calloc(1, sizeof(*t));
	int rc = -ENOMEM;

	if (t) {
		t->store = s;
		rc = meta_scan(s->meta, META_OBJECTS, NULL, 0, add_record, t);
	}
	if (rc < 0)
		return wd_err_sys(err, -rc, "read the records of cache '%s'", s->dir);
	wd_lock(&s->lock);
	s->used = t->used;
	s->nobjects = t->nobjects;
	memcpy(s->pinned, t->pinned, sizeof(s->pinned));
	s->use_seq = t->last_seq;
	wd_unlock(&s->lock);
	/* loading one corrects its charge, letting it go records that */
	for (unsigned i = 0; i < t->nunsettled; i++) {
		struct object *o;

		if (store_get(s, &t->unsettled[i].id, t->unsettled[i].size, &o, NULL) == 0)
			object_unref(o);
	}
	if (t->nobjects > 0)
		return 0;
	rc = file_probe(s);
	if (rc == -ENOSPC || rc == -EDQUOT)
		return wd_err_set(err, -rc,
			"cache directory '%s': the file system is full: make room or take another "
			"directory",
			s->dir);
	return rc < 0 ? wd_err_sys(err, -rc, "write to cache directory '%s'", s->dir) : 0;
}
