/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waits and planning. A block counts as missing for a wait while it is in flight or absent; it stops
 * being in flight under fetch->lock in the same step that wakes its waits, so that a wait counts
 * every block exactly once.
 *
 * Called on the agent's hub and worker threads (ensure, hint) and on transfer threads (block_over).
 */
#include "agent/fetch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "agent/fetch_internal.h"
#include "agent/metrics.h"
#include "common/log.h"

#define MIN_PATIENCE_NS 100000000LL /* less is not worth another transfer */
#define ORIGIN_PATIENCE_MS 60000    /* where no setting says (tests) */

struct fetcher *fetcher_new(struct store *store, struct meta *meta, const struct settings *settings)
{
	struct fetcher *fr = calloc(1, sizeof(*fr));

	if (!fr)
		return NULL;
	fr->store = store;
	fr->meta = meta;
	fr->settings = settings;
	wd_mutex_init(&fr->lock);
	pthread_rwlock_init(&fr->gate, NULL);
	return fr;
}

void fetcher_stop(struct fetcher *fr)
{
	pthread_rwlock_wrlock(&fr->gate);
	fr->is_stopping = true;
	pthread_rwlock_unlock(&fr->gate);
}

int fetcher_get(struct fetcher *fr, struct origin *origin, struct origin_get *get)
{
	bool is_stopping;

	pthread_rwlock_rdlock(&fr->gate);
	is_stopping = fr->is_stopping;
	if (!is_stopping)
		origin_get(origin, get);
	pthread_rwlock_unlock(&fr->gate);
	return is_stopping ? -ECANCELED : 0;
}

void fetcher_free(struct fetcher *fr)
{
	if (!fr)
		return;
	pthread_rwlock_destroy(&fr->gate);
	wd_mutex_done(&fr->lock);
	free(fr);
}

static void fetch_free(struct fetch *f)
{
	if (!f)
		return;
	wd_mutex_done(&f->lock);
	object_unref(f->object);
	dataset_unref(f->dataset);
	flow_unref(f->flow);
	free(f->in_flight);
	free(f->ahead);
	free(f->name);
	free(f);
}

static struct fetch *fetch_new(struct fetcher *fr, const struct fetch_key *key, struct dataset *ds,
	const struct node *node, struct object *object)
{
	struct fetch *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->fetcher = fr;
	f->key = *key;
	f->dataset = dataset_ref(ds);
	f->object = object_ref(object);
	f->version = node->version;
	f->size = node->version.size;
	f->nblocks = wd_nblocks(f->size);
	f->refs = 1;
	f->name = strdup(node->key);
	f->in_flight = calloc(f->nblocks / 64 + 1, sizeof(uint64_t));
	f->ahead = calloc(f->nblocks / 64 + 1, sizeof(uint64_t));
	wd_mutex_init(&f->lock);
	if (!f->name || !f->in_flight || !f->ahead) {
		fetch_free(f);
		return NULL;
	}
	return f;
}

int fetch_open(struct fetcher *fr, struct dataset *ds, const struct node *node, struct object *object,
	struct fetch **ret_fetch)
{
	struct fetch_key key;
	struct fetch *f, *known;

	memset(&key, 0, sizeof(key));
	key.object = *object_id(object);
	key.dataset = dataset_id(ds);
	f = fetch_new(fr, &key, ds, node, object);
	if (!f)
		return -ENOMEM;
	wd_lock(&fr->lock);
	HASH_FIND(hh, fr->table, &key, sizeof(key), known);
	if (known)
		known->refs++;
	else
		HASH_ADD(hh, fr->table, key, sizeof(key), f);
	(known ? known : f)->readers++;
	wd_unlock(&fr->lock);
	if (known)
		fetch_free(f);
	*ret_fetch = known ? known : f;
	return 0;
}

/* Forgets that blocks were fetched ahead; returns how many bytes were. */
static uint64_t pass_locked(struct fetch *f, uint64_t from, uint64_t to) WD_REQUIRES(f->lock)
{
	uint64_t sum = 0;

	for (uint32_t b = (uint32_t)(from / WD_BLOCK_SIZE); (uint64_t)b * WD_BLOCK_SIZE < to; b++) {
		if (f->ahead[b / 64] == 0)
			b |= 63;
		if (!has_bit(f->ahead, b))
			continue;
		f->ahead[b / 64] &= ~(1ULL << (b % 64));
		sum += block_len(f, b);
	}
	return sum;
}

