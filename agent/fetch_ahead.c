/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is fetched before anybody waits for it: ahead of the streams of files that are read, and wishes.
 *
 * Each class below demand has a line of the fetches that want something in it. The pump takes them in turn, the
 * highest class first, as long as the budget has room for the class; each gets one transfer, and goes to the end of
 * the line (streams: all readers get on) or stays at its head (wishes: what was wished first is whole first). One
 * thread pumps at a time, so that a transfer that ends at once, inside the pump, adds no frame to the stack.
 *
 * A wish is a wait over its range that makes no transfer demand. Its blocks are planned piece by piece; it counts
 * the missing ones only when all were planned.
 *
 * Called wherever fetch.h is, and on transfer threads.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#include "agent/fetch_internal.h"

struct fetch_wish {
	struct fetch_wait wait; /* in fetch->waits, unless it is over or on its way to be */
	struct fetch *fetch;
	enum get_priority priority;
	_Atomic int refs; /* the owner's, and that of fetch->waits */
	void (*cb)(void *arg, int status);
	void *arg;
	/* guarded by fetch->lock */
	uint32_t next; /* the first block that was not looked at */
	bool is_cancelled;
};

static struct fetch_wish *wish_of(struct fetch_wait *w)
{
	return (struct fetch_wish *)((char *)w - offsetof(struct fetch_wish, wait));
}

/* ---- the lines ---- */

static void enqueue(struct fetch *f, enum get_priority class, bool is_first)
{
	struct fetcher *fr = f->fetcher;
	struct want_line *line = &fr->wants[class];

	wd_lock(&fr->lock);
	if (!f->is_wanting[class]) {
		f->is_wanting[class] = true;
		f->refs++;
		f->want_next[class] = is_first ? line->head : NULL;
		if (!line->head)
			line->head = line->tail = f;
		else if (is_first)
			line->head = f;
		else
			line->tail = line->tail->want_next[class] = f;
	}
	wd_unlock(&fr->lock);
}

/* A class begins nothing where it would take the last of what the classes above it may want. */
static bool has_room_locked(const struct fetcher *fr, enum get_priority class) WD_REQUIRES(fr->lock)
{
	unsigned quarters = (unsigned)class + 2;
	uint64_t bytes = (uint64_t)fr->settings->prefetch_budget * quarters / 4;
	unsigned transfers = (unsigned)fr->settings->max_transfers * quarters / 4;

	if (fr->prefetch_transfers == 0)
		return true;
	return fr->prefetch_bytes < bytes && fr->prefetch_transfers < transfers;
}

/* The next in turn, with room in the budget for one GET. */
static struct fetch *pop(struct fetcher *fr, enum get_priority *ret_class)
{
	struct fetch *f = NULL;

	wd_lock(&fr->lock);
	for (int class = GET_STREAM; class >= GET_WARM && !f; class--) {
		struct want_line *line = &fr->wants[class];

		f = line->head;
		if (!f)
			continue;
		if (!has_room_locked(fr, (enum get_priority)class)) {
			f = NULL;
			continue;
		}
		line->head = f->want_next[class];
		if (!line->head)
			line->tail = NULL;
		f->is_wanting[class] = false;
		fr->prefetch_transfers++;
		fr->prefetch_bytes += (uint64_t)fr->settings->max_get_size;
		*ret_class = (enum get_priority)class;
	}
	wd_unlock(&fr->lock);
	return f;
}

/* ---- what to fetch next ---- */

/* Marks the absent blocks at the beginning of [b, end), at most max. */
static uint32_t mark_locked(struct fetch *f, uint32_t b, uint32_t end, uint32_t max) WD_REQUIRES(f->lock)
{
	uint32_t n = 0;

	for (; b < end && n < max && !in_flight(f, b) && !object_has_block(f->object, b); b++, n++)
		f->in_flight[b / 64] |= 1ULL << (b % 64);
	return n;
}

static uint32_t skip_locked(const struct fetch *f, uint32_t b, uint32_t end) WD_REQUIRES(f->lock)
{
	while (b < end && (in_flight(f, b) || object_has_block(f->object, b)))
		b++;
	return b;
}

/* The next run of absent blocks ahead of a stream. */
static bool plan_stream_locked(struct fetch *f, uint64_t get_bytes, struct run *ret_run) WD_REQUIRES(f->lock)
{
	uint64_t offset, len;

	while (!f->lost && streams_next(&f->streams, f->size, get_bytes, &offset, &len)) {
		uint32_t end = (uint32_t)((offset + len + WD_BLOCK_SIZE - 1) / WD_BLOCK_SIZE);

		ret_run->first = skip_locked(f, (uint32_t)(offset / WD_BLOCK_SIZE), end);
		ret_run->count = mark_locked(f, ret_run->first, end, end);
		for (uint32_t b = ret_run->first; b < ret_run->first + ret_run->count; b++)
			f->ahead[b / 64] |= 1ULL << (b % 64);
		if (ret_run->count > 0)
			return true;
	}
	return false;
}

