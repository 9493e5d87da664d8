/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The evictor thread makes room when admissions wait for it: whole objects that no user references, in
 * the order that the policy says (store_victim.c); those in a pool are asked back first (config.reclaim).
 *
 * It also probes a broken disk, removes the maps of completed small objects once their records are
 * committed (folding), and makes some room when the disk said full. It calls back, reads and
 * removes without locks. Woken by the condition `wake`; stops by is_stopping, refusing what waits.
 */
#include "agent/store_internal.h"

#include <errno.h>

#include "common/log.h"

#define PROBE_INTERVAL_MS 5000
#define HOPELESS_NS (200 * 1000000LL)
#define HEADROOM_FROM ((uint64_t)1 << 30) /* caches from this size on are evicted a bit further */
#define HEADROOM_MAX ((uint64_t)256 << 20)

/* ---- evicting one object ---- */

/* Makes the object at rest this thread's own (busy), or says why not. *ret_o is new when the object
 * is not in memory; use is what the caller believes its last use to be, or NULL. */
static int take(struct store *s, const struct object_id *id, const struct last_use *use,
	struct object **ret_o, bool *ret_is_new)
{
	struct object *o;
	int rc = 0;

	wd_lock(&s->lock);
	o = store_find_locked(s, id);
	*ret_is_new = !o;
	if (o && (o->is_busy || (use && memcmp(&o->use, use, sizeof(*use)) != 0))) {
		rc = -EBUSY; /* or used since: its turn comes later */
	} else if (o && o->refs > 0) {
		rc = o->refs == o->pool_refs ? -EAGAIN : -EBUSY;
	} else if (o) {
		store_unidle_locked(s, o);
		store_untouch_locked(s, o);
		o->is_busy = true;
	} else if ((o = object_new(s, id, 0)) != NULL) {
		o->is_busy = true;
		HASH_ADD(hh, s->table, id, sizeof(o->id), o);
	} else {
		rc = -ENOMEM;
	}
	wd_unlock(&s->lock);
	*ret_o = o;
	return rc;
}

/* Fills in what the record knows about an object that is not in memory. */
static int look_up(struct store *s, struct object *o, const struct last_use *use)
{
	struct record rec;
	int rc = record_read(s->meta, &o->id, &rec);

	if (rc == 0 && use && memcmp(&rec.use, use, sizeof(*use)) != 0) {
		unsigned char key[LRU_KEY_LEN];
		struct meta_op op = {META_LRU, key, LRU_KEY_LEN, NULL, 0};

		/* not its place in the order, or not any more */
		lru_key(use, &o->id, key);
		meta_apply(s->meta, &op, 1);
		return -EBUSY;
	}
	if (rc < 0 && rc != -ENOENT)
		return rc;
	o->is_recorded = rc == 0;
	o->charged = rc == 0 ? rec.charged : 0;
	o->size = rc == 0 ? rec.size : 0;
	o->pin = rc == 0 ? record_pin(s, &rec) : STORE_UNPINNED;
	if (rc == 0)
		o->recorded_use = rec.use;
	else if (use)
		o->recorded_use = *use; /* a place in the order without a record: clean it up */
	return rc == -ENOENT && !use ? -ENOENT : 0;
}

/* Ends what take() began: the object is gone (is_gone), or goes back to where it was. */
static void give_back(struct store *s, struct object *o, bool is_gone, bool is_new, evict_why why)
{
	wd_lock(&s->lock);
	o->is_busy = false;
	if (is_gone) {
		s->used -= o->charged;
		s->nobjects -= o->is_recorded;
		s->sample_ns = 0;
		pin_set_locked(s, o, STORE_UNPINNED);
		victim_gone_locked(s, o, why);
	}
	if (is_gone || is_new) {
		HASH_DEL(s->table, o);
	} else {
		o->is_idle = true;
		DL_APPEND(s->idle, o);
		s->nidle++;
		if (memcmp(&o->use, &o->recorded_use, sizeof(o->use)) != 0)
			store_touch_locked(s, o);
	}
	wd_cond_broadcast(&s->changed);
	wd_unlock(&s->lock);
	if (is_gone || is_new)
		object_free(o);
}

