/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups, attributes and directory reads over what the metadata knows, and the decision when to ask
 * the origin. Questions to the origin are single-flight per (directory, name): the first asker is
 * the leader, the others sleep on the dataset's condition and take the leader's result.
 *
 * dataset->lock guards flights and counters. It is not held over a question to the origin or a
 * metadata call.
 */
#include "agent/tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/metrics.h"
#include "agent/tree_internal.h"
#include "common/cleanup.h"
#include "common/fault.h"

#define LOOKUP_PAGES 20	       /* a listing made for a lookup gives up after this many pages */
#define BIG_DIR_MS (10 * 60000) /* and is not tried again for this long */

/* ---- single flight ---- */

static struct flight *find_flight_locked(struct dataset *ds, uint64_t dir, const char *name)
	WD_REQUIRES(ds->lock)
{
	for (struct flight *f = ds->flights; f; f = f->next)
		if (f->dir == dir && strcmp(f->name, name) == 0)
			return f;
	return NULL;
}

static void flight_unref_locked(struct flight *f)
{
	if (--f->refs == 0)
		free(f);
}

struct flight *tree_flight_join(struct dataset *ds, uint64_t dir, const char *name, int *ret_status)
{
	struct flight *f;

	wd_lock(&ds->lock);
	f = find_flight_locked(ds, dir, name);
	if (f) {
		f->refs++;
		while (!f->is_over)
			wd_cond_wait(&ds->landed, &ds->lock);
		*ret_status = f->status;
		flight_unref_locked(f);
		wd_unlock(&ds->lock);
		return NULL;
	}
	f = calloc(1, sizeof(*f));
	if (f) {
		f->dir = dir;
		f->refs = 1;
		snprintf(f->name, sizeof(f->name), "%s", name);
		f->next = ds->flights;
		ds->flights = f;
	} else {
		*ret_status = -ENOMEM;
	}
	wd_unlock(&ds->lock);
	return f;
}

void tree_flight_land(struct dataset *ds, struct flight *f, int status)
{
	struct flight **p = &ds->flights;

	wd_lock(&ds->lock);
	while (*p != f)
		p = &(*p)->next;
	*p = f->next;
	f->status = status;
	f->is_over = true;
	wd_cond_broadcast(&ds->landed);
	flight_unref_locked(f);
	wd_unlock(&ds->lock);
}

/* ---- what is known ---- */

static uint64_t resolve(const struct dataset *ds, uint64_t node)
{
	return node == TREE_ROOT ? ds->root : node;
}

/* A time stamp is believed when it is younger than the TTL, or than the question itself. */
static bool is_fresh(int64_t stamp_ms, int64_t ttl_ms, int64_t since_ms)
{
	int64_t now = tree_now_ms();

	return stamp_ms > 0 && stamp_ms <= now + 1000 && (stamp_ms + ttl_ms > now || stamp_ms >= since_ms);
}

static uint32_t ttl_left(int64_t stamp_ms, int64_t ttl_ms)
{
	int64_t left = stamp_ms + ttl_ms - tree_now_ms();

	return left < 0 ? 0 : left > UINT32_MAX ? UINT32_MAX : (uint32_t)left;
}

/* The root is known though the metadata may have lost it: it is written down again. */
static int load_node(struct dataset *ds, uint64_t id, struct node *ret_node, struct node_links *ret_links)
{
	int rc = node_load(ds->tree->meta, id, ret_node, ret_links);

	if (rc == 0 || id != ds->root)
		return rc;
	*ret_node = (struct node){.is_dir = true, .node = ds->root, .ino = ds->root};
	*ret_links = (struct node_links){.dataset = ds->root};
	node_save(ds->tree->meta, ret_node, ret_links);
	return 0;
}

static int load_dir(struct dataset *ds, uint64_t dir, struct node *ret_node, struct node_links *ret_links)
{
	int rc = load_node(ds, dir, ret_node, ret_links);

	if (rc < 0 || ret_links->dataset != ds->root)
		return -ESTALE;
	if (ret_links->dir.listed_ms <= meta_lost_ms(ds->tree->meta))
		ret_links->dir.listed_ms = 0; /* its children may be gone */
	return ret_node->is_dir ? 0 : -ENOTDIR;
}

