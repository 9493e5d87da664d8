/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching what a directory's runs ask for, on a worker: bound as an open would bind it, then wished for. landed()
 * comes on whatever thread ends a wish, before or after fetch_file() is done with it.
 */
#include <errno.h>
#include <stdlib.h>

#include "agent/ahead_internal.h"

#define FLIGHT_PER_DIR 256
#define HERE_PAUSE 512 /* opens, after HERE_MAX */
#define PAUSE_NS 5000000000LL

static void work(void *arg);

/* True when there is something to do, and room for it. */
static bool may_work_locked(struct dir *d)
{
	struct ahead *h = d->ahead;

	if (d->is_working || d->is_dropped || h->is_stopping || h->njobs >= JOBS)
		return false;
	if (d->state == DIR_BUILDING)
		return true;
	return d->state == DIR_READY && d->is_wanting && d->nskip == 0 && h->nflight < AHEAD_FLIGHT &&
	       d->nwanted < FLIGHT_PER_DIR;
}

void dir_begin_work_locked(struct dir *d)
{
	struct ahead *h = d->ahead;

	if (!may_work_locked(d))
		return;
	d->is_working = true;
	d->refs++;
	h->njobs++;
	jobs_run(h->jobs, work, d); /* there is room: it waits for nobody */
}

static void landed(void *arg, int status)
{
	struct wanted *w = arg;
	struct dir *d = w->dir;
	struct ahead *h = d->ahead;

	wd_lock(&h->lock);
	HASH_DEL(d->wanted, w);
	d->nwanted--;
	h->nflight--;
	if (status == 0) {
		metric_add(METRIC_PREFETCH_BYTES, w->size - w->present);
		metric_inc(METRIC_AHEAD_FILES_ISSUED);
	}
	if (status == 0 && w->is_opened) {
		metric_add(METRIC_PREFETCH_USED, w->size - w->present);
		metric_inc(METRIC_AHEAD_FILES_USED);
	} else if (status == 0) {
		d->done_files++;
		d->done_bytes += w->size - w->present;
		if (w->is_unwanted)
			account_unused_locked(d, 1);
	} else if (!w->is_unwanted && d->state == DIR_READY) {
		if (w->place < d->nfiles)
			runs_forget(d->runs, w->place);
		if (status != -ESTALE && status != -ENOENT)
			d->paused_until_ns = wd_now_ns() + PAUSE_NS;
	}
	dir_begin_work_locked(d);
	wd_unlock(&h->lock);
	wanted_unref(w);
}

/* Half of the object is in the cache. */
static bool is_half_here(struct dir *d, uint64_t node)
{
	struct wd_err err = WD_ERR_INIT;
	struct object_id id;
	struct node info;
	uint64_t present = 0;

	if (tree_bind(d->dataset, node, false, &info, &err) < 0)
		return false;
	tree_object_id(d->dataset, &info, &id);
	store_peek(d->ahead->agent->store, &id, info.version.size, &present);
	return present >= info.version.size / 2;
}

/*
 * Whether files of this directory are read whole. Those that were opened first and had not been fetched before show it:
 * the older half of them, since who reads the others may have just begun.
 */
static bool are_read_whole(struct dir *d)
{
	uint64_t seen[SEEN];
	unsigned n, half, first, nwhole = 0;

	wd_lock(&d->ahead->lock);
	n = d->nseen < SEEN ? d->nseen : SEEN;
	first = d->nseen - n;
	for (unsigned i = 0; i < n; i++)
		seen[i] = d->seen[(first + i) % SEEN];
	wd_unlock(&d->ahead->lock);
	half = (n + 1) / 2;
	for (unsigned i = 0; i < half; i++)
		nwhole += is_half_here(d, seen[i]);
	return half > 0 && nwhole * 2 >= half;
}

/* A large file is worth it only where such files are read whole. */
static bool is_worth_it(struct dir *d, uint64_t size)
{
	const struct agent *a = d->ahead->agent;
	struct store_stats store;

	if (size <= (uint64_t)a->settings->small_object_size)
		return true;
	store_get_stats(a->store, &store);
	return size <= store.limit_bytes / 4 && are_read_whole(d);
}

