/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_AHEAD_INTERNAL_H
#define WD_AGENT_AHEAD_INTERNAL_H
/* What ahead.c (directories and opens), ahead_names.c (their names) and ahead_work.c (fetching) share. Everything in
 * a directory and in a wanted file is guarded by ahead->lock, but for what is said to be fixed. */
#include "agent/agent.h"
#include "agent/ahead.h"
#include "agent/hash.h"
#include "agent/metrics.h"
#include "agent/runs.h"

#define WORKERS 4
#define JOBS (4 * AHEAD_DIRS) /* those of forgotten directories end soon */
#define FIRST_OPENS 2	      /* so many before a directory is looked at */
#define SEEN 16
#define HERE_MAX 32	      /* asked in a row for what is in the cache: that will go on */

enum dir_state { DIR_NEW, DIR_BUILDING, DIR_READY, DIR_HOPELESS };

struct dir_key {
	uint64_t dataset, dir;
};

struct dir {
	struct dir_key key;
	struct ahead *ahead;
	struct dataset *dataset;
	struct flow *flow; /* whose bandwidth it takes: that of the first mount that opened a file */
	enum dir_state state;
	unsigned refs; /* the table's, the job's, and one for each wanted file */
	bool is_dropped, is_working, is_wanting;
	bool is_numbered; /* the files that were opened first differ by a number */
	unsigned opens;	  /* while DIR_NEW */
	uint64_t first[FIRST_OPENS];
	char name[TREE_NAME_MAX + 1]; /* that was opened last, while DIR_NEW */
	struct runs *runs;
	uint32_t nfiles, *by_node;    /* places in the order of their nodes */
	uint64_t *nodes;	      /* by place */
	unsigned nunknown, nhere, nskip;
	uint64_t seen[SEEN]; /* nodes that were opened and had not been asked for, a ring */
	unsigned nseen;
	struct wanted *wanted;
	unsigned nwanted;
	uint64_t done_files, done_bytes; /* fetched, not opened yet */
	uint64_t mount, unasked;	 /* opens that the server of this mount had counted */
	int64_t used_ns, paused_until_ns;
	struct runs_limits limits;
	struct dir *prev, *next; /* the least recently used first */
	UT_hash_handle hh;
};

/* A file on its way. */
struct wanted {
	uint32_t place;
	struct dir *dir;
	uint64_t size, present;
	struct fetch_wish *wish; /* NULL: not made yet */
	unsigned refs;		 /* the callback's, the maker's, a canceller's */
	bool is_opened, is_unwanted;
	struct wanted *next; /* of those to be cancelled */
	UT_hash_handle hh;
};

struct ahead {
	struct agent *agent;
	struct jobs *jobs;
	struct wd_mutex lock;
	struct dir *dirs WD_GUARDED_BY(lock);
	struct dir *oldest WD_GUARDED_BY(lock), *newest WD_GUARDED_BY(lock);
	unsigned ndirs WD_GUARDED_BY(lock), nflight WD_GUARDED_BY(lock), njobs WD_GUARDED_BY(lock);
	uint64_t nfiles WD_GUARDED_BY(lock);
	bool is_stopping WD_GUARDED_BY(lock);
};

/* Takes a wanted file back: onto the list of those to be cancelled, unless its maker has to do that. */
void unwant_locked(struct wanted *w, struct wanted **list);
void unwant_all_locked(struct dir *d, struct wanted **list);
/* Cancels them, without the lock. */
void cancel_all(struct wanted *list);
void wanted_unref(struct wanted *w);
void dir_unref(struct dir *d);
/* So many of the files that were fetched are not going to be opened. */
void account_unused_locked(struct dir *d, uint64_t files);

/* ahead.c */
void count_found(enum runs_pattern found);

/* ahead_names.c: reads the names of a directory; blocks. What it had is let go of. */
void dir_build(struct dir *d);
/* The place of a file; -1: it is not among its names. */
int64_t dir_place_of(const struct dir *d, uint64_t node);

/* ahead_work.c: has a worker see to the directory, if there is something to do and room for it. */
void dir_begin_work_locked(struct dir *d);

#endif
