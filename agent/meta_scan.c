/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scan below one prefix that does not wait for a commit: the uncommitted changes below the prefix are
 * copied and sorted, and merged with what LMDB has. A commit that happens between the copy and the
 * read transaction only makes some entries stand in both; the copy wins.
 */
#include "agent/meta_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OVERLAY_MAX 16384 /* more uncommitted changes below one prefix: wait for the commit instead */

struct overlay {
	struct meta_entry **entries; /* in key order, each key once */
	size_t count, cap, next;
	meta_visit visit;
	void *arg;
	const unsigned char *prefix;
	size_t prefix_len;
	bool is_over;
};

static int compare(const unsigned char *a, size_t a_len, const unsigned char *b, size_t b_len)
{
	int order = memcmp(a, b, a_len < b_len ? a_len : b_len);

	return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int by_key(const void *a, const void *b)
{
	const struct meta_entry *x = *(struct meta_entry *const *)a, *y = *(struct meta_entry *const *)b;

	return compare(x->data, x->key_len, y->data, y->key_len);
}

static void overlay_free(struct overlay *o)
{
	for (size_t i = 0; i < o->count; i++)
		free(o->entries[i]);
	free(o->entries);
}

static int add_copy(struct overlay *o, const struct meta_entry *x)
{
	size_t size = sizeof(*x) + x->key_len + x->len;

	if (o->count == OVERLAY_MAX)
		return -E2BIG;
	if (o->count == o->cap) {
		size_t cap = o->cap ? o->cap * 2 : 64;
		struct meta_entry **grown = realloc(o->entries, cap * sizeof(struct meta_entry *));

		if (!grown)
			return -ENOMEM;
		o->entries = grown;
		o->cap = cap;
	}
	o->entries[o->count] = malloc(size);
	if (!o->entries[o->count])
		return -ENOMEM;
	memcpy(o->entries[o->count++], x, size);
	return 0;
}

/* Copies the changes of b at or behind `from` (with the table byte) and below the prefix; those that
 * `newer` has too are left out. */
static int collect_locked(struct overlay *o, const struct meta_batch *b, const struct meta_batch *newer,
	const unsigned char *from, size_t from_len, size_t prefix_len)
{
	for (struct meta_entry *x = b->entries; x; x = x->hh.next) {
		struct meta_entry *hidden = NULL;
		int rc;

		if (x->key_len < prefix_len || memcmp(x->data, from, prefix_len) != 0 ||
			compare(x->data, x->key_len, from, from_len) < 0)
			continue;
		if (newer)
			HASH_FIND(hh, newer->entries, x->data, x->key_len, hidden);
		rc = hidden ? 0 : add_copy(o, x);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Gives out the copied entries before the key (NULL: all); true when that very key was among them. */
static bool give_until(struct overlay *o, const unsigned char *key, size_t key_len)
{
	while (!o->is_over && o->next < o->count) {
		const struct meta_entry *x = o->entries[o->next];
		int order = key ? compare(x->data + 1, x->key_len - 1u, key, key_len) : -1;

		if (order > 0)
			return false;
		o->next++;
		if (!x->is_delete &&
			!o->visit(o->arg, x->data + 1, x->key_len - 1u, x->data + x->key_len, x->len))
			o->is_over = true;
		if (order == 0)
			return true;
	}
	return false;
}

static bool merge(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct overlay *o = arg;

	if (key_len < o->prefix_len || memcmp(key, o->prefix, o->prefix_len) != 0)
		return false;
	if (!give_until(o, key, key_len) && !o->is_over && !o->visit(o->arg, key, key_len, value, len))
		o->is_over = true;
	return !o->is_over;
}

int meta_scan_below(struct meta *m, enum meta_table table, const void *from, size_t from_len,
	size_t prefix_len, meta_visit visit, void *arg)
{
	struct overlay o = {.visit = visit, .arg = arg, .prefix = from, .prefix_len = prefix_len};
	unsigned char full[META_KEY_MAX + 1];
	int rc;

	full[0] = (unsigned char)table;
	memcpy(full + 1, from, from_len);
	wd_lock(&m->lock);
	rc = collect_locked(&o, &m->pending, NULL, full, from_len + 1, prefix_len + 1);
	if (rc == 0)
		rc = collect_locked(&o, &m->committing, &m->pending, full, from_len + 1, prefix_len + 1);
	wd_unlock(&m->lock);
	if (rc < 0) {
		overlay_free(&o);
		o = (struct overlay){.visit = visit, .arg = arg, .prefix = from, .prefix_len = prefix_len};
		(void)meta_flush(m);
	} else if (o.count > 0) {
		qsort(o.entries, o.count, sizeof(*o.entries), by_key);
	}
	rc = atomic_load(&m->env.is_dead) ? 0 : meta_env_scan(&m->env, table, from, from_len, merge, &o);
	if (rc == -EIO)
		meta_wake(m);
	if (rc == 0)
		give_until(&o, NULL, 0);
	overlay_free(&o);
	return rc;
}