/*
 * An id is given to a kernel only when its record survives our death: an agent that is killed must find it
 * again, or an open file would lose its node and a directory offset its place.
 */
static int wait_saved(struct meta *m, enum meta_table table, const void *key, size_t key_len, bool may_block)
{
	if (meta_is_saved(m, table, key, key_len))
		return 0;
	if (!may_block)
		return -EAGAIN;
	(void)meta_save(m, table, key, key_len); /* a failing disk: go on from memory */
	return 0;
}

/* 0 found, -ENOENT known to be absent, -EAGAIN not known (any longer), or not saved yet. */
static int known_child(struct dataset *ds, uint64_t dir, const char *name, int64_t ttl_ms, int64_t since,
	bool may_block, struct node *ret_node, uint32_t *ret_ttl_ms)
{
	unsigned char key[8], name_key[CHILD_KEY_MAX];
	struct child child;
	struct node node;
	struct node_links links;
	int rc;

	rc = child_load(ds->tree->meta, dir, name, &child);
	if (rc == 0) {
		if (!is_fresh(child.checked_ms, ttl_ms, since))
			return -EAGAIN;
		if (node_load(ds->tree->meta, child.node, ret_node, &links) < 0)
			return -EAGAIN;
		*ret_ttl_ms = ttl_left(child.checked_ms, ttl_ms);
		key_u64(key, child.node);
		rc = wait_saved(ds->tree->meta, META_NODES, key, sizeof(key), may_block);
		if (rc < 0)
			return rc;
		return wait_saved(ds->tree->meta, META_CHILDREN, name_key, child_key(name_key, dir, name),
			may_block);
	}
	if (rc == -EIO)
		return -EAGAIN; /* the metadata cannot be read: it does not know */
	if (WD_FAULT("tree.between-looks")) /* what another thread may do just now */
		tree_list(ds, dir, 0, NULL);
	rc = load_dir(ds, dir, &node, &links);
	if (rc < 0)
		return rc;
	if (!is_fresh(links.dir.listed_ms, ttl_ms, since))
		return -EAGAIN;
	/* a listing that ended between the two looks has written the child down before that */
	if (child_load(ds->tree->meta, dir, name, &child) == 0)
		return -EAGAIN;
	*ret_ttl_ms = ttl_left(links.dir.listed_ms, ttl_ms);
	return -ENOENT;
}

int tree_node(struct dataset *ds, uint64_t node, struct node *ret_node)
{
	struct node_links links;

	if (load_node(ds, resolve(ds, node), ret_node, &links) < 0 || links.dataset != ds->root)
		return -ESTALE;
	if (node == TREE_ROOT)
		ret_node->node = TREE_ROOT;
	return 0;
}

/* ---- asking ---- */

static bool is_big_locked(struct dataset *ds, uint64_t dir, int64_t now) WD_REQUIRES(ds->lock)
{
	for (int i = 0; i < BIG_DIRS; i++)
		if (ds->big_dirs[i].dir == dir && ds->big_dirs[i].until_ms > now)
			return true;
	return false;
}

static bool should_list(struct dataset *ds, uint64_t dir)
{
	int64_t now = tree_now_ms();
	bool is_listing;

	wd_lock(&ds->lock);
	if (now - ds->window_ms > ds->tree->settings->metadata_ttl || now < ds->window_ms) {
		ds->window_ms = now;
		ds->unknown_lookups = ds->listings = 0;
		ds->has_tried_whole = false;
	}
	ds->unknown_lookups++;
	is_listing = ds->is_indexed ||
		(ds->unknown_lookups > (unsigned)ds->tree->settings->list_after_lookups &&
			!is_big_locked(ds, dir, now));
	wd_unlock(&ds->lock);
	return is_listing;
}

