/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_DAEMONS_H
#define WD_WARM_JOB_CTL_DAEMONS_H
/*
 * Private daemons: outside Kubernetes nobody starts an agent and a keeper, so the first `mount`
 * does, by starting a supervisor that starts them and restarts what dies.
 *
 * A lock file in the run directory makes concurrent mounts take turns from here to the end of
 * their mount, so that daemons that one of them started are not taken down under another.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

#define CTL_DAEMON_ARGS_MAX 64

struct ctl_daemons {
	const char *run_dir;
	/* what only an agent or keeper started here is told: "--cache-dir", "/x", ...;
	 * NULL-terminated */
	const char *agent_args[CTL_DAEMON_ARGS_MAX];
	const char *keeper_args[CTL_DAEMON_ARGS_MAX];

	/* set by ctl_daemons_lock and ctl_daemons_start */
	int lock_fd;
	pid_t supervisor_pid; /* 0: not started here */
	bool is_asked;
	bool has_predecessor; /* a supervisor was killed: its daemons and mounts may live on */
};

/* Makes the run directory and takes the lock; the first thing to do with a struct ctl_daemons. */
int ctl_daemons_lock(struct ctl_daemons *d, struct wd_err *err);
/* Returns when agent and keeper run. May be called again when one has gone. The text of a failure
 * ends with the daemon's own last words. */
int ctl_daemons_start(struct ctl_daemons *d, struct wd_err *err);
/* Gives up the lock; with `stop` a supervisor that was started here is waited for first: it ends
 * with its daemons when nothing is mounted. */
void ctl_daemons_done(struct ctl_daemons *d, bool stop);

#endif
