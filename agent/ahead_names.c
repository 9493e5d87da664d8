/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of a directory: read from the metadata in the order of bytes, put into natural order, and found again by
 * their nodes. On a worker.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/ahead_internal.h"
#include "agent/natural.h"

#define WINDOW_FILES 256

struct names {
	uint32_t n, room;
	uint64_t *nodes;
	char **names;
	bool is_bad; /* too many, or out of memory */
};

static bool add_name(void *arg, const char *name, uint64_t node)
{
	struct names *l = arg;

	if (l->n == l->room) {
		uint32_t room = l->room ? l->room * 2 : 256;
		uint64_t *nodes = room > RUNS_FILES_MAX ? NULL : realloc(l->nodes, room * sizeof(*nodes));
		char **names = NULL;

		if (nodes) {
			l->nodes = nodes;
			names = realloc(l->names, room * sizeof(*names));
		}
		if (!names) {
			l->is_bad = true;
			return false;
		}
		l->names = names;
		l->room = room;
	}
	l->names[l->n] = strdup(name);
	l->nodes[l->n] = node;
	l->is_bad = !l->names[l->n];
	l->n += !l->is_bad;
	return !l->is_bad;
}

static void names_done(struct names *l)
{
	for (uint32_t i = 0; i < l->n; i++)
		free(l->names[i]);
	free(l->names);
	free(l->nodes);
}

static int by_natural(const void *a, const void *b, void *arg)
{
	char *const *names = arg;

	return natural_compare(names[*(const uint32_t *)a], names[*(const uint32_t *)b]);
}

static int by_id(const void *a, const void *b, void *arg)
{
	const uint64_t *nodes = arg, x = nodes[*(const uint32_t *)a], y = nodes[*(const uint32_t *)b];

	return x < y ? -1 : x > y;
}

/* 0 .. n-1 sorted by compare; NULL: out of memory. */
static uint32_t *sorted(uint32_t n, int (*compare)(const void *, const void *, void *), void *arg)
{
	uint32_t *order = malloc((n + 1) * sizeof(*order));

	for (uint32_t i = 0; order && i < n; i++)
		order[i] = i;
	if (order)
		qsort_r(order, n, sizeof(*order), compare, arg);
	return order;
}

static bool is_identity(const uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (order[i] != i)
			return false;
	return true;
}

static struct runs *runs_of(const struct names *l)
{
	uint32_t *natural = sorted(l->n, by_natural, l->names);
	struct runs *runs = natural ? runs_new(l->n, is_identity(natural, l->n) ? NULL : natural) : NULL;

	free(natural);
	return runs;
}

/* -1: not among its names. */
int64_t dir_place_of(const struct dir *d, uint64_t node)
{
	uint32_t low = 0, high = d->nfiles;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (d->nodes[d->by_node[mid]] < node)
			low = mid + 1;
		else
			high = mid;
	}
	return low < d->nfiles && d->nodes[d->by_node[low]] == node ? (int64_t)d->by_node[low] : -1;
}

/* Puts what was read in place; what was opened meanwhile is told. */
static void settle_locked(struct ahead *h, struct dir *d, struct names *l, struct runs *runs, uint32_t *by_node)
	WD_REQUIRES(h->lock)
{
	d->runs = runs;
	d->by_node = by_node;
	d->nodes = l->nodes;
	l->nodes = NULL;
	d->nfiles = l->n;
	d->nunknown = 0;
	d->state = DIR_READY;
	if (!d->is_dropped)
		h->nfiles += d->nfiles;
	for (unsigned i = 0; i < FIRST_OPENS; i++) {
		int64_t place = d->first[i] ? dir_place_of(d, d->first[i]) : -1;

		if (place >= 0)
			count_found(runs_open(d->runs, (uint32_t)place, 0, &d->limits).found);
		d->first[i] = 0;
	}
}

static struct runs_limits limits_of(const struct agent *a)
{
	struct store_stats store;
	uint64_t window = (uint64_t)a->settings->directory_window;

	store_get_stats(a->store, &store);
	return (struct runs_limits){window < store.limit_bytes / 8 ? window : store.limit_bytes / 8, WINDOW_FILES,
		store_room(a->store)};
}

/* Reads the names of the directory. What it had is let go of. */
void dir_build(struct dir *d)
{
	struct ahead *h = d->ahead;
	struct runs_limits limits = limits_of(h->agent);
	struct wanted *list = NULL;
	struct names l = {0};
	struct runs *runs = NULL, *old_runs;
	uint32_t *by_node = NULL, *old_by_node;
	uint64_t *old_nodes;
	int rc = tree_names(d->dataset, d->key.dir, d->is_numbered, add_name, &l);

	if (rc == 0 && !l.is_bad && l.n > 1) {
		runs = runs_of(&l);
		by_node = sorted(l.n, by_id, l.nodes);
	}
	wd_lock(&h->lock);
	old_runs = d->runs;
	old_by_node = d->by_node;
	old_nodes = d->nodes;
	if (!d->is_dropped)
		h->nfiles -= d->nfiles;
	d->runs = NULL;
	d->by_node = NULL;
	d->nodes = NULL;
	d->nfiles = 0;
	d->limits = limits;
	unwant_all_locked(d, &list); /* their places are no more */
	account_unused_locked(d, d->done_files);
	if (runs && by_node) {
		settle_locked(h, d, &l, runs, by_node);
		runs = NULL;
		by_node = NULL;
	} else {
		d->state = DIR_HOPELESS;
	}
	wd_unlock(&h->lock);
	cancel_all(list);
	runs_free(runs);
	free(by_node);
	runs_free(old_runs);
	free(old_by_node);
	free(old_nodes);
	names_done(&l);
}

