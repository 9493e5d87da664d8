/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All datasets of which something is known, mounted or not. Which place a root id is of is written down when the dataset
 * is opened: META_DATASETS has it under "p" and the id, beside the ids themselves, which are found by a hash. A place
 * with a password in it is not written down: such a dataset is known while it is open.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tree_internal.h"
#include "common/cleanup.h"

#define DATASETS_MAX 1024
#define PLACE_MAX 2048

struct known {
	uint64_t root;
	char *place;
};

struct collection {
	unsigned nopen;
	struct dataset *open[DATASETS_MAX];
	unsigned n;
	bool is_out_of_memory;
	struct known items[DATASETS_MAX];
};

void tree_note_place(struct dataset *ds)
{
	unsigned char key[9] = {'p'};

	key_u64(key + 1, ds->root);
	if (strlen(ds->place) < PLACE_MAX && !strchr(ds->place, '@'))
		meta_put(ds->tree->meta, META_DATASETS, key, sizeof(key), ds->place, strlen(ds->place));
}

static bool collect(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct collection *c = arg;
	const unsigned char *bytes = key;

	if (key_len != 9 || bytes[0] != 'p' || len >= PLACE_MAX)
		return true;
	c->items[c->n] = (struct known){key_read_u64(bytes + 1), strndup(value, len)};
	c->is_out_of_memory = !c->items[c->n].place;
	return !c->is_out_of_memory && ++c->n < DATASETS_MAX;
}

static void collect_open(struct tree *t, struct collection *c)
{
	wd_lock(&t->lock);
	for (struct dataset *ds = t->datasets; ds && c->nopen < DATASETS_MAX; ds = ds->next) {
		ds->refs++;
		c->open[c->nopen++] = ds;
	}
	wd_unlock(&t->lock);
}

static bool is_open(const struct collection *c, uint64_t root)
{
	for (unsigned i = 0; i < c->nopen; i++)
		if (c->open[i]->root == root)
			return true;
	return false;
}

static int visit_open(struct dataset *ds, struct store *store, tree_dataset_cb cb, void *arg)
{
	struct dataset_totals totals;
	int rc = tree_sum(ds, ds->root, store, true, &totals);

	return rc == 0 && !cb(arg, origin_url(ds->origin), &totals) ? -ECANCELED : rc;
}

/* What tells places apart begins with the URL. */
static int visit_known(struct tree *t, struct store *store, struct known *k, tree_dataset_cb cb, void *arg)
{
	struct dataset ds = {.tree = t, .place = k->place, .root = k->root};
	struct dataset_totals totals;
	wd_autofree char *url = strndup(k->place, strcspn(k->place, "\n"));
	int rc = url ? tree_sum(&ds, k->root, store, true, &totals) : -ENOMEM;

	return rc == 0 && totals.cached_bytes > 0 && !cb(arg, url, &totals) ? -ECANCELED : rc;
}

int tree_datasets(struct tree *t, struct store *store, tree_dataset_cb cb, void *arg)
{
	wd_autofree struct collection *c = calloc(1, sizeof(*c));
	int rc = c ? meta_scan_below(t->meta, META_DATASETS, "p", 1, 1, collect, c) : -ENOMEM;

	if (!c)
		return rc;
	if (rc == 0 && c->is_out_of_memory)
		rc = -ENOMEM;
	collect_open(t, c);
	for (unsigned i = 0; i < c->nopen; i++)
		if (rc == 0)
			rc = visit_open(c->open[i], store, cb, arg);
	for (unsigned i = 0; i < c->n; i++) {
		if (rc == 0 && !is_open(c, c->items[i].root))
			rc = visit_known(t, store, &c->items[i], cb, arg);
		free(c->items[i].place);
	}
	for (unsigned i = 0; i < c->nopen; i++)
		dataset_unref(c->open[i]);
	return rc;
}
