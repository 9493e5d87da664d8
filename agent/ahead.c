/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ahead.h.
 *
 *	ahead_opened ─► 2 opens ─► build (worker): names ─► runs ─┐
 *	     │                                                    ▼
 *	     └───────────────── place ─► runs_open ─► wants? ─► work (worker): bind, wish ─► wanted ─► landed
 *	                                                  ▲                                               │
 *	                                                  └─────────── there is room again ───────────────┘
 *
 * One job per directory is under way at a time. ahead_opened comes on the hub's and on worker threads, landed() on
 * whatever thread ends a wish.
 */
#include "agent/ahead.h"

#include <stdlib.h>
#include <string.h>

#include "agent/ahead_internal.h"
#include "agent/mount.h"
#include "agent/natural.h"

#define UNKNOWN_MIN 8 /* opens of files that are not among its names */
#define IDLE_NS 60000000000LL

struct ahead *ahead_new(struct agent *a)
{
	struct ahead *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	h->agent = a;
	wd_mutex_init(&h->lock);
	h->jobs = jobs_new(WORKERS, JOBS);
	if (!h->jobs) {
		wd_mutex_done(&h->lock);
		free(h);
		return NULL;
	}
	return h;
}

/* ---- directories ---- */

static void dir_free(struct dir *d)
{
	dataset_unref(d->dataset);
	flow_unref(d->flow);
	runs_free(d->runs);
	free(d->by_node);
	free(d->nodes);
	free(d);
}

void dir_unref(struct dir *d)
{
	struct ahead *h = d->ahead;
	bool is_last;

	wd_lock(&h->lock);
	is_last = --d->refs == 0;
	wd_unlock(&h->lock);
	if (is_last)
		dir_free(d);
}

static void unlink_locked(struct ahead *h, struct dir *d) WD_REQUIRES(h->lock)
{
	*(d->prev ? &d->prev->next : &h->oldest) = d->next;
	*(d->next ? &d->next->prev : &h->newest) = d->prev;
	d->prev = d->next = NULL;
}

static void link_newest_locked(struct ahead *h, struct dir *d) WD_REQUIRES(h->lock)
{
	d->prev = h->newest;
	d->next = NULL;
	*(h->newest ? &h->newest->next : &h->oldest) = d;
	h->newest = d;
}

/* Puts a wanted file on the list of those to be cancelled, unless its maker has to. */
void unwant_locked(struct wanted *w, struct wanted **list)
{
	if (w->is_unwanted)
		return;
	w->is_unwanted = true;
	if (!w->wish)
		return;
	w->refs++;
	w->next = *list;
	*list = w;
}

void unwant_all_locked(struct dir *d, struct wanted **list)
{
	struct wanted *w, *tmp;

	HASH_ITER(hh, d->wanted, w, tmp)
		unwant_locked(w, list);
}

void account_unused_locked(struct dir *d, uint64_t files)
{
	uint64_t bytes = files >= d->done_files ? d->done_bytes : d->done_bytes / d->done_files * files;

	if (files > d->done_files)
		files = d->done_files;
	d->done_files -= files;
	d->done_bytes -= bytes;
	metric_add(METRIC_PREFETCH_UNUSED, bytes);
	metric_add(METRIC_AHEAD_FILES_UNUSED, files);
}

/* Takes it out of the table; the caller unrefs it without the lock. */
static void forget_locked(struct ahead *h, struct dir *d, struct wanted **list) WD_REQUIRES(h->lock)
{
	HASH_DEL(h->dirs, d);
	unlink_locked(h, d);
	h->ndirs--;
	h->nfiles -= d->nfiles;
	d->is_dropped = true;
	unwant_all_locked(d, list);
	account_unused_locked(d, d->done_files);
}

void wanted_unref(struct wanted *w)
{
	struct dir *d = w->dir;
	bool is_last;

	wd_lock(&d->ahead->lock);
	is_last = --w->refs == 0;
	wd_unlock(&d->ahead->lock);
	if (!is_last)
		return;
	fetch_wish_unref(w->wish);
	free(w);
	dir_unref(d);
}

void cancel_all(struct wanted *list)
{
	struct wanted *next;

	for (; list; list = next) {
		next = list->next;
		fetch_wish_cancel(list->wish);
		wanted_unref(list);
	}
}

/* The directory, made if it is new; the oldest makes room. *ret_old: to be unreffed. */
static struct dir *find_dir_locked(struct ahead *h, struct dataset *ds, uint64_t ino, struct dir **ret_old,
	struct wanted **list) WD_REQUIRES(h->lock)
{
	struct dir_key key = {dataset_id(ds), ino};
	struct dir *d;

	HASH_FIND(hh, h->dirs, &key, sizeof(key), d);
	if (d) {
		unlink_locked(h, d);
		link_newest_locked(h, d);
		return d;
	}
	d = calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->key = key;
	d->ahead = h;
	d->dataset = dataset_ref(ds);
	d->refs = 1;
	d->is_numbered = true;
	HASH_ADD(hh, h->dirs, key, sizeof(key), d);
	link_newest_locked(h, d);
	if (++h->ndirs > AHEAD_DIRS || h->nfiles > AHEAD_FILES) {
		*ret_old = h->oldest;
		forget_locked(h, h->oldest, list);
	}
	return d;
}

/* ---- opens ---- */

void count_found(enum runs_pattern found)
{
	static const enum metric metrics[] = {[RUNS_SORTED] = METRIC_DIRS_SORTED,
		[RUNS_STRIDED] = METRIC_DIRS_STRIDED,
		[RUNS_SHUFFLED] = METRIC_DIRS_SHUFFLED};

	if (found != RUNS_NONE)
		metric_inc(metrics[found]);
}

