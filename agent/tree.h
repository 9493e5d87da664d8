/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TREE_H
#define WD_AGENT_TREE_H
/*
 * The namespace: what an origin's keys look like as a file tree.
 *
 * A dataset is one origin seen with one identity; all mounts of it share what is known. A *node id*
 * stands for (path, version) and is never given to anything else; an *ino* stands for the path. A
 * directory's node id is its ino; FUSE's root id 1 stands for the dataset's root. Everything known
 * lives in the metadata (agent/meta.h) and survives restarts.
 *
 * A name is believed for the metadata TTL. An unknown name is asked of the origin one by one at first
 * (HEAD and a one-key LIST); after a few, the directory is listed, and after a few listings the
 * whole dataset where the origin can do that in a bounded number of pages.
 *
 * A key that POSIX cannot name (an empty component, ".", "..", more than 255 bytes, NUL) is left out,
 * and an object whose key is also a prefix is hidden by the directory; both are counted and logged
 * once per listing.
 *
 * Functions with may_block false return -EAGAIN instead of asking the origin or waiting; with true
 * they run on a worker thread. One request per directory or name is under way at a time; others wait
 * for it. Thread-safe.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/identity.h"
#include "agent/meta.h"
#include "agent/origin.h"
#include "agent/settings.h"
#include "agent/store.h"
#include "common/err.h"

#define TREE_NAME_MAX 255
#define TREE_ROOT 1

struct tree;
struct dataset;

struct node {
	uint64_t node, ino;
	uint64_t parent; /* its directory's ino; 0: the root */
	bool is_dir;
	struct version version; /* files */
	size_t key_len;
	char key[ORIGIN_KEY_MAX + 1]; /* directories: "" or with a trailing "/" */
};

struct tree *tree_new(struct meta *meta, const struct settings *settings);
void tree_free(struct tree *t);

/* In a place, between what tells origins apart and the name of a pinned version. */
#define TREE_PLACE_VERSION "\nversion "

/* Opens (or joins) the dataset of this origin and identity; takes ownership of origin either way.
 * `place` tells origins apart (URL, endpoint, index), and versions of a dataset; `identity` credentials; neither holds a secret. `who` are the
 * credentials that origin has; one that is joined keeps its own. */
int tree_dataset(struct tree *t, struct origin *origin, const char *place, const char *identity,
	const struct identity *who, bool is_indexed, struct dataset **ret_ds, struct wd_err *err);
struct dataset *dataset_ref(struct dataset *ds);
/* Any thread, a transfer's callback too: the last one leaves the closing to tree_reap. */
void dataset_unref(struct dataset *ds);
/* Closes the datasets that nobody holds, and origins that were retired. Waits for their transfers, so not from a transfer's callback. */
void tree_reap(struct tree *t);
struct origin *dataset_origin(const struct dataset *ds);
const char *dataset_identity(const struct dataset *ds);
/* Whose credentials the dataset's requests carry at this moment. */
void dataset_who(struct dataset *ds, struct identity *ret_who);
/* Other credentials for the same data: for all mounts of the dataset. */
int dataset_renew(struct dataset *ds, const struct origin_options *options, const struct identity *who,
	struct wd_err *err);
uint64_t dataset_id(const struct dataset *ds);

/* -ESTALE for an id of another epoch, another dataset, or none. */
int tree_node(struct dataset *ds, uint64_t node, struct node *ret_node);

/* *ret_ttl_ms: how much longer the answer may be believed. -ENOENT when there is no such name. */
int tree_lookup(struct dataset *ds, uint64_t dir, const char *name, int64_t ttl_ms, bool may_block,
	struct node *ret_node, uint32_t *ret_ttl_ms, struct wd_err *err);

/* Children of dir from the first cookie > `after` on, until cb returns false. Cookies are >= 16 and
 * never reused in a directory. after 0 makes sure that the listing is fresh. Blocks. */
typedef bool (*tree_child_cb)(void *arg, uint64_t cookie, const char *name, const struct node *node);
int tree_readdir(struct dataset *ds, uint64_t dir, uint64_t after, int64_t ttl_ms, tree_child_cb cb,
	void *arg, bool *ret_is_end, uint32_t *ret_ttl_ms, struct wd_err *err);

/* The files of dir that are known, in the order of the names' bytes, until cb returns false. Directories are left out.
 * may_list: if dir was never listed, it is first, unless it is very large. Blocks. cb may not call the tree. */
typedef bool (*tree_name_cb)(void *arg, const char *name, uint64_t node);
int tree_names(struct dataset *ds, uint64_t dir, bool may_list, tree_name_cb cb, void *arg);

/* Makes sure that the file's version is bound to what the origin has now. -ESTALE when that is not
 * the node's version: the name leads to another node from now on. */
int tree_bind(struct dataset *ds, uint64_t node, bool may_block, struct node *ret_node,
	struct wd_err *err);

/* The node's version is gone at the origin: ask again at the next lookup. */
void tree_expire(struct dataset *ds, uint64_t node);

/* The cache object that holds a bound node's bytes; the same for all identities. */
void tree_object_id(const struct dataset *ds, const struct node *node, struct object_id *ret_id);

/* Totals of what is known, by a walk: files, their bytes, and the part that is in the cache. */
struct dataset_totals {
	uint64_t files, bytes, cached_bytes;
	bool is_listed; /* the root has been listed */
	uint64_t last_used_s; /* of its files in the cache, Unix time; tree_sum() alone */
};
void tree_totals(struct dataset *ds, struct store *store, struct dataset_totals *ret_totals);

/* The root has been listed. */
bool tree_is_listed(struct dataset *ds);

/*
 * The files that are known, of all datasets, a few thousand in each call, from where the cursor stands (all zeros: the
 * beginning). What comes and goes meanwhile may be left out. 0: there may be more; 1: that was all; -errno. No commit is
 * waited for. cb may not walk.
 */
struct tree_cursor {
	unsigned char next[TREE_NAME_MAX + 16];
	size_t len;
};
typedef void (*tree_file_cb)(void *arg, uint64_t dataset, const struct node *node);
int tree_walk(struct tree *t, struct tree_cursor *cursor, tree_file_cb cb, void *arg);

/* ---- tree_known.c ---- */
/* Visits every file that is known below dir, until cb returns false (-ECANCELED). The origin is asked for nothing.
 * ret_is_whole (may be NULL): all directories on the way have been listed. cb may call the tree. */
typedef bool (*tree_known_cb)(void *arg, const struct node *node);
int tree_known(struct dataset *ds, uint64_t dir, tree_known_cb cb, void *arg, bool *ret_is_whole);
/* The totals of what is known below dir; is_listed: all of that has been. with_uses: last_used_s, too. */
int tree_sum(struct dataset *ds, uint64_t dir, struct store *store, bool with_uses, struct dataset_totals *ret_totals);
/* The totals of each dataset that is open, or of which something is in the cache. -ECANCELED: cb returned false. */
typedef bool (*tree_dataset_cb)(void *arg, const char *url, const struct dataset_totals *totals);
int tree_datasets(struct tree *t, struct store *store, tree_dataset_cb cb, void *arg);
/* What is at path ("a/b", "": the root), as tree_lookup() knows each name. Blocks. */
int tree_find(struct dataset *ds, const char *path, int64_t ttl_ms, struct node *ret_node, struct wd_err *err);

#endif
