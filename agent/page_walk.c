/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/page_walk.h"

#include <stdlib.h>
#include <string.h>

struct set {
	uint64_t id; /* of the dataset; sets are in the order of these */
	uint64_t files, bytes, cached;
	int strip; /* -1: none */
};

struct count {
	struct set sets[PAGE_SETS];
	unsigned n;
	struct page_strip strips[PAGE_DATASETS];
};

struct page_walk {
	struct tree *tree;
	struct store *store;
	struct tree_cursor cursor;
	bool is_under_way, is_whole;
	struct count *now, *last;
	struct dataset *const *datasets; /* of the step; in the order in which they came */
	unsigned ndatasets;
};

struct page_walk *page_walk_new(struct tree *tree, struct store *store)
{
	struct page_walk *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->tree = tree;
	w->store = store;
	w->now = calloc(1, sizeof(*w->now));
	w->last = calloc(1, sizeof(*w->last));
	if (!w->now || !w->last) {
		page_walk_free(w);
		return NULL;
	}
	return w;
}

void page_walk_free(struct page_walk *w)
{
	if (!w)
		return;
	free(w->now);
	free(w->last);
	free(w);
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = ((const struct set *)a)->id, y = ((const struct set *)b)->id;

	return (x > y) - (x < y);
}

static struct set *find(struct count *c, uint64_t id)
{
	struct set key = {.id = id};

	return bsearch(&key, c->sets, c->n, sizeof(key), by_id);
}

static void begin(struct page_walk *w)
{
	*w->now = (struct count){.n = w->ndatasets};
	for (unsigned i = 0; i < w->ndatasets; i++)
		w->now->sets[i] = (struct set){.id = dataset_id(w->datasets[i]), .strip = i < PAGE_DATASETS ? (int)i : -1};
	qsort(w->now->sets, w->now->n, sizeof(w->now->sets[0]), by_id);
	w->cursor = (struct tree_cursor){0};
	w->is_under_way = true;
}

static struct dataset *dataset_of(const struct page_walk *w, uint64_t id)
{
	for (unsigned i = 0; i < w->ndatasets; i++)
		if (dataset_id(w->datasets[i]) == id)
			return w->datasets[i];
	return NULL;
}

static void count_file(void *arg, uint64_t dataset, const struct node *node)
{
	struct page_walk *w = arg;
	struct set *set = find(w->now, dataset);
	struct dataset *ds = set ? dataset_of(w, dataset) : NULL;
	uint64_t present[STORE_PIECES], piece, left = node->version.size;
	struct object_id id;
	unsigned n;

	if (!ds)
		return;
	tree_object_id(ds, node, &id);
	n = store_peek_pieces(w->store, &id, left, present, &piece);
	set->files++;
	set->bytes += left;
	for (unsigned i = 0; i < n; i++) {
		uint64_t bytes = left < piece ? left : piece;

		set->cached += present[i];
		if (set->strip >= 0)
			page_strip_add(&w->now->strips[set->strip], bytes, present[i]);
		left -= bytes;
	}
}

bool page_walk_step(struct page_walk *w, struct dataset *const *sets, unsigned n, int64_t budget_ms)
{
	int64_t end_ns = wd_now_ns() + budget_ms * 1000000;
	struct count *done;
	int rc = 0;

	w->datasets = sets;
	w->ndatasets = n;
	if (!w->is_under_way)
		begin(w);
	do {
		rc = tree_walk(w->tree, &w->cursor, count_file, w);
	} while (rc == 0 && wd_now_ns() < end_ns);
	w->datasets = NULL;
	if (rc == 0)
		return false;
	w->is_under_way = false;
	if (rc < 0)
		return false; /* the metadata is in trouble, which the cache's condition says */
	done = w->now;
	w->now = w->last;
	w->last = done;
	w->is_whole = true;
	return true;
}

bool page_walk_is_whole(const struct page_walk *w)
{
	return w->is_whole;
}

void page_walk_look(const struct page_walk *w, const struct dataset *ds, struct page_dataset *ret_d)
{
	struct count *c = w->is_whole ? w->last : w->now;
	const struct set *set = find(c, dataset_id(ds));

	ret_d->files = ret_d->bytes = ret_d->cached = 0;
	ret_d->strip = (struct page_strip){0};
	if (!set)
		return;
	ret_d->files = set->files;
	ret_d->bytes = set->bytes;
	ret_d->cached = set->cached;
	if (set->strip >= 0)
		ret_d->strip = c->strips[set->strip];
}