int tree_refresh_listing(struct dataset *ds, uint64_t dir, unsigned max_pages, struct wd_err *err)
{
	int status = 0;
	struct flight *f = tree_flight_join(ds, dir, "", &status);

	if (!f)
		return status < 0 ? wd_err_sys(err, -status, "list a directory") : 0;
	status = tree_list(ds, dir, max_pages, err);
	if (status == -E2BIG) {
		wd_lock(&ds->lock);
		ds->big_dirs[ds->next_big].dir = dir;
		ds->big_dirs[ds->next_big].until_ms = tree_now_ms() + BIG_DIR_MS;
		ds->next_big = (ds->next_big + 1) % BIG_DIRS;
		wd_unlock(&ds->lock);
	}
	tree_flight_land(ds, f, status);
	return status;
}

/* The origin said no to a question of that id. 0 when a listing that went on meanwhile may have seen the name
 * since, else -ENOENT. */
static int forget_child(struct dataset *ds, uint64_t dir, const char *name, uint64_t asked_id)
{
	struct child child;
	int rc = -ENOENT;

	wd_lock(&ds->children);
	if (child_load(ds->tree->meta, dir, name, &child) == 0) {
		if (child.list_id > asked_id)
			rc = 0;
		else
			child_remove(ds->tree->meta, dir, name, &child);
	}
	wd_unlock(&ds->children);
	return rc;
}

static int probe_now(struct dataset *ds, const struct node *dir, const char *name, struct wd_err *err)
{
	char key[ORIGIN_KEY_MAX + 2];
	enum origin_kind kind;
	struct version version;
	struct child child;
	uint64_t asked_id = meta_next_id(ds->tree->meta);
	int n = snprintf(key, sizeof(key), "%s%s", dir->key, name), rc;

	if (n > ORIGIN_KEY_MAX - 1)
		return -ENOENT;
	rc = origin_probe(ds->origin, key, &kind, &version, err);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	if (rc == -ENOENT || kind == ORIGIN_NONE)
		return forget_child(ds, dir->ino, name, asked_id);
	if (kind == ORIGIN_PREFIX) {
		key[n++] = '/';
		key[n] = '\0';
	}
	tree_upsert(ds, dir->ino, name, key, (size_t)n, kind == ORIGIN_PREFIX, &version, asked_id,
		tree_now_ms(), &child);
	return 0;
}

static int probe(struct dataset *ds, const struct node *dir, const char *name, struct wd_err *err)
{
	int status = 0;
	struct flight *f = tree_flight_join(ds, dir->ino, name, &status);

	if (!f)
		return status < 0 && status != -ENOENT ? wd_err_sys(err, -status, "look up '%s'", name)
						       : status;
	status = probe_now(ds, dir, name, err);
	tree_flight_land(ds, f, status);
	return status;
}

int tree_lookup(struct dataset *ds, uint64_t dir_node, const char *name, int64_t ttl_ms, bool may_block,
	struct node *ret_node, uint32_t *ret_ttl_ms, struct wd_err *err)
{
	uint64_t dir = resolve(ds, dir_node);
	int64_t since = tree_now_ms();
	struct node parent;
	struct node_links links;
	int rc = known_child(ds, dir, name, ttl_ms, INT64_MAX, may_block, ret_node, ret_ttl_ms);

	if (rc != -EAGAIN || !may_block)
		return rc;
	rc = load_dir(ds, dir, &parent, &links);
	if (rc < 0)
		return wd_err_set(err, -rc, "look up '%s': its directory is not known any longer", name);
	metric_inc(METRIC_LOOKUPS_ORIGIN);
	*ret_ttl_ms = 0;
	if (should_list(ds, dir)) {
		rc = tree_refresh_listing(ds, dir, LOOKUP_PAGES, err);
		if (rc == 0) {
			rc = known_child(ds, dir, name, ttl_ms, since, true, ret_node, ret_ttl_ms);
			if (rc != -EAGAIN)
				return rc;
		} else if (rc != -E2BIG) {
			return rc;
		}
	}
	rc = probe(ds, &parent, name, err);
	if (rc < 0)
		return rc;
	rc = known_child(ds, dir, name, ttl_ms, since, true, ret_node, ret_ttl_ms);
	if (rc == -EAGAIN) /* the origin has it: a version that came meanwhile, or a clock that was set, is no no */
		rc = known_child(ds, dir, name, ttl_ms, 0, true, ret_node, ret_ttl_ms);
	return rc == -EAGAIN ? -ENOENT : rc;
}