struct fetch *fetch_ref(struct fetch *f)
{
	wd_lock(&f->fetcher->lock);
	f->refs++;
	wd_unlock(&f->fetcher->lock);
	return f;
}

void fetch_unref(struct fetch *f)
{
	bool is_last;

	if (!f)
		return;
	struct fetcher *fr = f->fetcher;

	wd_lock(&fr->lock);
	is_last = --f->refs == 0;
	if (is_last)
		HASH_DEL(fr->table, f);
	wd_unlock(&fr->lock);
	if (!is_last)
		return;
	wd_lock(&f->lock);
	metric_add(METRIC_PREFETCH_UNUSED, pass_locked(f, 0, f->size));
	wd_unlock(&f->lock);
	fetch_free(f);
}

void fetch_set_flow(struct fetch *f, struct flow *flow)
{
	struct flow *none = NULL;

	if (!atomic_compare_exchange_strong(&f->flow, &none, flow_ref(flow)))
		flow_unref(flow);
}

void fetch_advise(struct fetch *f, struct origin_advice *ret_advice)
{
	const struct settings *s = f->fetcher->settings;

	origin_advise(dataset_origin(f->dataset), f->flow, ret_advice);
	if (ret_advice->get_bytes > (uint64_t)s->max_get_size)
		ret_advice->get_bytes = (uint64_t)s->max_get_size;
	if (ret_advice->window_bytes > (uint64_t)s->prefetch_window)
		ret_advice->window_bytes = (uint64_t)s->prefetch_window;
}

void fetch_close(struct fetch *f)
{
	bool is_last;

	if (!f)
		return;
	wd_lock(&f->fetcher->lock);
	is_last = --f->readers == 0;
	wd_unlock(&f->fetcher->lock);
	if (is_last && f->nblocks > 0) {
		wd_lock(&f->lock);
		memset(&f->streams, 0, sizeof(f->streams));
		wd_unlock(&f->lock);
		fetch_transfers_prioritise(f, 0, f->nblocks - 1, GET_UNWANTED);
	}
	fetch_unref(f);
}

struct object *fetch_object(const struct fetch *f)
{
	return f->object;
}

const char *fetch_name(const struct fetch *f)
{
	return f->name;
}

bool fetch_is_stale(struct fetch *f)
{
	bool is_stale;

	wd_lock(&f->lock);
	is_stale = f->lost != 0;
	wd_unlock(&f->lock);
	return is_stale;
}

/* ---- waits ---- */

static void block_range(const struct fetch_wait *w, uint32_t *ret_first, uint32_t *ret_last)
{
	*ret_first = (uint32_t)(w->offset / WD_BLOCK_SIZE);
	*ret_last = (uint32_t)((w->offset + w->len - 1) / WD_BLOCK_SIZE);
}

void fetch_block_over_locked(struct fetch *f, uint32_t block, int status, struct fetch_wait **ret_over)
{
	struct fetch_wait *w, *tmp;
	uint32_t first, last;

	f->in_flight[block / 64] &= ~(1ULL << (block % 64));
	if (status != 0)
		f->ahead[block / 64] &= ~(1ULL << (block % 64));
	DL_FOREACH_SAFE(f->waits, w, tmp) {
		block_range(w, &first, &last);
		if (block < first || block > last)
			continue;
		if (status == 0 && (w->missing == WISH_UNPLANNED || --w->missing > 0))
			continue;
		DL_DELETE(f->waits, w);
		w->is_listed = false;
		DL_APPEND(*ret_over, w);
	}
}

static void wait_for_blocks(struct fetch *f, struct fetch_wait *w, bool is_again);

void fetch_answer(struct fetch *f, struct fetch_wait *over, const struct fetch_end *end)
{
	struct fetch_wait *w, *tmp;

	DL_FOREACH_SAFE(over, w, tmp) {
		DL_DELETE(over, w);
		if (w->flags & FETCH_WISH) {
			fetch_wish_answer(f, w, end);
			continue;
		}
		if (end->is_refused && !(w->flags & FETCH_CACHE_ONLY)) {
			bytes_read_start(f, w);
			continue;
		}
		atomic_fetch_sub(&f->fetcher->waits, 1);
		if (end->is_dropped ||
			(end->is_out_of_time && w->deadline_ns > wd_now_ns() + MIN_PATIENCE_NS))
			wait_for_blocks(f, w, true);
		else
			w->cb(w, end->is_refused ? -ENOSPC : end->status, -1, end->err);
	}
}

