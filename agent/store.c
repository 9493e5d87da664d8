/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store: opening it, the table of objects in memory, references.
 *
 * An object is loaded by its first reference: its record, and while it is partial its map. After
 * the last one it stays on the idle list for a while, so that files opened again and again cost no
 * metadata; its last use is written when it leaves the list, or when somebody needs the order. What
 * changed on disk is recorded at once.
 *
 * At start the records are summed up (used bytes); the maps of objects that were being written when
 * the agent was killed are read again. No directory is read.
 */
#include "agent/store_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "common/log.h"

#define FULL_TOLD_NS (600 * 1000000000LL)

void object_id_make(const void *text, size_t len, struct object_id *ret_id)
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(text, len));
	memcpy(ret_id->b, canonical.digest, sizeof(ret_id->b));
}

void object_id_format(const struct object_id *id, char out[33])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < sizeof(id->b); i++) {
		out[2 * i] = digits[id->b[i] >> 4];
		out[2 * i + 1] = digits[id->b[i] & 15];
	}
	out[32] = '\0';
}

const struct object_id *object_id(const struct object *o)
{
	return &o->id;
}

uint64_t object_size(const struct object *o)
{
	return o->size;
}

/* ---- the table ---- */

struct object *object_new(struct store *s, const struct object_id *id, uint64_t size)
{
	struct object *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->store = s;
	o->id = *id;
	o->size = size;
	o->nblocks = wd_nblocks(size);
	o->data_fd = o->map_fd = o->live_fd = -1;
	atomic_init(&o->is_complete, size == 0);
	wd_mutex_init(&o->lock);
	wd_cond_init(&o->cond);
	return o;
}

