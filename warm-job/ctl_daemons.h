/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_DAEMONS_H
#define WD_WARM_JOB_CTL_DAEMONS_H
/*
 * Private daemons: outside Kubernetes nobody starts an agent and a keeper, so the first `mount`
 * does.
 *
 * A lock file in the run directory makes concurrent mounts take turns from here to the end of
 * their mount, so that daemons that one of them started are not taken down under another. Each
 * daemon is given `--ready-fd N`: it writes one byte there when it listens, and a daemon that dies
 * closes the pipe, so nothing here waits by time.
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
	pid_t agent_pid, keeper_pid; /* 0: not started here */
	int agent_pidfd;	     /* readable when the agent ends; -1: not known */
};

/* Makes the run directory and takes the lock; the first thing to do with a struct ctl_daemons. */
int ctl_daemons_lock(struct ctl_daemons *d, struct wd_err *err);
/* Starts what does not answer: the agent, then the keeper. May be called again when one has gone.
 * The text of a failure ends with the daemon's own last words. */
int ctl_daemons_start(struct ctl_daemons *d, struct wd_err *err);
/* Gives up the lock; with `stop` the daemons started here are ended and waited for first. */
void ctl_daemons_done(struct ctl_daemons *d, bool stop);

/* The last line of the log from `offset` on that says what went wrong; "" when there is none.
 * Exposed for its test. */
void ctl_daemons_last_words(const char *log_path, off_t offset, char *out, size_t cap);

#endif
