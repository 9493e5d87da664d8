/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See runs.h. Every file has the time of its last open; a step of one is found there and not in the table of runs, so
 * that it does not matter how many others are at work. The table has what was found: how far each run is, and
 * how far it has asked.
 *
 *	tail ... last                          asked
 *	 |<----->| SLACK: may still be opened   |
 *	 o  o  o  o  o  .  o  O  +  +  +  +  +  +
 *
 * A place in an order is a rank; places and ranks are the same in the order of bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/runs_internal.h"

#define LAGS 4	     /* strided readers at work at once */
#define RECENT 48    /* opens: a neighbour's that tell of a run */
#define SLACK 16     /* steps that an open may be behind or before a run */
#define IDLE 512     /* opens in which nobody carried a run on: it has ended */
#define CONFIRMING 3 /* opens that make a run of step one; of another step one more */
#define JUDGED 64    /* outcomes that count for the accuracy */
#define LONG_STREAK 16

/* ---- making ---- */

struct runs *runs_new(uint32_t nfiles, const uint32_t *natural)
{
	struct runs *r = calloc(1, sizeof(*r));
	bool is_whole;

	if (!r || nfiles > RUNS_FILES_MAX) {
		free(r);
		return NULL;
	}
	r->nfiles = r->sweep = nfiles;
	r->opened = calloc(nfiles + 1, sizeof(*r->opened));
	r->asked = calloc(nfiles / 64 + 1, sizeof(*r->asked));
	is_whole = r->opened && r->asked;
	if (natural) {
		r->natural = malloc((nfiles + 1) * sizeof(*r->natural));
		r->rank = malloc((nfiles + 1) * sizeof(*r->rank));
		is_whole = is_whole && r->natural && r->rank;
	}
	if (!is_whole) {
		runs_free(r);
		return NULL;
	}
	for (uint32_t i = 0; natural && i < nfiles; i++) {
		r->natural[i] = natural[i];
		r->rank[natural[i]] = i;
	}
	return r;
}

void runs_free(struct runs *r)
{
	if (!r)
		return;
	free(r->natural);
	free(r->rank);
	free(r->opened);
	free(r->asked);
	free(r);
}

uint64_t runs_memory(const struct runs *r)
{
	return sizeof(*r) + r->nfiles / 8 + (uint64_t)r->nfiles * sizeof(uint32_t) * (r->natural ? 3 : 1);
}

/* ---- what was asked ---- */

static void judge(struct runs *r, bool is_hit)
{
	if (is_hit)
		r->hits++;
	else
		r->misses++;
	if (r->hits + r->misses >= JUDGED) {
		r->hits /= 2;
		r->misses /= 2;
	}
}

bool runs_forget(struct runs *r, uint32_t place)
{
	if (!is_asked(r, place))
		return false;
	clear_asked(r, place);
	return true;
}

/* ---- ranks ---- */

static int64_t rank_of(const struct runs *r, bool is_natural, uint32_t place)
{
	return is_natural ? r->rank[place] : place;
}

static bool has_rank(const struct runs *r, int64_t rank)
{
	return rank >= 0 && rank < r->nfiles;
}

static uint32_t place_of(const struct runs *r, bool is_natural, int64_t rank)
{
	return is_natural ? r->natural[rank] : (uint32_t)rank;
}

/* When the file of that rank was opened; 0: not lately. */
static uint32_t recent(const struct runs *r, bool is_natural, int64_t rank)
{
	uint32_t at = has_rank(r, rank) ? r->opened[place_of(r, is_natural, rank)] : 0;

	return at && r->clock - at < RECENT ? at : 0;
}

/* ---- finding runs ---- */

/* Steps from a run's last open to this rank; false where no number of steps leads there. */
static bool steps_to(const struct run *u, int64_t rank, int64_t *ret_steps)
{
	int64_t distance = rank - u->last;

	if (distance % u->step != 0)
		return false;
	*ret_steps = distance / u->step;
	return true;
}

/* The run that goes there by the fewest steps. */
static struct run *find_run(struct runs *r, uint32_t place, int64_t *ret_steps)
{
	struct run *best = NULL;
	int64_t least = 0;

	for (int i = 0; i < RUNS; i++) {
		struct run *u = &r->runs[i];
		int64_t n, ahead, cost;

		if (!u->is_live || !steps_to(u, rank_of(r, u->is_natural, place), &n))
			continue;
		ahead = (u->asked - u->last) / u->step;
		if (n < -SLACK || n > (ahead > SLACK ? ahead : SLACK))
			continue;
		cost = n > 0 ? n : 2 - n;
		if (best && (cost > least || (cost == least && u->used < best->used)))
			continue;
		best = u;
		least = cost;
		*ret_steps = n;
	}
	return best;
}

