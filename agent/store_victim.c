/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which object makes room: the store's side of the policy (evict.h).
 *
 *	object_used, first record of an object, its end ──► policy ──► evict_plan ──► the evictor, here
 *
 * The main order of the policy is META_LRU, walked from its oldest end; its newest end is in memory, among the
 * objects at rest or in a pool. What a use of a pooled file is nobody tells us: before room is made the pools are
 * asked (config.note_uses).
 *
 * Time, for the policy, is store.use_seq, which counts uses and goes on after a restart.
 */
#include "agent/store_internal.h"

#include <errno.h>

#define QUEUE_TRIES 64 /* newcomers looked at for one eviction: those in use cannot go */
#define NOTE_INTERVAL_NS (100 * 1000000LL)
#define MAX_NEWCOMERS 32768
#define MAX_GHOSTS 65536

int victim_init(struct store *s)
{
	struct evict_config config = {.policy = s->config.policy,
		.capacity = s->limit,
		.max_queue = MAX_NEWCOMERS,
		.max_ghosts = MAX_GHOSTS};

	s->policy = evict_new(&config);
	s->seed.is_on = s->config.policy == EVICT_AUTO;
	return s->policy ? 0 : -ENOMEM;
}

void victim_done(struct store *s)
{
	evict_free(s->policy);
}

/* ---- what the policy is told ---- */

void object_used(struct object *o)
{
	struct store *s = o->store;

	wd_lock(&s->lock);
	evict_used(s->policy,
		&(struct evict_use){.id = o->id,
			.size = o->size,
			.is_resident = o->is_recorded,
			.age = s->use_seq > o->use.seq ? s->use_seq - o->use.seq : 0});
	o->is_used = true;
	store_touch_locked(s, o);
	wd_unlock(&s->lock);
}

void victim_came_locked(struct store *s, const struct object *o)
{
	evict_admitted(s->policy, &o->id, o->size, o->is_used);
}

void victim_gone_locked(struct store *s, const struct object *o, evict_why why)
{
	enum evict_policy ruler = evict_ruler(s->policy);

	evict_removed(s->policy, &o->id, o->size, why != EVICT_ASKED);
	s->evicted_objects++;
	s->evicted_bytes += o->charged;
	if (why == EVICT_ASKED)
		return;
	s->evictions[ruler][why].objects++;
	s->evictions[ruler][why].bytes += o->charged;
}

/* What the cache can really hold is less than its limit where the disk is shared. */
void victim_set_capacity(struct store *s)
{
	uint64_t capacity, free_bytes, taken;

	wd_lock(&s->lock);
	taken = s->used + s->admitted;
	free_bytes = s->free_sample > s->config.free_floor_bytes + s->promised
			     ? s->free_sample - s->config.free_floor_bytes - s->promised
			     : 0;
	capacity = s->limit > taken && s->limit - taken > free_bytes ? taken + free_bytes : s->limit;
	if (capacity != s->capacity)
		evict_set_capacity(s->policy, capacity);
	s->capacity = capacity;
	wd_unlock(&s->lock);
}

void victim_note_uses(struct store *s)
{
	int64_t now = wd_now_ns();

	if (!s->config.note_uses || now < s->note_due_ns)
		return;
	s->note_due_ns = now + NOTE_INTERVAL_NS;
	s->config.note_uses(s->config.note_uses_arg);
}

/* ---- the oldest ---- */

static bool collect(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct lru_walk *w = arg;

	if (key_len == LRU_KEY_LEN)
		memcpy(w->keys[w->nkeys++], key, key_len);
	return w->nkeys < CANDIDATES;
}

void victim_restart(struct store *s)
{
	s->walk.nkeys = s->walk.pos = 0;
	s->walk.last_len = 0;
	s->walk.is_end = false;
	s->nnewest = 0;
}

bool victim_is_at_start(const struct store *s)
{
	return s->walk.last_len == 0;
}

/* Reads more of the order; false at its end. Old pages are fine: evict_object() compares. */
static bool read_on(struct store *s, struct lru_walk *w)
{
	if (w->pos < w->nkeys)
		return true;
	if (w->is_end)
		return false;
	w->nkeys = w->pos = 0;
	/* waits for no commit: on a full disk there is none until something was evicted */
	if (meta_scan_below(s->meta, META_LRU, w->last, w->last_len, 0, collect, w) < 0)
		w->nkeys = 0;
	w->is_end = w->nkeys < CANDIDATES;
	if (w->nkeys == 0)
		return false;
	memcpy(w->last, w->keys[w->nkeys - 1], LRU_KEY_LEN);
	w->last[LRU_KEY_LEN] = 0;
	w->last_len = LRU_KEY_LEN + 1;
	return true;
}

/* Evicts it; what only a pool holds is asked back first. */
static bool try_evict(struct store *s, const struct object_id *id, const struct last_use *use, evict_why why)
{
	int rc = evict_object(s, id, use, why);

	if (rc == -EAGAIN && s->config.reclaim && s->config.reclaim(s->config.reclaim_arg, id) == 0)
		rc = evict_object(s, id, NULL, why); /* giving it back was a use of its own */
	return rc == 0;
}