int evict_object(struct store *s, const struct object_id *id, const struct last_use *use,
	evict_why why)
{
	struct object *o;
	bool is_new;
	int rc = take(s, id, use, &o, &is_new);

	if (rc < 0)
		return rc;
	rc = is_new ? look_up(s, o, use) : 0;
	if (rc == 0 && why != EVICT_ASKED && o->pin)
		rc = -EBUSY;
	if (rc == -ENOENT)
		(void)file_unlink(s, id); /* left behind by a kill, perhaps */
	if (rc == 0) {
		/* the files first: a record without files is noticed, files without a record are
		 * not */
		rc = file_unlink(s, id);
		if (rc < 0)
			store_io_error(s, -rc, "remove a cache file");
	}
	if (rc == 0 && (o->is_recorded || use))
		record_delete(s->meta, id, &o->recorded_use);
	give_back(s, o, rc == 0, is_new, why);
	meta_throttle(s->meta);
	return rc;
}

/* Waits while nobody but the fold holds the object. True when it did hold it. */
static bool wait_for_fold(struct store *s, const struct object_id *id)
{
	struct object *o;
	bool is_held;

	if (pthread_equal(pthread_self(), s->evictor))
		return false; /* it would wait for itself */
	wd_lock(&s->lock);
	o = store_find_locked(s, id);
	is_held = o && o->refs == 1 && (o->is_folding || s->is_folding);
	if (is_held) {
		uint64_t seq = s->folded_seq;

		s->fold_ns = 0;
		evict_wake_locked(s);
		while (s->folded_seq == seq)
			wd_cond_wait(&s->changed, &s->lock);
	}
	wd_unlock(&s->lock);
	return is_held;
}

int store_evict(struct store *s, const struct object_id *id)
{
	int rc;

	do
		rc = evict_object(s, id, NULL, EVICT_ASKED);
	while (rc == -EBUSY && wait_for_fold(s, id));
	return rc == -EAGAIN ? -EBUSY : rc;
}

/* ---- making room ---- */

/* Evicts until there is room for bytes. False when a whole walk did not get there. */
static bool make_room(struct store *s, uint64_t bytes)
{
	uint64_t headroom = s->limit >= HEADROOM_FROM ? s->limit / 256 : 0, gen = 0;
	bool is_whole = victim_is_at_start(s); /* this walk is from the beginning */
	bool is_enough, is_first = true;

	if (headroom > HEADROOM_MAX)
		headroom = HEADROOM_MAX;
	victim_note_uses(s);
	for (;;) {
		admit_sample(s);
		victim_set_capacity(s);
		wd_lock(&s->lock);
		is_enough = has_room_locked(s, bytes + headroom);
		if (is_first)
			gen = s->idle_gen; /* what comes to rest from now on may be missed */
		wd_unlock(&s->lock);
		is_first = false;
		if (is_enough)
			return true;
		if (victim_evict(s))
			continue;
		victim_restart(s);
		if (is_whole)
			break;
		is_whole = is_first = true;
	}
	wd_lock(&s->lock);
	is_enough = has_room_locked(s, bytes);
	if (!is_enough) {
		s->hopeless_gen = gen;
		s->hopeless_until_ns = wd_now_ns() + HOPELESS_NS;
	}
	wd_unlock(&s->lock);
	return is_enough;
}

int64_t evict_probe_ns(const struct store *s)
{
	int64_t ms = s->config.probe_interval_ms ? s->config.probe_interval_ms : PROBE_INTERVAL_MS;

	return wd_now_ns() + ms * 1000000;
}

/* True when the disk may be used. At most one write every few seconds finds out. */
static bool probe(struct store *s)
{
	int64_t now = wd_now_ns();
	bool is_due;
	int rc;

	wd_lock(&s->lock);
	if (!s->is_broken) {
		wd_unlock(&s->lock);
		return true;
	}
	is_due = now >= s->probe_ns;
	if (is_due)
		s->probe_ns = evict_probe_ns(s);
	wd_unlock(&s->lock);
	rc = is_due ? file_probe(s) : -EIO;
	if (rc == -ENOENT)
		rc = file_reattach(s);
	if (rc < 0)
		return false;
	wd_lock(&s->lock);
	s->is_broken = false;
	wd_unlock(&s->lock);
	wd_info("cache '%s': the disk works again", s->dir);
	return true;
}

/* Removes maps whose objects are complete, after the records that say so are on disk. */
static void fold(struct store *s)
{
	struct object *o, *next;
	bool is_safe;

	wd_lock(&s->lock);
	o = s->folds;
	s->folds = NULL;
	s->is_folding = o != NULL;
	wd_unlock(&s->lock);
	if (!o)
		return;
	is_safe = meta_flush(s->meta) == 0;
	for (; o; o = next) {
		wd_lock(&s->lock);
		next = o->fold_next;
		wd_unlock(&s->lock);
		if (is_safe)
			object_fold(o);
		wd_lock(&s->lock);
		o->is_folding = false;
		wd_unlock(&s->lock);
		object_unref(o);
	}
	wd_lock(&s->lock);
	s->is_folding = false;
	s->folded_seq++;
	wd_cond_broadcast(&s->changed);
	wd_unlock(&s->lock);
}