static uint32_t wish_end(const struct fetch_wish *w)
{
	return (uint32_t)((w->wait.offset + w->wait.len - 1) / WD_BLOCK_SIZE) + 1;
}

/* All of it is present or in flight: what is still to come? WISH_UNPLANNED: something failed to, and w->next is there. */
static uint32_t count_missing_locked(struct fetch *f, struct fetch_wish *w) WD_REQUIRES(f->lock)
{
	uint32_t n = 0;

	for (uint32_t b = (uint32_t)(w->wait.offset / WD_BLOCK_SIZE); b < wish_end(w); b++) {
		if (in_flight(f, b)) {
			n++;
		} else if (!object_has_block(f->object, b)) {
			w->next = b;
			return WISH_UNPLANNED;
		}
	}
	return n;
}

static void detach_locked(struct fetch *f, struct fetch_wish *w, struct fetch_wait **over) WD_REQUIRES(f->lock)
{
	DL_DELETE(f->waits, &w->wait);
	w->wait.is_listed = false;
	DL_APPEND(*over, &w->wait);
}

/* The next run of absent blocks of a wish. Wishes that turn out to be fulfilled go to *ret_over. */
static bool plan_wish_locked(struct fetch *f, enum get_priority class, uint64_t get_bytes, struct run *ret_run,
	struct fetch_wait **ret_over) WD_REQUIRES(f->lock)
{
	bool is_small = f->size <= (uint64_t)f->fetcher->settings->small_object_size;
	uint32_t max = is_small ? f->nblocks : (uint32_t)(get_bytes / WD_BLOCK_SIZE);
	struct fetch_wait *wait, *tmp;

	DL_FOREACH_SAFE(f->waits, wait, tmp) {
		struct fetch_wish *w = wish_of(wait);

		if (!(wait->flags & FETCH_WISH) || w->priority != class || wait->missing != WISH_UNPLANNED)
			continue;
		do {
			ret_run->first = skip_locked(f, w->next, wish_end(w));
			ret_run->count = mark_locked(f, ret_run->first, wish_end(w), max);
			w->next = ret_run->first + ret_run->count;
			if (ret_run->count > 0)
				return true;
			wait->missing = count_missing_locked(f, w);
		} while (wait->missing == WISH_UNPLANNED);
		if (wait->missing == 0)
			detach_locked(f, w, ret_over);
	}
	return false;
}

/* What has been lost at the origin fulfils no wish. */
static int take_lost_locked(struct fetch *f, struct fetch_wait **ret_over) WD_REQUIRES(f->lock)
{
	struct fetch_wait *wait, *tmp;

	if (f->lost)
		DL_FOREACH_SAFE(f->waits, wait, tmp)
			if ((wait->flags & FETCH_WISH) && wait->missing == WISH_UNPLANNED)
				detach_locked(f, wish_of(wait), ret_over);
	return f->lost;
}

/* Begins the next transfer of the class for f, if there is one. */
static bool begin_next(struct fetch *f, enum get_priority class)
{
	struct fetcher *fr = f->fetcher;
	struct fetch_wait *over = NULL;
	struct run run = {0};
	struct origin_advice advice;
	bool has_run;
	int lost;

	fetch_advise(f, &advice);
	wd_lock(&f->lock);
	lost = take_lost_locked(f, &over);
	has_run = !lost && class == GET_STREAM && plan_stream_locked(f, advice.get_bytes, &run);
	has_run = has_run || (!lost && plan_wish_locked(f, class, advice.get_bytes, &run, &over));
	wd_unlock(&f->lock);
	fetch_answer(f, over, &(struct fetch_end){.status = lost});
	if (!has_run)
		return false;
	/* the budget takes what it is, from here on */
	uint64_t charge = run_bytes(f, run);

	wd_lock(&fr->lock);
	fr->prefetch_bytes += charge - (uint64_t)fr->settings->max_get_size;
	wd_unlock(&fr->lock);
	enqueue(f, class, class < GET_STREAM); /* for more */
	fetch_transfer_start(f, run, class, f->flow, 0, charge);
	return true;
}

static void uncharge_locked(struct fetcher *fr, uint64_t charge) WD_REQUIRES(fr->lock)
{
	fr->prefetch_transfers--;
	fr->prefetch_bytes -= charge;
}

static void pump_all(struct fetcher *fr)
{
	enum get_priority class;
	struct fetch *f;

	while ((f = pop(fr, &class))) {
		if (!begin_next(f, class)) {
			wd_lock(&fr->lock);
			uncharge_locked(fr, (uint64_t)fr->settings->max_get_size);
			wd_unlock(&fr->lock);
		}
		fetch_unref(f);
	}
}