/* ---- reading a directory ---- */

#define READDIR_BATCH 256
#define READDIR_TRIES 4

struct batch {
	uint64_t dir;
	unsigned count;
	uint64_t cookies[READDIR_BATCH];
	char names[READDIR_BATCH][TREE_NAME_MAX + 1];
};

static bool batch_visit(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct batch *b = arg;

	if (key_len != 16 || key_read_u64(key) != b->dir || len > TREE_NAME_MAX)
		return false;
	b->cookies[b->count] = key_read_u64((const unsigned char *)key + 8);
	memcpy(b->names[b->count], value, len);
	b->names[b->count][len] = '\0';
	return ++b->count < READDIR_BATCH;
}

/* -EIO: the metadata was lost on the way, and the directory has to be listed again. */
static int give_children(struct dataset *ds, struct batch *b, uint64_t *after, tree_child_cb cb, void *arg,
	bool *ret_is_end)
{
	struct meta *m = ds->tree->meta;
	int64_t lost_ms = meta_lost_ms(m);
	struct node node;

	*ret_is_end = false;
	do {
		unsigned char from[16];
		int rc;

		b->count = 0;
		key_u64(from, b->dir);
		key_u64(from + 8, *after + 1);
		rc = meta_scan_below(m, META_COOKIES, from, sizeof(from), 8, batch_visit, b);
		if (rc < 0)
			return rc;
		for (unsigned i = 0; i < b->count; i++) {
			struct child child;
			struct node_links child_links;

			key_u64(from + 8, b->cookies[i]);
			wait_saved(m, META_COOKIES, from, sizeof(from), true);
			rc = child_load(m, b->dir, b->names[i], &child);
			if (rc == 0)
				rc = node_load(m, child.node, &node, &child_links);
			if (rc == -EIO)
				return rc;
			*after = b->cookies[i];
			if (rc == 0 && !cb(arg, *after, b->names[i], &node))
				return 0;
		}
	} while (b->count == READDIR_BATCH);
	*ret_is_end = true;
	return meta_lost_ms(m) == lost_ms ? 0 : -EIO;
}

int tree_readdir(struct dataset *ds, uint64_t dir_node, uint64_t after, int64_t ttl_ms, tree_child_cb cb,
	void *arg, bool *ret_is_end, uint32_t *ret_ttl_ms, struct wd_err *err)
{
	uint64_t dir = resolve(ds, dir_node);
	wd_autofree struct batch *b = malloc(sizeof(*b));
	bool is_first = after == 0;
	int rc = 0;

	if (!b)
		return wd_err_set(err, ENOMEM, "read directory: out of memory");
	b->dir = dir;
	for (int attempt = 0; attempt < READDIR_TRIES; attempt++) {
		struct node node;
		struct node_links links;

		rc = load_dir(ds, dir, &node, &links);
		if (rc < 0)
			return wd_err_set(err, -rc, "read directory: not known any longer");
		if (links.dir.listed_ms == 0 ||
			(is_first && !is_fresh(links.dir.listed_ms, ttl_ms, INT64_MAX))) {
			rc = tree_refresh_listing(ds, dir, 0, err);
			if (rc < 0)
				return rc;
			rc = load_dir(ds, dir, &node, &links);
			if (rc < 0)
				return wd_err_set(err, -rc, "read directory: it is gone");
		}
		*ret_ttl_ms = ttl_left(links.dir.listed_ms, ttl_ms);
		is_first = false;
		rc = give_children(ds, b, &after, cb, arg, ret_is_end);
		if (rc != -EIO)
			break;
	}
	return rc < 0 ? wd_err_sys(err, -rc, "read a directory: the metadata is lost again and again") : 0;
}