/* Nobody asks for room: find out all the same, so that what is said about the disk is true. */
static void probe_idly(struct store *s)
{
	(void)probe(s);
}

/* Answers the first in the queue, or all of it. */
static void serve(struct store *s)
{
	uint64_t need;

	if (!probe(s)) {
		admit_refuse_all(s);
		return;
	}
	admit_sample(s);
	if (admit_first(s, &need))
		return;
	fold(s); /* what waits for that is held by a reference */
	if (!make_room(s, need))
		admit_refuse_all(s);
}

static bool is_over_locked(const struct store *s) WD_REQUIRES(s->lock)
{
	return s->used + s->admitted > s->limit;
}

static void shrink(struct store *s)
{
	uint64_t before, goal;
	bool is_over, is_done;

	wd_lock(&s->lock);
	is_over = is_over_locked(s);
	before = s->evicted_bytes;
	goal = s->shrink_bytes;
	s->shrink_bytes = 0;
	wd_unlock(&s->lock);
	victim_restart(s);
	do {
		wd_lock(&s->lock);
		is_done = s->evicted_bytes - before >= goal;
		wd_unlock(&s->lock);
	} while (!is_done && victim_evict(s));
	if (is_over)
		(void)make_room(s, 0);
}

enum work { WORK_NOTHING, WORK_FOLD, WORK_SERVE, WORK_SHRINK, WORK_PROBE, WORK_SEED, WORK_SWEEP };

/* What to do next; *ret_due: when there will be something without being woken, or INT64_MAX. */
static enum work next_work_locked(struct store *s, int64_t *ret_due) WD_REQUIRES(s->lock)
{
	int64_t now = wd_now_ns();

	*ret_due = INT64_MAX;
	if (s->folds && (s->is_stopping || now >= s->fold_ns))
		return WORK_FOLD;
	if (s->is_stopping)
		return WORK_NOTHING;
	if (s->queue)
		return WORK_SERVE;
	if (s->shrink_bytes || (is_over_locked(s) && s->hopeless_gen != s->idle_gen))
		return WORK_SHRINK;
	if (s->is_broken && now >= s->probe_ns)
		return WORK_PROBE;
	if (s->seed.is_on)
		return WORK_SEED;
	if (s->sweep.is_on && now >= s->sweep.due_ns)
		return WORK_SWEEP;
	if (s->folds)
		*ret_due = s->fold_ns;
	if (s->is_broken && s->probe_ns < *ret_due)
		*ret_due = s->probe_ns;
	if (s->sweep.is_on && s->sweep.due_ns < *ret_due)
		*ret_due = s->sweep.due_ns;
	return WORK_NOTHING;
}

static void *run_evictor(void *arg)
{
	static void (*const jobs[])(struct store *s) = {[WORK_FOLD] = fold,
		[WORK_SERVE] = serve,
		[WORK_SHRINK] = shrink,
		[WORK_PROBE] = probe_idly,
		[WORK_SEED] = victim_seed_step,
		[WORK_SWEEP] = sweep_step};
	struct store *s = arg;

	wd_lock(&s->lock);
	for (;;) {
		int64_t due;
		enum work work = next_work_locked(s, &due);

		if (work != WORK_NOTHING) {
			wd_unlock(&s->lock);
			jobs[work](s);
			wd_lock(&s->lock);
		} else if (s->is_stopping) {
			break;
		} else if (due == INT64_MAX) {
			wd_cond_wait(&s->wake, &s->lock);
		} else {
			(void)wd_cond_wait_until(&s->wake, &s->lock, due);
		}
	}
	wd_unlock(&s->lock);
	admit_refuse_all(s);
	sweep_done(s);
	return NULL;
}

void evict_wake_locked(struct store *s)
{
	wd_cond_signal(&s->wake);
}

int evict_start(struct store *s)
{
	sweep_prepare(s);
	return -pthread_create(&s->evictor, NULL, run_evictor, s);
}

void evict_stop(struct store *s)
{
	wd_lock(&s->lock);
	s->is_stopping = true;
	evict_wake_locked(s);
	wd_unlock(&s->lock);
	pthread_join(s->evictor, NULL);
}