/* Asks for a file. -EBUSY: it is better not to, for now. 0, also where it was there already (*ret_is_here). */
static int fetch_file(struct dir *d, uint32_t place, uint64_t node, bool *ret_is_here)
{
	struct ahead *h = d->ahead;
	struct agent *a = h->agent;
	struct wd_err err = WD_ERR_INIT;
	struct fetch_wish *wish = NULL;
	struct object *object = NULL;
	struct fetch *fetch = NULL;
	struct object_id id;
	struct node info;
	struct wanted *w;
	bool is_unwanted;
	int rc = tree_bind(d->dataset, node, true, &info, &err);

	if (rc < 0)
		return rc;
	if (!is_worth_it(d, info.version.size))
		return -EBUSY;
	tree_object_id(d->dataset, &info, &id);
	rc = store_get(a->store, &id, info.version.size, &object, &err);
	if (rc < 0)
		return rc;
	*ret_is_here = object_is_complete(object);
	if (!*ret_is_here)
		rc = fetch_open(a->fetcher, d->dataset, &info, object, &fetch);
	w = fetch ? calloc(1, sizeof(*w)) : NULL;
	if (!w) {
		fetch_close(fetch);
		object_unref(object);
		return *ret_is_here ? 0 : rc < 0 ? rc : -ENOMEM;
	}
	*w = (struct wanted){.place = place,
		.dir = d,
		.size = info.version.size,
		.present = object_present_bytes(object),
		.refs = 2};
	wd_lock(&h->lock);
	d->refs++;
	HASH_ADD(hh, d->wanted, place, sizeof(w->place), w);
	d->nwanted++;
	h->nflight++;
	wd_unlock(&h->lock);
	fetch_set_flow(fetch, d->flow);
	rc = fetch_wish(fetch, 0, 0, GET_DIRECTORY, landed, w, &wish);
	if (rc < 0)
		landed(w, rc);
	wd_lock(&h->lock);
	w->wish = wish;
	is_unwanted = w->is_unwanted || d->is_dropped;
	wd_unlock(&h->lock);
	if (is_unwanted && wish)
		fetch_wish_cancel(wish);
	wanted_unref(w);
	fetch_close(fetch);
	object_unref(object);
	return rc;
}

/* The next file; false: none, or no room. */
static bool next_locked(struct dir *d, uint32_t *ret_place, uint64_t *ret_node)
{
	struct ahead *h = d->ahead;

	if (d->is_dropped || h->is_stopping || d->state != DIR_READY || d->nskip > 0)
		return false;
	if (h->nflight >= AHEAD_FLIGHT || d->nwanted >= FLIGHT_PER_DIR || wd_now_ns() < d->paused_until_ns)
		return false;
	d->is_wanting = runs_next(d->runs, ret_place);
	if (!d->is_wanting)
		return false;
	*ret_node = d->nodes[*ret_place];
	return true;
}

static void note_locked(struct dir *d, uint32_t place, int rc, bool is_here)
{
	bool was_late = false; /* its reader was faster */

	if (rc == 0 && !is_here) {
		d->nhere = 0;
		return;
	}
	if (d->state == DIR_READY && place < d->nfiles)
		was_late = !runs_forget(d->runs, place);
	if (is_here && !was_late && ++d->nhere >= HERE_MAX)
		d->nskip = HERE_PAUSE;
	if (rc == -EBUSY)
		d->nskip = 1; /* until the next open */
	else if (rc < 0 && rc != -ESTALE && rc != -ENOENT)
		d->paused_until_ns = wd_now_ns() + PAUSE_NS;
}

static void work(void *arg)
{
	struct dir *d = arg;
	struct ahead *h = d->ahead;
	uint32_t place;
	uint64_t node;
	bool is_new, has_more = true;

	wd_lock(&h->lock);
	is_new = d->state == DIR_BUILDING;
	wd_unlock(&h->lock);
	if (is_new)
		dir_build(d);
	while (has_more) {
		bool is_here = false;
		int rc;

		wd_lock(&h->lock);
		has_more = next_locked(d, &place, &node);
		d->is_working = has_more;
		h->njobs -= !has_more;
		wd_unlock(&h->lock);
		if (!has_more)
			break;
		rc = fetch_file(d, place, node, &is_here);
		wd_lock(&h->lock);
		note_locked(d, place, rc, is_here);
		wd_unlock(&h->lock);
	}
	dir_unref(d);
}