/* Opens in a row that led to `rank` by `step`, this one included. */
static uint32_t trail(const struct runs *r, bool is_natural, int64_t rank, int32_t step)
{
	uint32_t n = 1, before = r->clock + 1;

	while (n < CONFIRMING) {
		uint32_t at = recent(r, is_natural, rank - (int64_t)step * n);

		if (!at || at >= before)
			break;
		before = at;
		n++;
	}
	if (n == CONFIRMING - 1 && step == 1 && rank == n - 1)
		n = CONFIRMING; /* it began with the first file */
	return n;
}

/* A step of which every `lag`-th open of no run went on, four times. 0: none. */
static int32_t find_step(const struct runs *r, uint32_t place)
{
	for (uint32_t lag = 1; lag <= LAGS; lag++) {
		int64_t step = 0, at = place;
		uint32_t n = 1;

		for (; n <= CONFIRMING && n * lag <= r->nloose && n * lag <= LOOSE; n++) {
			uint32_t before = r->loose[(r->nloose - n * lag) % LOOSE];

			if (n > 1 && at - before != step)
				break;
			step = at - before;
			at = before;
		}
		if (n > CONFIRMING && step != 0)
			return (int32_t)step;
	}
	return 0;
}

/* Its place is needed: what it asked for in vain goes with the next sweep. */
static void leave(struct runs *r, const struct run *u)
{
	for (int64_t k = u->tail; k != u->asked + u->step; k += u->step) {
		if (!has_rank(r, k) || !is_asked(r, place_of(r, u->is_natural, k)))
			continue;
		judge(r, false);
		r->sweep = 0;
	}
}

static struct run *begin(struct runs *r, bool is_natural, int64_t rank, int32_t step)
{
	struct run *u = NULL;

	for (int i = 0; i < RUNS; i++)
		if (!u || !r->runs[i].is_live || (u->is_live && r->runs[i].used < u->used))
			u = &r->runs[i];
	if (u->is_live)
		leave(r, u);
	*u = (struct run){.is_live = true,
		.is_natural = is_natural,
		.step = step,
		.tail = rank,
		.last = rank,
		.asked = rank,
		.streak = CONFIRMING};
	return u;
}

/* Does this open make a run? */
static struct run *discover(struct runs *r, uint32_t place)
{
	int32_t step;

	for (int natural = 0; natural <= (r->natural ? 1 : 0); natural++) {
		int64_t rank = rank_of(r, natural, place);

		for (step = 1; step >= -1; step -= 2)
			if (trail(r, natural, rank, step) >= CONFIRMING && !recent(r, natural, rank + step))
				return begin(r, natural, rank, step);
	}
	step = find_step(r, place);
	return step ? begin(r, false, place, step) : NULL;
}

/* ---- how they go on ---- */

static uint32_t depth_max(const struct runs *r, const struct run *u)
{
	uint64_t n = r->limits.window_bytes / (r->mean_size ? r->mean_size : 1);

	if (n > r->limits.window_files)
		n = r->limits.window_files;
	if (n > u->streak / 2)
		n = u->streak / 2;
	return n ? (uint32_t)n : 1;
}

static void carry_on(struct runs *r, struct run *u, int64_t steps)
{
	uint32_t max;

	u->used = r->clock;
	if (steps <= 0)
		return;
	u->last += steps * u->step;
	if ((u->asked - u->last) / u->step < 0)
		u->asked = u->last;
	u->streak++;
	max = depth_max(r, u);
	u->depth = u->depth * 2 < max ? u->depth * 2 : max;
}

static bool may_ask(const struct runs *r, const struct run *u)
{
	return u->is_live && u->depth && (is_trusted(r) || u->streak >= LONG_STREAK);
}

static bool next_of_run(struct runs *r, struct run *u, uint32_t *ret_place)
{
	int64_t depth = is_trusted(r) ? u->depth : 1;

	while ((u->asked - u->last) / u->step < depth && has_rank(r, u->asked + u->step)) {
		u->asked += u->step;
		*ret_place = place_of(r, u->is_natural, u->asked);
		if (!is_asked(r, *ret_place) && !recent(r, u->is_natural, u->asked)) {
			set_asked(r, *ret_place);
			return true;
		}
	}
	return false;
}

/* ---- */

