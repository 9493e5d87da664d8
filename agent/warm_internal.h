/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_WARM_INTERNAL_H
#define WD_AGENT_WARM_INTERNAL_H
/* What warm.c (tasks), warm_walk.c (which files) and warm_file.c (one file) share. */
#include "agent/warm.h"

struct warm_failed {
	char *path;
	int code;
	const char *text;
};

struct warm_file {
	struct warm *warm;
	struct node node;
	uint64_t parent; /* its directory */
	char *path;
	bool is_again; /* another version was found meanwhile, once */
	struct object *object;
	struct mount_job job;
	uint64_t present_before; /* bytes, when it began */
	_Atomic int refs;
	struct fetch *fetch;
	uint64_t offset; /* where the next part begins, if it is fetched by parts */
	/* warm->lock */
	struct fetch_wish *wish; /* the last that was made */
	bool is_cancelled;
	struct warm_file *prev, *next; /* in warm->files */
	struct warm_file *next_paced;
};

struct warm {
	struct warms *warms;
	struct mount *mount;
	uint64_t id;
	int64_t begun_ns;
	_Atomic int refs;
	char **paths, **includes, **excludes; /* end with NULL */
	struct warm_options options;
	_Atomic bool is_cancelled;
	_Atomic bool has_no_room;
	int64_t paced_until_ns; /* the bandwidth is spent until then; the walker's */

	struct wd_mutex lock;
	struct wd_cond changed; /* the version, a file's end */
	struct warm_progress p WD_GUARDED_BY(lock); /* bytes_present without the files under way */
	struct warm_file *files WD_GUARDED_BY(lock);
	unsigned nfiles WD_GUARDED_BY(lock);
	struct warm_file *paced WD_GUARDED_BY(lock), **paced_tail WD_GUARDED_BY(lock); /* files whose next part may be asked */
	struct warm_failed *failed WD_GUARDED_BY(lock);
	struct warm *next; /* warms->lock */
};

/* warm.c */
void warm_note_failure(struct warm *w, const char *path, int code, const char *text);
/* Something has changed: who waits is told. */
void warm_changed_locked(struct warm *w) WD_REQUIRES(w->lock);
/* True when the task shall end: it was cancelled, its mount has gone, the cache is full. */
bool warm_must_end(struct warm *w);

/* The thread of a task ends. */
void warm_ended(struct warm *w, enum warm_state state);

/* warm_walk.c: the thread of a task */
void *warm_run(void *arg);
/* Walks again, and counts what of the wanted files is in the cache. */
uint64_t warm_recount(struct warm *w);

/* warm_file.c: begins with a file that is wanted, and was counted; waits for room among the files under way. */
void warm_file_begin(struct warm *w, uint64_t parent, const struct node *node, const char *path);
/* Waits until no file is under way; from when the task must end, their wishes are cancelled. */
void warm_files_wait(struct warm *w);
void warm_files_cancel(struct warm *w);

#endif
