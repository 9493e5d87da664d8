/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks over what is known of a dataset, which ask the origin for nothing: what is listed or was looked up is in the
 * metadata. A directory is read again from where it was left for one of its own, so the memory is that of one path.
 */
#include "agent/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tree_internal.h"
#include "common/cleanup.h"

#define NAMES 256	 /* read from a directory at a time */
#define DEPTH_MAX 600	 /* a key has 1,024 bytes */

struct frame {
	uint64_t dir;
	unsigned char next[CHILD_KEY_MAX + 1]; /* where to go on */
	size_t next_len;
};

struct known {
	struct frame frames[DEPTH_MAX];
	unsigned depth;
	bool is_end; /* of the innermost directory */
	unsigned n;
	uint64_t files[NAMES];
	uint64_t into; /* a directory, behind the files; 0: none */
};

static bool visit(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct known *k = arg;
	struct frame *f = &k->frames[k->depth - 1];
	struct child child;

	if (key_len > CHILD_KEY_MAX)
		return true;
	memcpy(f->next, key, key_len);
	f->next[key_len] = 0;
	f->next_len = key_len + 1;
	if (len != sizeof(child))
		return true;
	memcpy(&child, value, sizeof(child));
	if (child.is_dir) {
		k->into = child.ino;
		k->is_end = false;
		return false;
	}
	k->files[k->n++] = child.node;
	k->is_end = k->n < NAMES;
	return k->is_end;
}

static bool is_listed(struct meta *m, uint64_t dir)
{
	struct node node;
	struct node_links links;

	return node_load(m, dir, &node, &links) == 0 && links.dir.listed_ms != 0 && links.dir.listed_ms > meta_lost_ms(m);
}

static bool enter(struct known *k, uint64_t dir)
{
	struct frame *f;

	if (k->depth == DEPTH_MAX)
		return false;
	f = &k->frames[k->depth++];
	f->dir = dir;
	key_u64(f->next, dir);
	f->next_len = 8;
	return true;
}

/* The next names of the innermost directory. */
static int read_on(struct meta *m, struct known *k)
{
	const struct frame *f = &k->frames[k->depth - 1];
	unsigned char from[sizeof(f->next)];
	size_t len = f->next_len;

	memcpy(from, f->next, len);
	k->n = 0;
	k->into = 0;
	k->is_end = true;
	return meta_scan_below(m, META_CHILDREN, from, len, 8, visit, k);
}

int tree_known(struct dataset *ds, uint64_t dir, tree_known_cb cb, void *arg, bool *ret_is_whole)
{
	wd_autofree struct known *k = calloc(1, sizeof(*k));
	struct meta *m = ds->tree->meta;
	uint64_t first = dir == TREE_ROOT ? ds->root : dir;
	bool is_whole = is_listed(m, first);

	if (!k)
		return -ENOMEM;
	enter(k, first);
	while (k->depth > 0) {
		int rc = read_on(m, k);

		if (rc < 0)
			return rc;
		for (unsigned i = 0; i < k->n; i++) {
			struct node node;
			struct node_links links;

			if (node_load(m, k->files[i], &node, &links) == 0 && !node.is_dir && !cb(arg, &node))
				return -ECANCELED;
		}
		if (k->into) {
			is_whole = is_listed(m, k->into) && is_whole;
			is_whole = enter(k, k->into) && is_whole;
		} else if (k->is_end) {
			k->depth--;
		}
	}
	if (ret_is_whole)
		*ret_is_whole = is_whole;
	return 0;
}

/* ---- sums ---- */

struct sum {
	struct dataset *dataset;
	struct store *store;
	struct dataset_totals *totals;
	bool with_uses;
};

static bool add_file(void *arg, const struct node *node)
{
	struct sum *s = arg;
	struct object_id id;
	uint64_t present = 0, used_s;

	tree_object_id(s->dataset, node, &id);
	store_peek(s->store, &id, node->version.size, &present);
	used_s = present && s->with_uses ? store_last_used(s->store, &id) : 0;
	if (used_s > s->totals->last_used_s)
		s->totals->last_used_s = used_s;
	s->totals->files++;
	s->totals->bytes += node->version.size;
	s->totals->cached_bytes += present;
	return true;
}

int tree_sum(struct dataset *ds, uint64_t dir, struct store *store, bool with_uses, struct dataset_totals *ret_totals)
{
	struct sum sum = {ds, store, ret_totals, with_uses};

	*ret_totals = (struct dataset_totals){0};
	return tree_known(ds, dir, add_file, &sum, &ret_totals->is_listed);
}

int tree_find(struct dataset *ds, const char *path, int64_t ttl_ms, struct node *ret_node, struct wd_err *err)
{
	char name[TREE_NAME_MAX + 1];
	uint32_t left_ms;
	int rc = tree_node(ds, TREE_ROOT, ret_node);

	for (const char *p = path + strspn(path, "/"); *p && rc == 0; p += strspn(p, "/")) {
		size_t len = strcspn(p, "/");

		if (len > TREE_NAME_MAX)
			return wd_err_sys(err, ENAMETOOLONG, "'%.200s'", path);
		if (!ret_node->is_dir)
			return wd_err_sys(err, ENOTDIR, "'%.200s'", path);
		memcpy(name, p, len);
		name[len] = '\0';
		p += len;
		rc = tree_lookup(ds, ret_node->node, name, ttl_ms, true, ret_node, &left_ms, err);
		if (rc == -ENOENT)
			wd_err_sys(err, ENOENT, "'%.200s'", path);
	}
	return rc;
}
