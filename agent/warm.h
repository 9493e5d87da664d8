/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_WARM_H
#define WD_AGENT_WARM_H
/*
 * Warm tasks: filling the cache with a part of a mount's dataset before anybody reads it. A task walks what was named,
 * and wishes (agent/fetch.h) the bytes of every file that is wanted, so many files at once. What is present is not
 * fetched again, so a task that was cancelled, or whose agent died, is gone on with by asking for the same again.
 *
 * Access is the mount's: its identity must be allowed to read what another identity has cached (agent/proof.h). What the
 * origin denies, or does not have any more, is a failure of that file, and the task goes on. When the cache has no room
 * the task ends: nothing is fetched past the cache.
 *
 * A task belongs to its mount and ends with it. Finished tasks are kept for a while, for who asks how they were.
 * Thread-safe; warms->lock is a leaf.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/mount.h"

#define WARM_RUNNING_MAX 16   /* tasks at once; more are refused */
#define WARM_KEPT_MAX 64      /* with those that are over */
#define WARM_FAILURES_MAX 1000 /* that are remembered of a task */
#define WARM_FILES_MAX 512    /* of one task under way: all tasks together open fewer wishes than there may be */
#define WARM_TOKEN 16

struct warms;
struct warm;

struct warm_options {
	char *const *paths; /* relative to the mount's root; none: all of it */
	size_t npaths;
	char *const *includes, *const *excludes; /* fnmatch patterns */
	size_t nincludes, nexcludes;
	uint64_t max_file_size; /* 0: no limit */
	uint64_t bandwidth;	/* bytes per second; 0: no limit */
	unsigned workers;	/* files under way at once, at most WARM_FILES_MAX; 0: 32 */
	bool is_verifying;	/* check what is present */
	unsigned char token[WARM_TOKEN];
	bool has_token;
};

enum warm_state { WARM_RUNNING, WARM_DONE, WARM_PARTLY, WARM_CANCELLED, WARM_NO_ROOM };

struct warm_progress {
	uint64_t id, version; /* version: grows with every change */
	enum warm_state state;
	bool is_listed; /* the totals are all there is */
	uint64_t files, files_done, files_failed, files_skipped;
	uint64_t bytes, bytes_present, bytes_fetched;
	uint64_t elapsed_ms;
	uint64_t failures; /* that are remembered */
};

struct warms *warms_new(struct agent *a);
/* Cancels every task and waits until it is over. */
void warms_stop(struct warms *ws);
void warms_free(struct warms *ws);

/* The mount has ended, and its tasks end with it. */
void warms_forget(struct warms *ws, const struct mount *mnt);

/* Copies the options. *ret_id: of a new task, or of the one that has this token. -EAGAIN: too many run;
 * -EINVAL: a path that cannot be one; -ENOMEM. */
int warm_start(struct warms *ws, struct mount *mnt, const struct warm_options *options, uint64_t *ret_id,
	struct wd_err *err);
/* A reference to a task: of this mount, or (mnt NULL) of any. NULL: there is none. */
struct warm *warm_find(struct warms *ws, const struct mount *mnt, uint64_t id);
void warm_unref(struct warm *w);
void warm_cancel(struct warm *w);
/* Waits until the version is another one than this, at most until that time on CLOCK_MONOTONIC. */
void warm_wait(struct warm *w, uint64_t version, int64_t until_ns);
/* The bytes that are present are counted from the blocks that are there: of files under way at every call, of a task
 * that is over by another walk. May block for that long. */
void warm_look(struct warm *w, struct warm_progress *ret_progress);
/* The same without the bytes that are present, which costs nothing. */
void warm_peek(struct warm *w, struct warm_progress *ret_progress);
const char *warm_target(const struct warm *w);
/* The failure with this number; false: there is none. The strings live as long as the task. */
bool warm_failure(struct warm *w, uint64_t number, const char **ret_path, int *ret_code, const char **ret_text);
/* warpdrive_warm_...: how many tasks there are, and how far those that run have come. */
void warms_print_metrics(struct warms *ws, FILE *out);
/* Ids of tasks (of this mount, or all), the oldest first; returns how many. */
size_t warm_list(struct warms *ws, const struct mount *mnt, uint64_t *ids, size_t max);

#endif
