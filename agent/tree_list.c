/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings: pages of keys become children, nodes and cookies.
 *
 * A listing has an id, drawn before the origin is asked; every child it sees is stamped with it, and
 * when the end is reached the children of a listed directory that carry an older stamp are gone at the
 * origin and are removed. Lookups and other listings go on beside it: they draw ids too, and a stamp
 * never goes down, so that nobody removes what a later question has found. A listing that ends early (a
 * page limit, a fault) leaves what it learned and removes nothing.
 *
 * Which listing is made is a matter of cost: an S3 page has 1,000 keys whatever the tree's shape, so
 * a subtree that fits in one page is taken whole, and a dataset in which many directories are listed
 * in one TTL window is taken whole when it fits in WHOLE_PAGES.
 */
#include "agent/tree_internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/hash.h"
#include "agent/metrics.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

#define WHOLE_PAGES 64 /* of 1,000 keys: a dataset up to this size is listed in one go */
#define SWEEP_BATCH 512

struct listed_dir {
	uint64_t ino;
	UT_hash_handle hh;
	size_t key_len;
	char key[];
};

struct listing {
	struct dataset *ds;
	uint64_t id;
	int64_t now_ms;
	bool is_recursive;
	size_t base_len; /* of the directory's key: entries start with it */
	uint64_t base;
	struct listed_dir *dirs; /* by key, base included */
	uint64_t left_out;
	char example[160];
	bool has_failed; /* out of memory */
};

int64_t tree_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void upsert_locked(struct dataset *ds, uint64_t dir, const char *name, const char *key, size_t key_len,
	bool is_dir, const struct version *version, uint64_t list_id, int64_t now_ms,
	struct child *ret_child)
{
	struct meta *m = ds->tree->meta;
	struct node node = {.is_dir = is_dir, .key_len = key_len};
	struct node_links links = {.dataset = ds->root, .parent = dir};
	struct child child;
	bool is_new = child_load(m, dir, name, &child) < 0;
	/* the child may be in memory still, and what belongs to it lost */
	bool is_doubtful = !is_new && child.checked_ms <= meta_lost_ms(m);

	if (WD_FAULT("tree.slow-upsert"))
		sched_yield();
	memcpy(node.key, key, key_len);
	if (!is_new && child.is_dir != is_dir) {
		child_remove(m, dir, name, &child);
		is_new = true;
	}
	if (is_new) {
		child = (struct child){.is_dir = is_dir, .ino = meta_next_id(m)};
		child.node = child.ino;
	}
	if (!is_dir) {
		struct node old;
		struct node_links old_links;
		bool is_same = !is_new && node_load(m, child.node, &old, &old_links) == 0 &&
			version_equal(&old.version, version);

		node.version = *version;
		if (is_same && old.version.is_bound && !version->is_bound) {
			/* the listing knows less than we do */
			memcpy(node.version.etag, old.version.etag, sizeof(old.version.etag));
			node.version.is_bound = true;
		}
		if (!is_same && !is_new)
			child.node = meta_next_id(m);
		node.node = child.node;
		node.ino = child.ino;
		if (!is_same || memcmp(&node.version, &old.version, sizeof(old.version)) != 0)
			node_save(m, &node, &links);
	} else {
		struct node old;
		struct node_links old_links;

		node.node = node.ino = child.ino;
		if (is_new || (is_doubtful && node_load(m, child.node, &old, &old_links) < 0))
			node_save(m, &node, &links);
	}
	child.checked_ms = now_ms;
	if (is_new || list_id > child.list_id)
		child.list_id = list_id;
	if (is_new || is_doubtful)
		child_add(m, dir, name, &child);
	else
		child_save(m, dir, name, &child);
	*ret_child = child;
}

void tree_upsert(struct dataset *ds, uint64_t dir, const char *name, const char *key, size_t key_len,
	bool is_dir, const struct version *version, uint64_t list_id, int64_t now_ms,
	struct child *ret_child)
{
	wd_lock(&ds->children);
	upsert_locked(ds, dir, name, key, key_len, is_dir, version, list_id, now_ms, ret_child);
	wd_unlock(&ds->children);
}

static void leave_out(struct listing *l, const char *why, const char *key, size_t key_len)
{
	if (l->left_out++ == 0)
		snprintf(l->example, sizeof(l->example), "%s: '%.*s'", why,
			key_len > 100 ? 100 : (int)key_len, key);
	metric_inc(METRIC_NAMES_LEFT_OUT);
}

