/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files a task wants: everything below the paths that were named, depth first, in the order of listings, but for
 * what size and patterns leave out. A directory is read again from where it was left for one of its own, so the memory
 * is that of one path and of a handful of names, however large the tree is. After the first listing the names are in
 * the metadata; walking again costs no request.
 */
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "agent/warm_internal.h"
#include "common/cleanup.h"
#include "common/log.h"

#define NAMES 64	  /* taken from a directory at a time */
#define DEPTH_MAX 600	  /* a key has 1,024 bytes */
#define PATH_BYTES 4096

struct entry {
	uint64_t cookie;
	struct node node;
	char name[TREE_NAME_MAX + 1];
};

struct frame {
	uint64_t dir, after;
	size_t path_len;
};

struct walk {
	struct warm *warm;
	/* what is done with a file that is wanted; false: that was enough */
	bool (*on_file)(struct walk *walk, uint64_t parent, const struct node *node, const char *path);
	bool is_counting; /* a recount: nothing is told */
	uint64_t present;
	size_t depth, path_len;
	struct frame frames[DEPTH_MAX];
	char path[PATH_BYTES];
	unsigned nnames;
	struct entry names[NAMES];
};

/* ---- filters ---- */

static bool matches(char *const *patterns, const char *path)
{
	for (; *patterns; patterns++)
		if (fnmatch(*patterns, path, 0) == 0)
			return true;
	return false;
}

static bool is_wanted(const struct warm *w, const struct node *node, const char *path)
{
	if (w->options.max_file_size && node->version.size > w->options.max_file_size)
		return false;
	return !matches(w->excludes, path) && (!w->includes[0] || matches(w->includes, path));
}

/* ---- walking ---- */

/* A recount asks the origin for nothing: what was known then is what is counted. */
static int64_t ttl_of(const struct walk *walk)
{
	return walk->is_counting ? INT64_MAX / 2 : walk->warm->mount->options->metadata_ttl;
}

static bool collect(void *arg, uint64_t cookie, const char *name, const struct node *node)
{
	struct walk *walk = arg;
	struct entry *e = &walk->names[walk->nnames++];

	e->cookie = cookie;
	e->node = *node;
	snprintf(e->name, sizeof(e->name), "%s", name);
	/* what follows a directory would be forgotten while that one is walked */
	return !node->is_dir && walk->nnames < NAMES;
}

static bool append(struct walk *walk, size_t at, const char *name)
{
	size_t len = strlen(name), need = at + (at > 0) + len;

	if (need >= sizeof(walk->path))
		return false;
	if (at > 0)
		walk->path[at++] = '/';
	memcpy(walk->path + at, name, len + 1);
	walk->path_len = need;
	return true;
}

static void fail(struct walk *walk, const char *path, int code, const char *text)
{
	if (!walk->is_counting)
		warm_note_failure(walk->warm, path[0] ? path : ".", code, text);
}

static bool file_found(struct walk *walk, uint64_t parent, const struct node *node)
{
	struct warm *w = walk->warm;

	if (is_wanted(w, node, walk->path))
		return walk->on_file(walk, parent, node, walk->path);
	if (!walk->is_counting) {
		wd_lock(&w->lock);
		w->p.files_skipped++;
		wd_unlock(&w->lock);
	}
	return true;
}

static bool enter(struct walk *walk, uint64_t dir)
{
	if (walk->depth == DEPTH_MAX)
		return false;
	walk->frames[walk->depth++] = (struct frame){dir, 0, walk->path_len};
	return true;
}

/* The next names of the innermost directory; false: the walk shall end. */
static bool step(struct walk *walk)
{
	struct mount *mnt = walk->warm->mount;
	struct frame *f = &walk->frames[walk->depth - 1];
	struct wd_err err = WD_ERR_INIT;
	size_t len = f->path_len;
	uint32_t ttl_ms;
	bool is_end = false;
	int rc;

	walk->nnames = 0;
	rc = tree_readdir(mnt->dataset, f->dir, f->after, ttl_of(walk), collect, walk, &is_end, &ttl_ms, &err);
	walk->path[len] = '\0';
	if (rc < 0) {
		if (!walk->is_counting)
			wd_warn("warm '%s': %s", mnt->target, err.msg);
		fail(walk, walk->path, -rc, "it cannot be listed; the agent's log says why");
		walk->depth--;
		return true;
	}
	if (walk->nnames == 0) {
		walk->depth--;
		return true;
	}
	for (unsigned i = 0; i < walk->nnames; i++) {
		const struct entry *e = &walk->names[i];

		f->after = e->cookie;
		if (!append(walk, len, e->name))
			continue;
		if (!e->node.is_dir && !file_found(walk, f->dir, &e->node))
			return false;
		if (e->node.is_dir && !enter(walk, e->node.node))
			fail(walk, walk->path, ELOOP, "too deep");
		if (!walk->is_counting && warm_must_end(walk->warm))
			return false;
	}
	return true;
}