int fetch_note_end(struct fetch *f, const struct fetch_end *end)
{
	const char *text = end->err && end->err->msg[0] ? end->err->msg : "a transfer failed";
	bool is_lost = end->status == -ESTALE || end->status == -ENOENT, was_lost;

	if (end->status == 0 || end->status == -ECANCELED || end->is_refused)
		return end->status;
	wd_lock(&f->lock);
	was_lost = f->lost != 0;
	if (is_lost && !was_lost)
		f->lost = end->status;
	wd_unlock(&f->lock);
	if (!is_lost) {
		metric_inc(METRIC_FETCH_ERRORS);
		wd_error("%s", text);
	} else if (!was_lost) {
		metric_inc(METRIC_STALE_OBJECTS);
		wd_warn("%s", text);
	}
	return end->status;
}

#define MAX_RUNS 40 /* a wait is at most FETCH_MAX_LEN long: 65 blocks, every other one absent */

/* Marks what of w nobody fetches yet, as runs of blocks. A small object goes as a whole. *ret_joins: some of it is
 * in flight already. */
static unsigned plan_demand_locked(struct fetch *f, struct fetch_wait *w, uint64_t get_bytes,
	struct run runs[MAX_RUNS], bool *ret_joins) WD_REQUIRES(f->lock)
{
	bool is_small = f->size <= (uint64_t)f->fetcher->settings->small_object_size;
	uint32_t max_blocks = (uint32_t)(get_bytes / WD_BLOCK_SIZE);
	uint32_t first, last, from, to;
	unsigned n = 0;

	block_range(w, &first, &last);
	from = is_small ? 0 : first;
	to = is_small ? f->nblocks - 1 : last;
	w->missing = 0;
	for (uint32_t b = from; b <= to; b++) {
		bool is_flying = in_flight(f, b);

		if (!is_flying && object_has_block(f->object, b))
			continue;
		if (b >= first && b <= last)
			w->missing++;
		if (is_flying) {
			*ret_joins = true;
			continue;
		}
		if (n > 0 && runs[n - 1].first + runs[n - 1].count == b &&
			(is_small || runs[n - 1].count < max_blocks)) {
			runs[n - 1].count++;
		} else {
			assert(n < MAX_RUNS);
			runs[n++] = (struct run){b, 1};
		}
		f->in_flight[b / 64] |= 1ULL << (b % 64);
	}
	return n;
}

/* For who asks how a mount is read: where several read one file, the mount that was first. */
static void count_pattern(struct fetch *f, enum flow_pattern pattern)
{
	struct flow *flow = atomic_load_explicit(&f->flow, memory_order_acquire);

	if (flow)
		atomic_fetch_add_explicit(&flow->patterns[pattern], 1, memory_order_relaxed);
}

static void count_touch(struct fetch *f, const struct stream_touch *touch)
{
	static const struct {
		enum metric metric;
		enum flow_pattern pattern;
	} found[] = {[STREAM_SEQUENTIAL] = {METRIC_STREAMS_SEQUENTIAL, FLOW_SEQUENTIAL},
		[STREAM_STRIDED] = {METRIC_STREAMS_STRIDED, FLOW_STRIDED},
		[STREAM_TAIL_READ] = {METRIC_STREAMS_TAIL, FLOW_TAIL}};

	if (touch->found != STREAM_NEW) {
		metric_inc(found[touch->found].metric);
		count_pattern(f, found[touch->found].pattern);
	}
	if (touch->is_random) {
		metric_inc(METRIC_STREAMS_RANDOM);
		count_pattern(f, FLOW_RANDOM);
	}
}

/* A reader is there. True when something is wanted ahead of it; *ret_left: blocks that are not any more. */
static bool touch_locked(struct fetch *f, const struct stream_read *r, uint64_t window, struct run *ret_left)
	WD_REQUIRES(f->lock)
{
	struct stream_touch touch = streams_touch(&f->streams, r, f->size, window);

	metric_add(METRIC_PREFETCH_USED, pass_locked(f, touch.from, touch.to));
	count_touch(f, &touch);
	*ret_left = (struct run){0};
	if (touch.left_to > touch.left_from) {
		ret_left->first = (uint32_t)(touch.left_from / WD_BLOCK_SIZE);
		ret_left->count = (uint32_t)((touch.left_to - 1) / WD_BLOCK_SIZE) + 1 - ret_left->first;
	}
	return touch.is_wanting && wd_now_ns() >= f->no_room_until_ns;
}

