/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_OPEN_INTERNAL_H
#define WD_AGENT_OPEN_INTERNAL_H
/* What open.c (opening), open_table.c (finding and closing), open_reclaim.c (what evictions need) and open_pool.c (the
 * bound of all pools) share. */
#include "agent/fetch.h"
#include "agent/mount.h"

enum open_state { OPENING, OPEN, RECLAIMING };

struct waiting {
	struct conn *conn;
	uint64_t id;
	uint32_t flags;
	int64_t asked_ns; /* of traces_now() */
	struct waiting *next;
};

struct open_file {
	uint64_t node;
	struct mount *mount;
	enum open_state state;
	bool is_released; /* while OPENING: nobody wants it any more */
	uint32_t flags;	  /* of the first OPEN */
	struct node info;
	struct object *object;
	struct fetch *fetch;
	enum wd_open_mode mode;
	uint32_t backing_id;
	bool was_complete; /* when it was asked for */
	uint32_t uses; /* of the shared tables, when we last looked */
	struct waiting *waiting;
	struct fetch_wait whole;
	struct mount_job job;
	UT_hash_handle hh;
	struct object_id id; /* of object, once it is OPEN */
	UT_hash_handle hh_object;
	bool is_indexed; /* in mount->by_object; mount->lock */
	/* open_pool.c */
	bool is_pooled, is_leaving;
	uint32_t pool_uses;
	struct open_file *pool_prev, *pool_next;
};

/* ---- open.c ---- */
/* Takes it out of the mount's tables. */
void open_take_out_locked(struct mount *mnt, struct open_file *of) WD_REQUIRES(mnt->lock);

/* Ends a waiting OPEN that was answered. */
void waiting_free(struct waiting *w);
/* One that is out of the table, without a word to the keeper. */
void open_file_free(struct open_file *of);
/* The same, and its backing id is closed. */
void open_close(struct open_file *of);

/* ---- open_reclaim.c ---- */
/* How often the server opened it without asking us, as the shared tables say; only the difference
 * to an earlier figure means anything. */
uint32_t open_uses(const struct open_file *of);
/* Takes the backing id of node back if it is idle, else open_pool_stay(). Does not wait. */
void open_give_back(struct mount *mnt, uint64_t node);

/* ---- open_pool.c ---- */
/* of is open by passthrough from now on, until open_pool_remove; before other threads may free it. */
void open_pool_add(struct open_pool *p, struct open_file *of);
void open_pool_remove(struct open_pool *p, struct open_file *of);
/* It was to be given back, and was not. */
void open_pool_stay(struct open_pool *p, struct open_file *of);
/* After an addition: takes back what is too much. Without locks. */
void open_pool_shrink(struct open_pool *p);

#endif
