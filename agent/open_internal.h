/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_OPEN_INTERNAL_H
#define WD_AGENT_OPEN_INTERNAL_H
/* What open.c (opening and closing) and open_reclaim.c (what evictions need) share. */
#include "agent/fetch.h"
#include "agent/mount.h"

enum open_state { OPENING, OPEN, RECLAIMING };

struct waiting {
	struct conn *conn;
	uint64_t id;
	uint32_t flags;
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
	uint32_t uses; /* of the shared tables, when we last looked */
	struct waiting *waiting;
	struct fetch_wait whole;
	struct mount_job job;
	UT_hash_handle hh;
};

/* Ends a waiting OPEN that was answered. */
void waiting_free(struct waiting *w);
/* One that is out of the table, without a word to the keeper. */
void open_file_free(struct open_file *of);
/* open_reclaim.c: how often the server opened it without asking us, as the shared tables say; only the difference
 * to an earlier figure means anything. */
uint32_t open_uses(const struct open_file *of);

#endif