static bool has_just_failed_locked(const struct fetch *f, const struct fetch_wait *w) WD_REQUIRES(f->lock)
{
	uint32_t first, last;

	block_range(w, &first, &last);
	return first < f->failed_end && last >= f->failed_first && wd_now_ns() < f->failed_until_ns;
}

static void give_up(struct fetch *f, struct run left)
{
	if (left.count > 0)
		fetch_transfers_prioritise(f, left.first, left.first + left.count - 1, GET_UNWANTED);
}

static void wait_for_blocks(struct fetch *f, struct fetch_wait *w, bool is_again)
{
	struct run runs[MAX_RUNS], left;
	struct flow *flow = w->flow ? w->flow : f->flow;
	struct origin_advice advice;
	unsigned nruns;
	bool is_present, is_wanting, joins = false;
	uint32_t first, last;
	int lost;

	w->prev = w->next = NULL;
	block_range(w, &first, &last);
	fetch_advise(f, &advice);
	wd_lock(&f->lock);
	is_wanting = touch_locked(f, &(struct stream_read){w->offset, w->len, false}, advice.window_bytes, &left) &&
		!(w->flags & FETCH_NO_AHEAD);
	is_present = object_has(f->object, w->offset, w->len);
	lost = is_present ? 0 : f->lost;
	if (!is_present && !lost && !is_again && has_just_failed_locked(f, w))
		lost = -EIO;
	nruns = is_present || lost ? 0 : plan_demand_locked(f, w, advice.get_bytes, runs, &joins);
	if (!is_present && !lost && w->missing == 0)
		is_present = true; /* landed while we looked */
	if (!is_present && !lost) {
		DL_APPEND(f->waits, w);
		w->is_listed = true;
		atomic_fetch_add(&f->fetcher->waits, 1);
	}
	wd_unlock(&f->lock);

	/* a wait may be over, and its memory gone, as soon as its last transfer is begun */
	int64_t deadline_ns = w->deadline_ns;

	if (is_present || lost) {
		struct wd_err err = WD_ERR_INIT;

		if (lost)
			wd_err_set(&err, -lost, "read '%s': %s", f->name,
				lost == -EIO	    ? "the origin did not answer in time"
				: lost == -ENOENT ? "it is gone at the origin"
						  : "it has changed at the origin");
		w->cb(w, lost, -1, &err);
	}
	if (joins)
		fetch_transfers_prioritise(f, first, last, GET_DEMAND);
	for (unsigned i = 0; i < nruns; i++)
		fetch_transfer_start(f, runs[i], GET_DEMAND, flow, deadline_ns, 0);
	give_up(f, left);
	if (is_wanting)
		fetch_want(f);
}

void fetch_ensure(struct fetch *f, struct fetch_wait *w)
{
	int64_t patience_ms = f->fetcher->settings->request_deadline;

	metric_inc(METRIC_ENSURES);
	w->deadline_ns = wd_now_ns() + (patience_ms ? patience_ms : ORIGIN_PATIENCE_MS) * 1000000;
	if (!(w->flags & FETCH_BYTES)) {
		wait_for_blocks(f, w, false);
		return;
	}
	w->prev = w->next = NULL;
	atomic_fetch_add(&f->fetcher->waits, 1);
	bytes_read_start(f, w);
}

void fetch_hint(struct fetch *f, uint64_t offset, uint64_t len)
{
	struct origin_advice advice;
	struct run left;
	bool is_wanting;

	fetch_advise(f, &advice);
	wd_lock(&f->lock);
	is_wanting = touch_locked(f, &(struct stream_read){offset, len, true}, advice.window_bytes, &left);
	wd_unlock(&f->lock);
	give_up(f, left);
	if (is_wanting)
		fetch_want(f);
}

void fetcher_get_stats(struct fetcher *fr, struct fetcher_stats *ret_stats)
{
	wd_lock(&fr->lock);
	ret_stats->prefetch_bytes = fr->prefetch_bytes;
	ret_stats->uncached_bytes = fr->bytes_under_way;
	wd_unlock(&fr->lock);
	ret_stats->waits = atomic_load(&fr->waits);
	ret_stats->wishes = atomic_load(&fr->wishes);
}
