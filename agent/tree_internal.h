/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TREE_INTERNAL_H
#define WD_AGENT_TREE_INTERNAL_H
/* What tree.c (lookups), tree_dataset.c (datasets), tree_list.c (listings) and tree_version.c
 * (versions) share. */
#include "agent/node_record.h"
#include "agent/tree.h"
#include "common/lock.h"

#define BIG_DIRS 64 /* directories remembered as too large to be listed for a lookup */

struct tree {
	struct meta *meta;
	const struct settings *settings;
	struct wd_mutex lock;
	struct dataset *datasets WD_GUARDED_BY(lock);
	struct dataset *dead WD_GUARDED_BY(lock); /* nobody's; see tree_reap */
};

/* One question to the origin under way; those who want the same wait for its end. */
struct flight {
	uint64_t dir;
	char name[TREE_NAME_MAX + 1]; /* "" for the listing of dir */
	int status;
	bool is_over;
	unsigned refs;
	struct flight *next;
};

struct dataset {
	struct tree *tree;
	struct origin *origin;
	char *place, *identity;
	bool is_indexed; /* the whole dataset is one index file: any listing lists all */
	uint64_t root;	 /* ino, node id and id of the dataset */
	unsigned refs;	 /* guarded by tree->lock */
	struct dataset *next;

	/* Held from reading a child to writing what follows from it, so that no stamp goes down and nothing is
	 * removed that was found meanwhile. Outside of meta's lock; nothing else is taken under it. */
	struct wd_mutex children;

	struct wd_mutex lock;
	struct identity who WD_GUARDED_BY(lock);
	struct wd_cond landed;
	struct flight *flights WD_GUARDED_BY(lock);
	/* counts within the present TTL window, which decide probing or listing */
	int64_t window_ms WD_GUARDED_BY(lock);
	unsigned unknown_lookups WD_GUARDED_BY(lock), listings WD_GUARDED_BY(lock);
	bool has_tried_whole WD_GUARDED_BY(lock);
	struct {
		uint64_t dir;
		int64_t until_ms;
	} big_dirs[BIG_DIRS] WD_GUARDED_BY(lock);
	unsigned next_big WD_GUARDED_BY(lock);
};

int64_t tree_now_ms(void); /* Unix time */

/* The leader gets the flight and must end it with tree_flight_land; a follower waits, gets NULL and the
 * leader's status. */
struct flight *tree_flight_join(struct dataset *ds, uint64_t dir, const char *name, int *ret_status);
void tree_flight_land(struct dataset *ds, struct flight *f, int status);

/*
 * Writes down what the origin has at (dir, name): the same version keeps its node id, another gets a
 * new one; the path keeps its ino unless a file became a directory or the reverse. list_id was drawn
 * with meta_next_id() before the origin was asked. Returns the child as saved.
 */
void tree_upsert(struct dataset *ds, uint64_t dir, const char *name, const char *key, size_t key_len,
	bool is_dir, const struct version *version, uint64_t list_id, int64_t now_ms,
	struct child *ret_child);

/* tree_datasets.c: writes down of which place this is. */
void tree_note_place(struct dataset *ds);

/* One listing of dir, shared by all who want it now. Blocks. -E2BIG as below; remembered for a while. */
int tree_refresh_listing(struct dataset *ds, uint64_t dir, unsigned max_pages, struct wd_err *err);

/* Brings the listing of dir up to date; max_pages 0: whatever it takes. -E2BIG when it takes more.
 * Runs on a worker thread as the leader of the directory's flight. */
int tree_list(struct dataset *ds, uint64_t dir, unsigned max_pages, struct wd_err *err);

#endif