static void use_locked(struct dir *d, uint32_t place, uint64_t size)
{
	struct wanted *w;

	HASH_FIND(hh, d->wanted, &place, sizeof(place), w);
	if (w && !w->is_unwanted) {
		w->is_opened = true;
	} else if (d->done_files > 0) {
		uint64_t bytes = d->done_files == 1 || size > d->done_bytes ? d->done_bytes : size;

		d->done_files--;
		d->done_bytes -= bytes;
		metric_add(METRIC_PREFETCH_USED, bytes);
		metric_inc(METRIC_AHEAD_FILES_USED);
	}
}

static void withdraw_locked(struct dir *d, struct wanted **list)
{
	uint32_t place;

	while (runs_withdrawn(d->runs, &place)) {
		struct wanted *w;

		HASH_FIND(hh, d->wanted, &place, sizeof(place), w);
		if (w)
			unwant_locked(w, list);
		else if (d->done_files > 0)
			account_unused_locked(d, 1);
	}
}

/* room: of the cache, without evictions */
static void open_known_locked(struct dir *d, uint32_t place, uint64_t size, uint64_t room, struct wanted **list)
{
	struct runs_touch touch;

	d->limits.set_bytes = room > d->nwanted * size ? room - d->nwanted * size : 0; /* they are on their way */
	touch = runs_open(d->runs, place, size, &d->limits);
	count_found(touch.found);
	if (touch.was_asked)
		use_locked(d, place, size);
	else
		d->seen[d->nseen++ % SEEN] = d->nodes[place];
	d->is_wanting = touch.is_wanting;
	if (d->nskip > 0 && --d->nskip == 0)
		d->nhere = HERE_MAX / 2; /* half a chance */
	withdraw_locked(d, list);
}

static const char *base_name(const struct node *node)
{
	const char *slash = memrchr(node->key, '/', node->key_len);

	return slash ? slash + 1 : node->key;
}

static void open_first_locked(struct dir *d, const struct node *node)
{
	const char *name = base_name(node);

	if (d->opens > 0 && !natural_are_alike(d->name, name))
		d->is_numbered = false;
	snprintf(d->name, sizeof(d->name), "%.*s", TREE_NAME_MAX, name);
	d->first[d->opens++] = node->node;
	d->seen[d->nseen++ % SEEN] = node->node;
	if (d->opens == FIRST_OPENS)
		d->state = DIR_BUILDING;
}

/* Opens that the server answered by itself: the same files again, for all that is known. */
static void note_unasked_locked(struct dir *d, struct mount *mnt)
{
	uint64_t now = wd_mm_counted(&mnt->mm, WD_MM_PASSTHROUGH_OPENS) +
		wd_mm_counted(&mnt->mm, WD_MM_CACHED_OPENS);

	if (d->mount == mnt->id && now > d->unasked && d->runs)
		runs_repeated(d->runs, now - d->unasked);
	d->mount = mnt->id;
	d->unasked = now;
}

/* Gives back what a directory that nobody comes to any more has asked for. */
static void abandon_idle_locked(struct ahead *h, int64_t now, struct wanted **list) WD_REQUIRES(h->lock)
{
	for (struct dir *d = h->oldest; d && now - d->used_ns > IDLE_NS; d = d->next) {
		if (d->state != DIR_READY || (!d->wanted && !d->done_files))
			continue;
		runs_abandon(d->runs);
		withdraw_locked(d, list);
	}
}

void ahead_opened(struct mount *mnt, const struct node *node)
{
	struct ahead *h = mnt->agent->ahead;
	struct wanted *list = NULL;
	struct dir *d, *old = NULL;
	int64_t now = wd_now_ns(), place;
	uint64_t room;

	if (!h || mnt->agent->settings->directory_window == 0)
		return;
	room = store_room(mnt->agent->store);
	wd_lock(&h->lock);
	abandon_idle_locked(h, now, &list);
	d = h->is_stopping ? NULL : find_dir_locked(h, mnt->dataset, node->parent, &old, &list);
	if (d) {
		d->used_ns = now;
		if (!d->flow)
			d->flow = flow_ref(mnt->flow);
		note_unasked_locked(d, mnt);
		place = d->state == DIR_READY ? dir_place_of(d, node->node) : -1;
		if (d->state == DIR_NEW)
			open_first_locked(d, node);
		else if (place >= 0)
			open_known_locked(d, (uint32_t)place, node->version.size, room, &list);
		else if (d->state == DIR_READY && ++d->nunknown >= UNKNOWN_MIN + d->nfiles / 16)
			d->state = DIR_BUILDING;
		dir_begin_work_locked(d);
	}
	wd_unlock(&h->lock);
	cancel_all(list);
	if (old)
		dir_unref(old);
}

/* ---- the end ---- */

void ahead_drop(struct ahead *h, const struct dataset *ds)
{
	struct wanted *list = NULL;
	struct dir *d, *next, *gone = NULL;

	if (!h)
		return;
	wd_lock(&h->lock);
	for (d = h->oldest; d; d = next) {
		next = d->next;
		if (ds && d->dataset != ds)
			continue;
		forget_locked(h, d, &list);
		d->next = gone;
		gone = d;
	}
	wd_unlock(&h->lock);
	cancel_all(list);
	for (d = gone; d; d = next) {
		next = d->next;
		dir_unref(d);
	}
}

void ahead_stop(struct ahead *h)
{
	if (!h)
		return;
	wd_lock(&h->lock);
	h->is_stopping = true;
	wd_unlock(&h->lock);
	ahead_drop(h, NULL);
	jobs_stop(h->jobs);
	h->jobs = NULL;
}

void ahead_free(struct ahead *h)
{
	if (!h)
		return;
	wd_mutex_done(&h->lock);
	free(h);
}
