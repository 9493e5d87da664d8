/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datasets: opened or joined, shared by mounts, closed, counted.
 *
 * A dataset's root id is remembered by place and identity, so that a restarted agent gives the same ids again.
 * The last one to let go leaves the closing to tree_reap, as an origin waits for its transfers when it is
 * closed. tree->lock guards the lists and the references; it is not held over a metadata call.
 */
#include "agent/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tree_internal.h"
#include "common/cleanup.h"

struct tree *tree_new(struct meta *meta, const struct settings *settings)
{
	struct tree *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->meta = meta;
	t->settings = settings;
	wd_mutex_init(&t->lock);
	return t;
}

struct dataset_record {
	uint64_t root;
};

static void dataset_free(struct dataset *ds)
{
	if (!ds)
		return;
	origin_close(ds->origin);
	free(ds->place);
	free(ds->identity);
	wd_cond_done(&ds->landed);
	wd_mutex_done(&ds->lock);
	wd_mutex_done(&ds->children);
	free(ds);
}

/* The dataset's root id, remembered from earlier or begun now. */
static int load_root(struct tree *t, struct dataset *ds)
{
	char text[2048];
	struct object_id key;
	struct dataset_record record;
	struct node node = {.is_dir = true};
	struct node_links links;
	size_t len;
	int n = snprintf(text, sizeof(text), "%s\n%s", ds->place, ds->identity);

	if (n < 0 || (size_t)n >= sizeof(text))
		return -ENAMETOOLONG;
	object_id_make(text, (size_t)n, &key);
	if (meta_get(t->meta, META_DATASETS, key.b, sizeof(key.b), &record, sizeof(record), &len) == 0 &&
		len == sizeof(record) && node_load(t->meta, record.root, &node, &links) == 0) {
		ds->root = record.root;
		return 0;
	}
	ds->root = record.root = meta_next_id(t->meta);
	node = (struct node){.is_dir = true, .node = ds->root, .ino = ds->root};
	links = (struct node_links){.dataset = ds->root};
	node_save(t->meta, &node, &links);
	meta_put(t->meta, META_DATASETS, key.b, sizeof(key.b), &record, sizeof(record));
	return 0;
}

static struct dataset *find_dataset_locked(struct tree *t, const char *place, const char *identity)
	WD_REQUIRES(t->lock)
{
	for (struct dataset *ds = t->datasets; ds; ds = ds->next)
		if (strcmp(ds->place, place) == 0 && strcmp(ds->identity, identity) == 0)
			return ds;
	return NULL;
}

int tree_dataset(struct tree *t, struct origin *origin, const char *place, const char *identity,
	const struct identity *who, bool is_indexed, struct dataset **ret_ds, struct wd_err *err)
{
	struct dataset *ds = calloc(1, sizeof(*ds)), *known;
	int rc = -ENOMEM;

	if (ds) {
		ds->tree = t;
		ds->origin = origin;
		ds->place = strdup(place);
		ds->identity = strdup(identity);
		ds->is_indexed = is_indexed;
		ds->refs = 1;
		wd_mutex_init(&ds->lock);
		wd_lock(&ds->lock);
		ds->who = *who;
		wd_unlock(&ds->lock);
		wd_mutex_init(&ds->children);
		wd_cond_init(&ds->landed);
		rc = ds->place && ds->identity ? load_root(t, ds) : -ENOMEM;
	} else {
		origin_close(origin);
	}
	if (rc < 0) {
		dataset_free(ds);
		return wd_err_sys(err, -rc, "open dataset '%s'", place);
	}
	tree_reap(t);
	wd_lock(&t->lock);
	known = find_dataset_locked(t, place, identity);
	if (known) {
		known->refs++;
	} else {
		ds->next = t->datasets;
		t->datasets = ds;
	}
	wd_unlock(&t->lock);
	if (known)
		dataset_free(ds);
	else
		tree_note_place(ds);
	*ret_ds = known ? known : ds;
	return 0;
}

struct dataset *dataset_ref(struct dataset *ds)
{
	wd_lock(&ds->tree->lock);
	ds->refs++;
	wd_unlock(&ds->tree->lock);
	return ds;
}

void dataset_unref(struct dataset *ds)
{
	if (!ds)
		return;
	struct tree *t = ds->tree;

	wd_lock(&t->lock);
	if (--ds->refs == 0) {
		struct dataset **p = &t->datasets;

		while (*p != ds)
			p = &(*p)->next;
		*p = ds->next;
		ds->next = t->dead;
		t->dead = ds;
	}
	wd_unlock(&t->lock);
}

void tree_reap(struct tree *t)
{
	struct dataset *dead, *next;

	wd_lock(&t->lock);
	dead = t->dead;
	t->dead = NULL;
	wd_unlock(&t->lock);
	for (; dead; dead = next) {
		next = dead->next;
		dataset_free(dead);
	}
	origins_reap();
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	tree_reap(t);
	wd_mutex_done(&t->lock);
	free(t);
}

struct origin *dataset_origin(const struct dataset *ds)
{
	return ds->origin;
}

const char *dataset_identity(const struct dataset *ds)
{
	return ds->identity;
}

void dataset_who(struct dataset *ds, struct identity *ret_who)
{
	wd_lock(&ds->lock);
	*ret_who = ds->who;
	wd_unlock(&ds->lock);
}

int dataset_renew(struct dataset *ds, const struct origin_options *options, const struct identity *who,
	struct wd_err *err)
{
	int rc = origin_set_credentials(ds->origin, options, err);

	if (rc < 0)
		return rc;
	wd_lock(&ds->lock);
	ds->who = *who;
	wd_unlock(&ds->lock);
	return 0;
}

uint64_t dataset_id(const struct dataset *ds)
{
	return ds->root;
}

/* ---- totals ---- */

struct totals_walk {
	unsigned char next[CHILD_KEY_MAX + 1];
	size_t next_len;
	unsigned count;
	uint64_t nodes[1024];
};

static bool totals_visit(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct totals_walk *w = arg;
	struct child child;

	if (key_len > CHILD_KEY_MAX)
		return true;
	memcpy(w->next, key, key_len);
	w->next[key_len] = 0; /* the first key after this one */
	w->next_len = key_len + 1;
	if (len == sizeof(child)) {
		memcpy(&child, value, sizeof(child));
		if (!child.is_dir)
			w->nodes[w->count++] = child.node;
	}
	return w->count < 1024;
}

void tree_totals(struct dataset *ds, struct store *store, struct dataset_totals *ret_totals)
{
	wd_autofree struct totals_walk *w = calloc(1, sizeof(*w));
	struct node node;
	struct node_links links;

	*ret_totals = (struct dataset_totals){0};
	if (!w)
		return;
	if (node_load(ds->tree->meta, ds->root, &node, &links) == 0)
		ret_totals->is_listed = links.dir.listed_ms != 0;
	do {
		w->count = 0;
		if (meta_scan(ds->tree->meta, META_CHILDREN, w->next, w->next_len, totals_visit, w) < 0)
			return;
		for (unsigned i = 0; i < w->count; i++) {
			struct object_id id;
			uint64_t present;

			if (node_load(ds->tree->meta, w->nodes[i], &node, &links) < 0 ||
				links.dataset != ds->root)
				continue;
			ret_totals->files++;
			ret_totals->bytes += node.version.size;
			tree_object_id(ds, &node, &id);
			store_peek(store, &id, node.version.size, &present);
			ret_totals->cached_bytes += present;
		}
	} while (w->count == 1024);
}