static void close_both(const int fds[2])
{
	for (int i = 0; i < 2; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

void object_free(struct object *o)
{
	int fds[2];

	if (!o)
		return;
	object_rest(o, fds);
	close_both(fds);
	free(atomic_load(&o->bits));
	free(o->suspect);
	wd_cond_done(&o->cond);
	wd_mutex_done(&o->lock);
	free(o);
}

struct object *store_find_locked(struct store *s, const struct object_id *id)
{
	struct object *o;

	HASH_FIND(hh, s->table, id, sizeof(*id), o);
	return o;
}

void store_untouch_locked(struct store *s, struct object *o)
{
	if (o->is_touched)
		DL_DELETE2(s->touched, o, tprev, tnext);
	o->is_touched = false;
}

void store_touch_locked(struct store *s, struct object *o)
{
	uint64_t now = (uint64_t)time(NULL);

	/* never backwards within a run, so that seq decides */
	if (now > s->use_seconds)
		s->use_seconds = now;
	o->use = (struct last_use){s->use_seconds, ++s->use_seq};
	if (o->is_touched || !o->is_recorded)
		return;
	DL_APPEND2(s->touched, o, tprev, tnext);
	o->is_touched = true;
}

void store_unidle_locked(struct store *s, struct object *o)
{
	if (!o->is_idle)
		return;
	DL_DELETE(s->idle, o);
	o->is_idle = false;
	s->nidle--;
}

void store_write_touches(struct store *s)
{
	for (bool is_done = false; !is_done;) {
		wd_lock(&s->lock);
		for (int i = 0; i < 64 && s->touched; i++)
			record_write_locked(s, s->touched);
		is_done = !s->touched;
		wd_unlock(&s->lock);
		meta_throttle(s->meta);
	}
}

/* ---- references ---- */

static int load_new(struct store *s, struct object *o, struct wd_err *err)
{
	int rc = object_load(o);

	wd_lock(&s->lock);
	o->is_busy = false;
	if (rc < 0)
		HASH_DEL(s->table, o);
	wd_cond_broadcast(&s->changed);
	wd_unlock(&s->lock);
	meta_throttle(s->meta);
	if (rc == 0)
		return 0;
	object_free(o);
	return wd_err_sys(err, -rc, "load a cached object");
}

int store_get(struct store *s, const struct object_id *id, uint64_t size,
	struct object **ret_object, struct wd_err *err)
{
	struct object *o;
	int rc;

	if (size > (uint64_t)UINT32_MAX * WD_BLOCK_SIZE)
		return wd_err_set(err, EFBIG, "an object of %llu bytes is too large for the cache",
			(unsigned long long)size);
	wd_lock(&s->lock);
	while ((o = store_find_locked(s, id)) != NULL) {
		if (o->is_busy) {
			wd_cond_wait(&s->changed, &s->lock);
			continue;
		}
		if (o->size == size) {
			store_unidle_locked(s, o);
			o->refs++;
			*ret_object = o;
			wd_unlock(&s->lock);
			return 0;
		}
		wd_unlock(&s->lock);
		rc = store_evict(s, id);
		if (rc < 0 && rc != -ENOENT)
			return wd_err_sys(err, -rc, "drop a cached object of another size");
		wd_lock(&s->lock);
	}
	o = object_new(s, id, size);
	if (!o) {
		wd_unlock(&s->lock);
		return wd_err_sys(err, ENOMEM, "load a cached object");
	}
	o->refs = 1;
	o->is_busy = true;
	HASH_ADD(hh, s->table, id, sizeof(o->id), o);
	wd_unlock(&s->lock);
	rc = load_new(s, o, err);
	if (rc == 0)
		*ret_object = o;
	return rc;
}

void store_peek(struct store *s, const struct object_id *id, uint64_t size, uint64_t *ret_present)
{
	struct record rec;
	struct object *o;

	*ret_present = 0;
	wd_lock(&s->lock);
	o = store_find_locked(s, id);
	if (o && (o->is_busy || o->size != size))
		o = NULL;
	if (o)
		*ret_present = object_present_bytes(o);
	wd_unlock(&s->lock);
	if (!o && record_read(s->meta, id, &rec) == 0 && rec.size == size)
		*ret_present = rec.present;
}

struct object *object_ref(struct object *o)
{
	wd_lock(&o->store->lock);
	assert(o->refs > 0);
	o->refs++;
	wd_unlock(&o->store->lock);
	return o;
}

/* Takes an unreferenced object out of memory; the caller frees it without the lock. */
static void drop_locked(struct store *s, struct object *o) WD_REQUIRES(s->lock)
{
	store_unidle_locked(s, o);
	/* a last use may be lost when the metadata is behind: it is only a hint */
	if (o->is_touched && !meta_is_busy(s->meta))
		record_write_locked(s, o);
	store_untouch_locked(s, o);
	if (!o->is_recorded)
		pin_set_locked(s, o, STORE_UNPINNED); /* nothing of it was kept */
	HASH_DEL(s->table, o);
}

static void unref(struct object *o, bool is_use)
{
	struct store *s;
	struct object *gone = NULL;
	bool is_written = false;
	int fds[2];

	if (!o)
		return;
	s = o->store;
	wd_lock(&s->lock);
	assert(o->refs > 0 && o->refs > o->pool_refs);
	if (--o->refs > 0) {
		if (o->refs == o->pool_refs)
			s->idle_gen++;
		wd_unlock(&s->lock);
		return;
	}
	account_return_locked(s, o);
	if (is_use)
		store_touch_locked(s, o);
	if (o->is_recorded && (o->is_dirty || o->is_marked)) {
		record_write_locked(s, o);
		is_written = true;
	}
	object_rest(o, fds);
	s->idle_gen += o->is_recorded;
	o->is_idle = true;
	DL_APPEND(s->idle, o);
	s->nidle++;
	if (!o->is_recorded || o->nblocks > IDLE_NBLOCKS_MAX)
		gone = o;
	else if (s->nidle > IDLE_MAX)
		gone = s->idle;
	if (gone)
		drop_locked(s, gone);
	wd_unlock(&s->lock);
	close_both(fds);
	object_free(gone);
	if (is_written)
		meta_throttle(s->meta);
}

void object_unref(struct object *o)
{
	unref(o, true);
}

void object_unref_quietly(struct object *o)
{
	unref(o, false);
}

void object_pool(struct object *o)
{
	struct store *s = o->store;

	wd_lock(&s->lock);
	assert(o->pool_refs < o->refs);
	o->pool_refs++;
	store_touch_locked(s, o);
	s->idle_gen++;
	wd_unlock(&s->lock);
}

void object_unpool(struct object *o)
{
	wd_lock(&o->store->lock);
	assert(o->pool_refs > 0);
	o->pool_refs--;
	wd_unlock(&o->store->lock);
}

/* ---- errors ---- */

void store_tell_damage(struct store *s, const struct object_id *id, const char *what)
{
	char hex[33];

	atomic_fetch_add(&s->damaged_objects, 1);
	object_id_format(id, hex);
	wd_warn("cache '%s': object %s: %s", s->dir, hex, what);
}

/* A disk that stays full is said again now and then, not at every block. */
static bool is_full_news_locked(struct store *s) WD_REQUIRES(s->lock)
{
	int64_t now = wd_now_ns();

	if (s->full_told_ns && now - s->full_told_ns < FULL_TOLD_NS)
		return false;
	s->full_told_ns = now;
	return true;
}

int store_io_error(struct store *s, int code, const char *what)
{
	bool is_news = false, is_full_news = false;

	wd_lock(&s->lock);
	s->io_errors++;
	if (code == ENOSPC || code == EDQUOT) {
		is_full_news = is_full_news_locked(s);
		s->sample_ns = 0;
		s->shrink_bytes = (uint64_t)8 << 20;
		evict_wake_locked(s);
	} else if (code == EIO || code == EROFS || code == ENXIO || code == EUCLEAN || code == ENOENT ||
		code == ENODEV || code == ESTALE) {
		is_news = !s->is_broken;
		s->is_broken = true;
		if (is_news)
			s->probe_ns = evict_probe_ns(s);
		evict_wake_locked(s);
	}
	wd_unlock(&s->lock);
	if (is_full_news)
		wd_warn("cache '%s': %s: %s; the oldest of the cache makes room", s->dir, what,
			strerror(code));
	if (is_news)
		wd_error("cache '%s': %s: %s; nothing is admitted until the disk works again",
			s->dir, what, strerror(code));
	return -code;
}

/* ---- opening and closing ---- */

static int start(struct store *s, struct wd_err *err)
{
	int rc = file_open_dir(s, err);

	if (rc < 0)
		return rc;
	s->configured = size_of_setting(s, s->config.limit_bytes);
	s->limit = s->configured;
	rc = victim_init(s);
	if (rc == 0)
		rc = store_load_totals(s, err);
	if (rc == 0)
		rc = evict_start(s);
	if (rc == 0 && (rc = check_start(s)) < 0)
		evict_stop(s);
	return rc < 0 && err && err->code == 0 ? wd_err_sys(err, -rc, "start the cache store") : rc;
}

/* Frees what is left in memory. */
static void free_store(struct store *s)
{
	struct object *o, *next;

	HASH_ITER (hh, s->table, o, next) {
		if (o->refs > 0)
			wd_warn("cache '%s': an object was still referenced at the end", s->dir);
		HASH_DEL(s->table, o);
		object_free(o);
	}
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	wd_cond_done(&s->changed);
	wd_cond_done(&s->wake);
	wd_cond_done(&s->check_wake);
	wd_mutex_done(&s->check_lock);
	wd_mutex_done(&s->lock);
	victim_done(s);
	free(s->dir);
	free(s);
}

int store_open(const struct store_config *config, struct meta *meta, struct store **ret_store,
	struct wd_err *err)
{
	struct store *s = calloc(1, sizeof(*s));
	int rc;

	if (!s || !(s->dir = strdup(config->dir))) {
		free(s);
		return wd_err_sys(err, ENOMEM, "open cache '%s'", config->dir);
	}
	s->config = *config;
	s->config.dir = s->dir;
	s->meta = meta;
	s->dir_fd = -1;
	s->queue_tail = &s->queue;
	atomic_init(&s->asked_tag, config->pin_tags[STORE_PIN_ASKED]);
	s->hopeless_gen = UINT64_MAX;
	wd_mutex_init(&s->lock);
	wd_cond_init(&s->changed);
	wd_cond_init(&s->wake);
	wd_mutex_init(&s->check_lock);
	wd_cond_init(&s->check_wake);
	s->checks_tail = &s->checks;
	rc = start(s, err);
	if (rc < 0) {
		free_store(s);
		return rc;
	}
	*ret_store = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	check_stop(s);
	evict_stop(s);
	store_write_touches(s);
	free_store(s);
}