/* A quarter of the depth is free: not one by one. */
static bool is_wanting(const struct runs *r)
{
	if (set_is_wanting(r))
		return true;
	for (int i = 0; i < RUNS; i++) {
		const struct run *u = &r->runs[i];

		if (may_ask(r, u) && (u->asked - u->last) / u->step < u->depth - u->depth / 4 && has_rank(r, u->asked + u->step))
			return true;
	}
	return false;
}

/* Remembers an open of no run, which may show a step. */
static void be_loose(struct runs *r, uint32_t place, bool is_loose)
{
	r->loose_share = r->loose_share - r->loose_share / 16 + (is_loose ? 16 : 0);
	if (is_loose)
		r->loose[r->nloose++ % LOOSE] = place;
	if (r->nloose >= 2 * LOOSE)
		r->nloose -= LOOSE;
}

struct runs_touch runs_open(struct runs *r, uint32_t place, uint64_t size, const struct runs_limits *limits)
{
	struct runs_touch touch = {.was_asked = is_asked(r, place)};
	int64_t steps = 0;
	struct run *u;
	bool was_set = r->is_set;

	r->limits = *limits;
	r->clock++;
	r->mean_size = r->mean_size ? r->mean_size - r->mean_size / 8 + size / 8 : size;
	if (touch.was_asked) {
		clear_asked(r, place);
		judge(r, true);
	}
	u = find_run(r, place, &steps);
	if (!u) {
		u = discover(r, place);
		be_loose(r, place, !u);
		steps = 0;
		if (u) {
			touch.found = u->step == 1 || u->step == -1 ? RUNS_SORTED : RUNS_STRIDED;
			u->depth = 1;
			u->used = r->clock;
		}
	} else {
		be_loose(r, place, false);
		carry_on(r, u, steps);
	}
	set_note(r, place);
	r->opened[place] = r->clock;
	r->is_set = set_is_read(r);
	if (r->is_set && !was_set)
		touch.found = RUNS_SHUFFLED;
	touch.is_wanting = is_wanting(r);
	return touch;
}

void runs_repeated(struct runs *r, uint64_t n)
{
	if (r->epoch > 0)
		return; /* files that an earlier epoch had opened: this one may not have */
	r->nrepeats += n;
	r->is_set = r->is_set && set_is_read(r);
}

bool runs_next(struct runs *r, uint32_t *ret_place)
{
	for (int i = 0; i < RUNS; i++)
		if (may_ask(r, &r->runs[i]) && next_of_run(r, &r->runs[i], ret_place))
			return true;
	return set_next(r, ret_place);
}

/* ---- withdrawing ---- */

/* What a run passed by, or all of one that nobody carries on. */
static bool passed_by(struct runs *r, struct run *u, uint32_t *ret_place)
{
	bool is_over = r->clock - u->used > IDLE;
	int64_t end = is_over ? u->asked + u->step : u->last - (int64_t)SLACK * u->step;

	while ((end - u->tail) / u->step > 0) {
		int64_t rank = u->tail;

		u->tail += u->step;
		if (!has_rank(r, rank))
			continue;
		*ret_place = place_of(r, u->is_natural, rank);
		if (is_asked(r, *ret_place)) {
			clear_asked(r, *ret_place);
			judge(r, false);
			return true;
		}
	}
	if (is_over)
		u->is_live = false;
	return false;
}

/* Some run still leads to this file. */
static bool is_awaited(const struct runs *r, uint32_t place)
{
	for (int i = 0; i < RUNS; i++) {
		const struct run *u = &r->runs[i];
		int64_t n;

		if (u->is_live && steps_to(u, rank_of(r, u->is_natural, place), &n) && n > -SLACK &&
			n <= (u->asked - u->last) / u->step)
			return true;
	}
	return false;
}

bool runs_withdrawn(struct runs *r, uint32_t *ret_place)
{
	for (int i = 0; i < RUNS; i++)
		if (r->runs[i].is_live && passed_by(r, &r->runs[i], ret_place))
			return true;
	for (; r->sweep < r->nfiles; r->sweep++) {
		if (!r->asked[r->sweep / 64]) {
			r->sweep |= 63;
			continue;
		}
		if (!is_asked(r, r->sweep) || r->is_set || is_awaited(r, r->sweep))
			continue;
		*ret_place = r->sweep++;
		clear_asked(r, *ret_place);
		return true;
	}
	return false;
}

void runs_abandon(struct runs *r)
{
	for (int i = 0; i < RUNS; i++)
		r->runs[i].is_live = false;
	r->is_set = false;
	r->sweep = 0;
}
