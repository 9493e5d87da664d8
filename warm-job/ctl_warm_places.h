/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_WARM_PLACES_H
#define WD_WARM_JOB_CTL_WARM_PLACES_H
/*
 * What the user names, as the agent knows it: which mount, and which path below its root. A mount is asked for over
 * the agent's socket when the agent says that it has it; else, as in a pod, through its control file.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "common/err.h"
#include "warm-job/ctl_control.h"

struct warm_target {
	char *name;   /* what a person calls it: where it is mounted */
	char *target; /* what the agent calls it; "" through a control file */
	struct ctl_control *control;
	char **paths; /* below its root, without "/" at either end */
	size_t npaths, cap;
	bool is_whole; /* all of it, whatever paths says */
};

struct warm_places {
	struct warm_target *targets;
	size_t ntargets;

	/* private */
	struct ctl_control *agent; /* NULL: agent_err says why */
	struct wd_err agent_err;
	json_t *status; /* the agent's */
	struct seen_mount *mounts;
	size_t nmounts;
};

/* Reads mountinfo ("/proc/self/mountinfo") and asks the agent of run_dir for its mounts; that there is none is no
 * error yet. Call warm_places_close() in any case. */
int warm_places_open(struct warm_places *p, const char *run_dir, const char *mountinfo, struct wd_err *err);
/* Adds a file or directory, or a URL. */
int warm_places_add(struct warm_places *p, const char *what, struct wd_err *err);
/* Adds a path per line. Relative ones start at `base` (a path or URL), or where this process stands when it is NULL.
 * They are not looked at: the agent tells of those that are not there. */
int warm_places_add_lines(struct warm_places *p, const char *base, FILE *in, struct wd_err *err);
void warm_places_close(struct warm_places *p);

/* Makes an absolute path of `path`, at `from` (absolute) when it is relative, without ".", ".." and "//", by the text
 * alone. False when it is too long for PATH_MAX bytes. */
bool warm_normalise(const char *from, const char *path, char *ret_path);

#endif