/* A path that was named, component by component. */
static int resolve(struct walk *walk, const char *path, uint64_t *ret_parent, struct node *ret_node)
{
	struct mount *mnt = walk->warm->mount;
	struct wd_err err = WD_ERR_INIT;
	char name[TREE_NAME_MAX + 1];
	uint32_t ttl_ms;
	int rc = tree_node(mnt->dataset, TREE_ROOT, ret_node);

	*ret_parent = TREE_ROOT;
	walk->path[0] = '\0';
	walk->path_len = 0;
	for (const char *p = path + strspn(path, "/"); *p && rc == 0; p += strspn(p, "/")) {
		size_t len = strcspn(p, "/");

		snprintf(name, sizeof(name), "%.*s", (int)len, p);
		p += len;
		if (!ret_node->is_dir)
			return -ENOTDIR;
		*ret_parent = ret_node->node;
		rc = tree_lookup(mnt->dataset, *ret_parent, name, ttl_of(walk), true, ret_node, &ttl_ms, &err);
		if (rc == 0 && !append(walk, walk->path_len, name))
			rc = -ENAMETOOLONG;
	}
	return rc;
}

/* False: the walk shall end. */
static bool walk_path(struct walk *walk, const char *path)
{
	struct node node;
	uint64_t parent;
	int rc = resolve(walk, path, &parent, &node);

	if (rc < 0) {
		fail(walk, path, -rc, rc == -ENOENT ? "there is no such file or directory" : strerrordesc_np(-rc));
		return true;
	}
	if (!node.is_dir)
		return file_found(walk, parent, &node);
	walk->depth = 0;
	enter(walk, node.node);
	while (walk->depth > 0)
		if (!step(walk))
			return false;
	return true;
}

static bool walk_all(struct walk *walk)
{
	char *const *path = walk->warm->paths;

	if (!*path)
		return walk_path(walk, "");
	for (; *path; path++)
		if (!walk_path(walk, *path))
			return false;
	return true;
}

/* ---- a recount ---- */

static bool count_file(struct walk *walk, uint64_t parent, const struct node *node, const char *path)
{
	struct mount *mnt = walk->warm->mount;
	struct object_id id;
	uint64_t present = 0;

	if (node->version.is_bound) {
		tree_object_id(mnt->dataset, node, &id);
		store_peek(mnt->agent->store, &id, node->version.size, &present);
	}
	walk->present += present;
	return true;
}

uint64_t warm_recount(struct warm *w)
{
	wd_autofree struct walk *walk = calloc(1, sizeof(*walk));
	uint64_t present = 0;

	if (!walk)
		return 0;
	walk->warm = w;
	walk->on_file = count_file;
	walk->is_counting = true;
	walk_all(walk);
	present = walk->present;
	return present;
}

/* ---- the thread ---- */

static bool warm_file(struct walk *walk, uint64_t parent, const struct node *node, const char *path)
{
	struct warm *w = walk->warm;

	wd_lock(&w->lock);
	w->p.files++;
	w->p.bytes += node->version.size;
	wd_unlock(&w->lock);
	warm_file_begin(w, parent, node, path);
	return !warm_must_end(w);
}

static enum warm_state end_of(struct warm *w)
{
	enum warm_state state = WARM_DONE;

	if (atomic_load(&w->is_cancelled))
		return WARM_CANCELLED;
	if (atomic_load(&w->has_no_room))
		return WARM_NO_ROOM;
	wd_lock(&w->lock);
	if (w->p.files_failed > 0)
		state = WARM_PARTLY;
	wd_unlock(&w->lock);
	return state;
}

void *warm_run(void *arg)
{
	struct warm *w = arg;
	struct walk *walk = calloc(1, sizeof(*walk));

	if (walk) {
		walk->warm = w;
		walk->on_file = warm_file;
		if (walk_all(walk)) {
			wd_lock(&w->lock);
			w->p.is_listed = true;
			warm_changed_locked(w);
			wd_unlock(&w->lock);
		}
		free(walk);
	} else {
		warm_note_failure(w, ".", ENOMEM, "the agent is out of memory");
	}
	warm_files_wait(w);
	warm_ended(w, end_of(w));
	return NULL;
}
