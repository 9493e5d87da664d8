/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space: the accounts, and admission.
 *
 *	limit       used + admitted never exceeds it
 *	free floor  the file system keeps that much: free - promised - asked >= floor
 *
 * While there is room an admission is answered on its caller's thread. Otherwise it waits, in order
 * and bounded, for the evictor (store_evict.c). When a whole walk of that found nothing to evict,
 *what waits is refused, and what comes later at once, until some object comes to rest (idle_gen),
 *or for a moment: an open file of a pool becomes reclaimable without a word to us.
 *
 * `promised` is what was admitted when the file system was last asked, and since: it may be written
 * already, and counting it twice for a moment errs on the safe side.
 */
#include "agent/store_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#define QUEUE_MAX 4096
#define SAMPLE_NS (100 * 1000000LL)
#define SAMPLE_BYTES ((uint64_t)64 << 20)

/* ---- accounts ---- */

static void account_release_locked(struct store *s, struct object *o, uint64_t bytes)
	WD_REQUIRES(s->lock)
{
	if (bytes > o->admitted)
		bytes = o->admitted;
	o->admitted -= bytes;
	s->admitted -= bytes;
}

void account_commit_locked(struct store *s, struct object *o, uint64_t bytes)
{
	account_release_locked(s, o, bytes);
	o->charged += bytes;
	s->used += bytes;
}

void account_map_locked(struct store *s, struct object *o)
{
	uint64_t bytes = map_charge(o->nblocks);

	s->admitted -= o->map_admitted;
	o->map_admitted = 0;
	o->charged += bytes;
	s->used += bytes;
}

void account_return_locked(struct store *s, struct object *o)
{
	s->admitted -= o->admitted + o->map_admitted;
	o->admitted = o->map_admitted = 0;
}

/* The directories themselves take a page each. */
static uint64_t usable_locked(const struct store *s) WD_REQUIRES(s->lock)
{
	uint64_t dirs = atomic_load(&s->ndirs) * 4096;

	return s->limit - (dirs < s->limit / 64 ? dirs : s->limit / 64);
}

bool has_room_locked(const struct store *s, uint64_t bytes) WD_REQUIRES(s->lock)
{
	uint64_t taken = s->used + s->admitted, usable = usable_locked(s);

	return taken <= usable && bytes <= usable - taken &&
	       s->free_sample >= s->config.free_floor_bytes + s->promised + bytes;
}

/* What an admission takes: the first one of an object also pays for its map. */
static uint64_t map_part(const struct object *o)
{
	return o->has_map || o->map_admitted || object_is_complete(o) ? 0 : map_charge(o->nblocks);
}

static void admit_locked(struct store *s, struct object *o, uint64_t bytes) WD_REQUIRES(s->lock)
{
	uint64_t map = map_part(o);

	if (object_is_complete(o))
		return; /* meanwhile: it takes nothing any more */
	o->admitted += bytes;
	o->map_admitted += map;
	s->admitted += bytes + map;
	s->promised += bytes + map;
	s->sampled_since += bytes + map;
}

static bool is_stale_locked(const struct store *s) WD_REQUIRES(s->lock)
{
	return s->sample_ns == 0 || s->sampled_since >= SAMPLE_BYTES ||
	       wd_now_ns() - s->sample_ns > SAMPLE_NS;
}

void admit_sample(struct store *s)
{
	struct statvfs fs;
	bool is_known = fstatvfs(s->dir_fd, &fs) == 0;

	wd_lock(&s->lock);
	s->free_sample = is_known ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
	s->sample_ns = wd_now_ns();
	s->promised = s->admitted;
	s->sampled_since = 0;
	wd_unlock(&s->lock);
}

/* ---- admission ---- */

/* 1: queued, else the answer. */
static int decide_locked(struct store *s, struct object *o, uint64_t bytes, struct admission *a)
	WD_REQUIRES(s->lock)
{
	uint64_t need = bytes + map_part(o);

	if (s->is_stopping || s->is_draining || need > s->limit || s->nqueue >= QUEUE_MAX)
		return -ENOSPC;
	if (s->is_broken) {
		if (wd_now_ns() < s->probe_ns)
			return -ENOSPC;
	} else if (!s->queue && has_room_locked(s, need)) {
		admit_locked(s, o, bytes);
		return 0;
	} else if (s->hopeless_gen == s->idle_gen && wd_now_ns() < s->hopeless_until_ns) {
		return -ENOSPC;
	}
	*s->queue_tail = a;
	s->queue_tail = &a->next;
	s->nqueue++;
	o->refs++;
	evict_wake_locked(s);
	return 1;
}

void store_admit(struct store *s, struct object *o, uint64_t bytes,
	void (*cb)(void *arg, int status), void *arg)
{
	struct admission *a;
	bool is_stale;
	int rc;

	wd_lock(&s->lock);
	is_stale = is_stale_locked(s);
	wd_unlock(&s->lock);
	if (is_stale)
		admit_sample(s);
	a = malloc(sizeof(*a));
	rc = a ? 0 : -ENOSPC;
	if (a) {
		*a = (struct admission){NULL, o, bytes, cb, arg};
		wd_lock(&s->lock);
		rc = decide_locked(s, o, bytes, a);
		if (rc < 0) {
			s->refused_admissions++;
			s->refused_bytes += bytes;
		}
		wd_unlock(&s->lock);
	}
	if (rc == 1)
		return;
	free(a);
	cb(arg, rc);
}

void store_unadmit(struct store *s, struct object *o, uint64_t bytes)
{
	wd_lock(&s->lock);
	account_release_locked(s, o, bytes);
	wd_unlock(&s->lock);
}

uint64_t store_room(struct store *s)
{
	uint64_t taken, usable, room = 0, kept;

	wd_lock(&s->lock);
	taken = s->used + s->admitted + s->limit / 64;
	usable = usable_locked(s);
	kept = s->config.free_floor_bytes + s->promised;
	if (!s->is_broken && !s->is_draining && taken < usable && s->free_sample > kept)
		room = usable - taken < s->free_sample - kept ? usable - taken : s->free_sample - kept;
	wd_unlock(&s->lock);
	return room;
}

/* ---- for the evictor ---- */

static void answer(struct admission *a, int status)
{
	a->cb(a->arg, status);
	object_unref(a->o);
	free(a);
}

static struct admission *pop_locked(struct store *s) WD_REQUIRES(s->lock)
{
	struct admission *a = s->queue;

	s->queue = a->next;
	if (!s->queue)
		s->queue_tail = &s->queue;
	s->nqueue--;
	return a;
}

void admit_refuse_all(struct store *s)
{
	struct admission *a, *next;

	/* only what waits now: what comes while these are answered may fare better */
	wd_lock(&s->lock);
	a = s->queue;
	s->queue = NULL;
	s->queue_tail = &s->queue;
	s->nqueue = 0;
	for (struct admission *i = a; i; i = i->next) {
		s->refused_admissions++;
		s->refused_bytes += i->bytes;
	}
	wd_unlock(&s->lock);
	for (; a; a = next) {
		next = a->next;
		answer(a, -ENOSPC);
	}
}

bool admit_first(struct store *s, uint64_t *ret_need)
{
	struct admission *a = NULL;

	wd_lock(&s->lock);
	*ret_need = s->queue->bytes + map_part(s->queue->o);
	if (has_room_locked(s, *ret_need)) {
		a = pop_locked(s);
		admit_locked(s, a->o, a->bytes);
	}
	wd_unlock(&s->lock);
	if (a)
		answer(a, 0);
	return a != NULL;
}