static void pump(struct fetcher *fr)
{
	wd_lock(&fr->lock);
	fr->is_pump_wanted = true;
	while (!fr->is_pumping && fr->is_pump_wanted) {
		fr->is_pump_wanted = false;
		fr->is_pumping = true;
		wd_unlock(&fr->lock);
		pump_all(fr);
		wd_lock(&fr->lock);
		fr->is_pumping = false;
	}
	wd_unlock(&fr->lock);
}

void fetcher_uncharge(struct fetcher *fr, uint64_t charge)
{
	wd_lock(&fr->lock);
	uncharge_locked(fr, charge);
	wd_unlock(&fr->lock);
	pump(fr);
}

void fetcher_charge_part(struct fetcher *fr, uint64_t charge)
{
	wd_lock(&fr->lock);
	fr->prefetch_transfers++;
	fr->prefetch_bytes += charge;
	wd_unlock(&fr->lock);
}

void fetch_want(struct fetch *f)
{
	if (f->fetcher->settings->prefetch_budget == 0)
		return;
	enqueue(f, GET_STREAM, false);
	pump(f->fetcher);
}

/* ---- wishes ---- */

static void list_wish_locked(struct fetch *f, struct fetch_wish *w) WD_REQUIRES(f->lock)
{
	w->wait.prev = w->wait.next = NULL;
	w->wait.missing = WISH_UNPLANNED;
	w->next = (uint32_t)(w->wait.offset / WD_BLOCK_SIZE);
	w->wait.is_listed = true;
	DL_APPEND(f->waits, &w->wait);
}

static void finish(struct fetch_wish *w, int status)
{
	struct fetch *f = w->fetch;

	atomic_fetch_sub(&f->fetcher->wishes, 1);
	w->cb(w->arg, status);
	fetch_wish_unref(w);
}

void fetch_wish_answer(struct fetch *f, struct fetch_wait *wait, const struct fetch_end *end)
{
	struct fetch_wish *w = wish_of(wait);
	bool is_again = end->is_dropped;

	wd_lock(&f->lock);
	w->wait.is_listed = false;
	is_again = is_again && !w->is_cancelled;
	if (is_again)
		list_wish_locked(f, w);
	wd_unlock(&f->lock);
	if (is_again) {
		enqueue(f, w->priority, true);
		pump(f->fetcher);
	} else {
		finish(w, end->is_refused ? -ENOSPC : end->is_dropped ? -ECANCELED : end->status);
	}
}

int fetch_wish(struct fetch *f, uint64_t offset, uint64_t len, enum get_priority priority,
	void (*cb)(void *arg, int status), void *arg, struct fetch_wish **ret_wish)
{
	struct fetch_wish *w = calloc(1, sizeof(*w));

	assert(priority >= GET_WARM && priority < GET_DEMAND && offset <= f->size && len <= f->size - offset);
	if (!w)
		return -ENOMEM;
	if (atomic_fetch_add(&f->fetcher->wishes, 1) >= FETCH_MAX_WISHES) {
		atomic_fetch_sub(&f->fetcher->wishes, 1);
		free(w);
		return -EAGAIN;
	}
	w->wait = (struct fetch_wait){.offset = offset,
		.len = offset || len ? len : f->size,
		.flags = FETCH_WISH | FETCH_CACHE_ONLY};
	w->fetch = fetch_ref(f);
	w->priority = priority;
	w->cb = cb;
	w->arg = arg;
	w->refs = ret_wish ? 2 : 1;
	if (ret_wish)
		*ret_wish = w;
	if (w->wait.len == 0) {
		finish(w, 0);
		return 0;
	}
	wd_lock(&f->lock);
	list_wish_locked(f, w);
	wd_unlock(&f->lock);
	enqueue(f, priority, false);
	pump(f->fetcher);
	return 0;
}

void fetch_wish_cancel(struct fetch_wish *w)
{
	struct fetch *f = w->fetch;
	bool is_ours;

	wd_lock(&f->lock);
	is_ours = w->wait.is_listed;
	w->is_cancelled = true;
	w->wait.is_listed = false;
	if (is_ours)
		DL_DELETE(f->waits, &w->wait);
	wd_unlock(&f->lock);
	if (!is_ours)
		return;
	fetch_transfers_prioritise(f, (uint32_t)(w->wait.offset / WD_BLOCK_SIZE), wish_end(w) - 1, GET_UNWANTED);
	finish(w, -ECANCELED);
}

void fetch_wish_unref(struct fetch_wish *w)
{
	if (!w || atomic_fetch_sub(&w->refs, 1) != 1)
		return;
	fetch_unref(w->fetch);
	free(w);
}