static struct listed_dir *remember_dir(struct listing *l, const char *key, size_t key_len, uint64_t ino)
{
	struct listed_dir *d = malloc(sizeof(*d) + key_len + 1);

	if (!d) {
		l->has_failed = true;
		return NULL;
	}
	d->ino = ino;
	d->key_len = key_len;
	memcpy(d->key, key, key_len);
	d->key[key_len] = '\0';
	HASH_ADD_KEYPTR(hh, l->dirs, d->key, key_len, d);
	return d;
}

/* Returns NULL for a component that POSIX has no name for, else the copied name. */
static const char *component(const char *from, size_t len, char out[TREE_NAME_MAX + 1])
{
	if (len == 0 || len > TREE_NAME_MAX || memchr(from, '\0', len))
		return NULL;
	if (from[0] == '.' && (len == 1 || (len == 2 && from[1] == '.')))
		return NULL;
	memcpy(out, from, len);
	out[len] = '\0';
	return out;
}

/* The directory `name` of parent, stamped by this listing; hides a file of that name. */
static struct listed_dir *enter_dir(struct listing *l, uint64_t parent, const char *name, const char *key,
	size_t key_len)
{
	struct listed_dir *d;
	struct child child;

	HASH_FIND(hh, l->dirs, key, key_len, d);
	if (d)
		return d;
	if (child_load(l->ds->tree->meta, parent, name, &child) == 0 && !child.is_dir &&
		child.list_id >= l->id)
		leave_out(l, "hidden by a directory of the same name", key, key_len - 1);
	tree_upsert(l->ds, parent, name, key, key_len, true, NULL, l->id, l->now_ms, &child);
	return remember_dir(l, key, key_len, child.ino);
}

static void enter_file(struct listing *l, uint64_t parent, const char *name,
	const struct origin_entry *entry)
{
	struct child child;

	if (child_load(l->ds->tree->meta, parent, name, &child) == 0 && child.is_dir &&
		child.list_id >= l->id) {
		leave_out(l, "hidden by a directory of the same name", entry->key, entry->key_len);
		return;
	}
	tree_upsert(l->ds, parent, name, entry->key, entry->key_len, false, &entry->version, l->id,
		l->now_ms, &child);
}

/* Puts one key where it belongs, making the directories on its way. */
static bool place(void *arg, const struct origin_entry *entry)
{
	struct listing *l = arg;
	const char *key = entry->key, *end = key + entry->key_len, *p = key + l->base_len;
	char name[TREE_NAME_MAX + 1];
	uint64_t parent = l->base;

	if (entry->key_len <= l->base_len)
		return true; /* the directory's own marker */
	if (entry->key_len > ORIGIN_KEY_MAX) {
		leave_out(l, "key longer than 1024 bytes", key, entry->key_len);
		return true;
	}
	while (p < end) {
		const char *slash = memchr(p, '/', (size_t)(end - p));
		const char *stop = slash ? slash : end;

		if (!component(p, (size_t)(stop - p), name)) {
			leave_out(l, "no POSIX name", key, entry->key_len);
			return true;
		}
		if (!slash) {
			enter_file(l, parent, name, entry);
			break;
		}
		p = slash + 1;
		struct listed_dir *d = enter_dir(l, parent, name, key, (size_t)(p - key));

		if (!d)
			return false;
		parent = d->ino;
	}
	return !l->has_failed;
}

/* ---- the sweep: children that this listing did not see ---- */

struct sweep {
	uint64_t dir, next;
	bool is_end;
	unsigned count;
	char names[SWEEP_BATCH][TREE_NAME_MAX + 1];
};

static bool sweep_visit(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct sweep *s = arg;

	if (key_len != 16 || key_read_u64(key) != s->dir || len > TREE_NAME_MAX) {
		s->is_end = true;
		return false;
	}
	memcpy(s->names[s->count], value, len);
	s->names[s->count][len] = '\0';
	s->count++;
	s->next = key_read_u64((const unsigned char *)key + 8) + 1;
	s->is_end = false;
	return s->count < SWEEP_BATCH;
}