static bool is_queued(struct store *s, const struct object_id *id)
{
	bool is;

	wd_lock(&s->lock);
	is = evict_is_queued(s->policy, id);
	wd_unlock(&s->lock);
	return is;
}

/* Of those last used before `before`: false when there is none from here to the end of the walk. */
static bool evict_oldest(struct store *s, uint64_t before, evict_why why)
{
	struct lru_walk *w = &s->walk;
	struct last_use use;
	struct object_id id;

	if (w->last_len == 0)
		store_write_touches(s);
	for (; read_on(s, w); w->pos++) {
		lru_key_parse(w->keys[w->pos], &use, &id);
		if (use.seq >= before)
			return false;
		if (!is_queued(s, &id) && try_evict(s, &id, &use, why)) {
			w->pos++;
			return true;
		}
	}
	return false;
}

/* ---- the newest ---- */

static bool may_go_locked(const struct store *s, const struct object *o) WD_REQUIRES(s->lock)
{
	return o->is_recorded && !o->is_busy && !o->pin && o->refs == o->pool_refs &&
	       !evict_is_queued(s->policy, &o->id);
}

/* The newest few of the objects in memory, the newest last. */
static void find_newest(struct store *s)
{
	struct object *o, *next;

	wd_lock(&s->lock);
	s->newest_gen = s->idle_gen;
	HASH_ITER (hh, s->table, o, next) {
		unsigned i;

		if (!may_go_locked(s, o) || (s->nnewest == NEWEST_MAX && o->use.seq < s->newest[0].use.seq))
			continue;
		if (s->nnewest == NEWEST_MAX)
			memmove(&s->newest[0], &s->newest[1], --s->nnewest * sizeof(s->newest[0]));
		for (i = s->nnewest++; i > 0 && s->newest[i - 1].use.seq > o->use.seq; i--)
			s->newest[i] = s->newest[i - 1];
		s->newest[i].id = o->id;
		s->newest[i].use = o->use;
	}
	wd_unlock(&s->lock);
}

/* What came to rest since they were found is newer than they are. */
static bool are_still_newest(struct store *s)
{
	bool are;

	wd_lock(&s->lock);
	are = s->newest_gen == s->idle_gen;
	wd_unlock(&s->lock);
	return are;
}

static bool evict_newest(struct store *s)
{
	if (!are_still_newest(s))
		s->nnewest = 0;
	for (int round = 0; round < 2; round++) {
		while (s->nnewest > 0) {
			struct recent *r = &s->newest[--s->nnewest];

			if (try_evict(s, &r->id, &r->use, EVICT_NEWEST))
				return true;
		}
		if (round == 0)
			find_newest(s);
	}
	return false;
}

/* ---- newcomers ---- */

static bool evict_newcomer(struct store *s)
{
	struct object_id id, first = {0};
	bool is_one;

	for (int i = 0; i < QUEUE_TRIES; i++) {
		wd_lock(&s->lock);
		is_one = evict_queue_next(s->policy, &id);
		wd_unlock(&s->lock);
		if (!is_one || (i > 0 && memcmp(&id, &first, sizeof(id)) == 0))
			return false;
		if (i == 0)
			first = id;
		if (try_evict(s, &id, NULL, EVICT_QUEUE))
			return true;
	}
	return false;
}

/* ---- all of it ---- */

bool victim_evict(struct store *s)
{
	struct evict_source plan[EVICT_FROMS];
	bool is_done = false;
	unsigned n;

	wd_lock(&s->lock);
	n = evict_plan(s->policy, s->use_seq, s->nobjects, plan);
	wd_unlock(&s->lock);
	for (unsigned i = 0; i < n && !is_done; i++) {
		switch (plan[i].from) {
		case EVICT_STALE:
			is_done = evict_oldest(s, plan[i].before, EVICT_STALE);
			break;
		case EVICT_QUEUE:
			is_done = evict_newcomer(s);
			break;
		case EVICT_NEWEST:
			is_done = evict_newest(s);
			break;
		default:
			is_done = evict_oldest(s, UINT64_MAX, EVICT_OLDEST);
		}
	}
	return is_done;
}

/* ---- at the start ---- */

/* Shows the shadows what the cache has, a page of the order at a time. */
void victim_seed_step(struct store *s)
{
	struct lru_walk *w = &s->seed.walk;
	struct last_use use;
	struct object_id id;
	struct record rec;
	bool is_sampled;

	if (!read_on(s, w))
		s->seed.is_on = false;
	for (; w->pos < w->nkeys; w->pos++) {
		lru_key_parse(w->keys[w->pos], &use, &id);
		wd_lock(&s->lock);
		is_sampled = evict_is_sampled(s->policy, &id);
		wd_unlock(&s->lock);
		if (!is_sampled || record_read(s->meta, &id, &rec) < 0)
			continue;
		wd_lock(&s->lock);
		evict_seed(s->policy, &id, rec.size);
		wd_unlock(&s->lock);
	}
}