static int sweep_dir(struct listing *l, uint64_t dir)
{
	struct meta *m = l->ds->tree->meta;
	wd_autofree struct sweep *s = calloc(1, sizeof(*s));
	struct node node;
	struct node_links links;
	int rc;

	if (!s)
		return -ENOMEM;
	s->dir = dir;
	do {
		unsigned char from[16];

		key_u64(from, dir);
		key_u64(from + 8, s->next);
		s->count = 0;
		s->is_end = true;
		rc = meta_scan_below(m, META_COOKIES, from, sizeof(from), 8, sweep_visit, s);
		if (rc < 0)
			return rc;
		for (unsigned i = 0; i < s->count; i++) {
			struct child child;

			wd_lock(&l->ds->children);
			if (child_load(m, dir, s->names[i], &child) == 0 && child.list_id < l->id)
				child_remove(m, dir, s->names[i], &child);
			wd_unlock(&l->ds->children);
		}
	} while (!s->is_end && s->count == SWEEP_BATCH);

	rc = node_load(m, dir, &node, &links);
	if (rc < 0)
		return rc;
	links.dir = (struct dir_state){l->now_ms, l->id};
	node_save(m, &node, &links);
	return 0;
}

/* One listing from dir downwards. -E2BIG when the page limit ended it. */
static int list_from(struct dataset *ds, uint64_t dir, bool is_recursive, unsigned max_pages,
	struct wd_err *err)
{
	struct listing l = {.ds = ds, .is_recursive = is_recursive, .base = dir};
	struct listed_dir *d, *tmp;
	struct node node;
	struct node_links links;
	bool is_complete = false;
	int rc = node_load(ds->tree->meta, dir, &node, &links);

	if (rc < 0 || !node.is_dir)
		return wd_err_set(err, ESTALE, "list: the directory is not known any longer");
	l.id = meta_next_id(ds->tree->meta);
	l.now_ms = tree_now_ms();
	l.base_len = node.key_len;
	if (!remember_dir(&l, node.key, node.key_len, dir))
		return wd_err_set(err, ENOMEM, "list '%s': out of memory", node.key);
	metric_inc(METRIC_LISTINGS);
	rc = origin_list(ds->origin, node.key, is_recursive, max_pages, place, &l, &is_complete, err);
	if (rc == 0 && l.has_failed)
		rc = wd_err_set(err, ENOMEM, "list '%s': out of memory", node.key);
	HASH_ITER(hh, l.dirs, d, tmp) {
		if (rc == 0 && is_complete && (is_recursive || d->ino == dir))
			rc = sweep_dir(&l, d->ino);
		HASH_DEL(l.dirs, d);
		free(d);
	}
	if (l.left_out)
		wd_warn("list '%s%s': %llu names left out, first %s", origin_url(ds->origin), node.key,
			(unsigned long long)l.left_out, l.example);
	if (rc == 0 && !is_complete)
		return wd_err_set(err, E2BIG, "list '%s': more than %u pages", node.key, max_pages);
	return rc;
}

/* Counts this listing and says how many pages of the whole dataset are worth a try; 0: none. */
static unsigned whole_pages(struct dataset *ds, bool is_root)
{
	int64_t now = tree_now_ms(), ttl = ds->tree->settings->metadata_ttl;
	bool is_many;
	unsigned pages = 0;

	wd_lock(&ds->lock);
	if (now - ds->window_ms > ttl || now < ds->window_ms) {
		ds->window_ms = now;
		ds->listings = ds->unknown_lookups = 0;
		ds->has_tried_whole = false;
	}
	is_many = ++ds->listings > (unsigned)ds->tree->settings->list_after_lookups;
	if (is_many && !ds->has_tried_whole) {
		ds->has_tried_whole = true;
		pages = WHOLE_PAGES;
	} else if (is_root) {
		pages = 1;
	}
	wd_unlock(&ds->lock);
	return pages;
}

int tree_list(struct dataset *ds, uint64_t dir, unsigned max_pages, struct wd_err *err)
{
	bool is_root = dir == ds->root;
	unsigned whole;
	int rc;

	if (!origin_lists_recursively(ds->origin))
		return list_from(ds, dir, false, max_pages, err);
	if (ds->is_indexed)
		return list_from(ds, ds->root, true, 0, err);
	whole = whole_pages(ds, is_root);
	if (whole) {
		rc = list_from(ds, ds->root, true, whole, err);
		if (rc != -E2BIG)
			return rc;
	}
	if (!is_root) {
		rc = list_from(ds, dir, true, 1, err);
		if (rc != -E2BIG)
			return rc;
	}
	return list_from(ds, dir, false, max_pages, err);
}
