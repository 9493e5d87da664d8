/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_SPAWN_H
#define WD_WARM_JOB_CTL_SPAWN_H
/*
 * Starting a program of ours in the background: from beside this one (else from PATH), in a session
 * of its own, in "/", with its output appended to a log in the run directory. It is given
 * `--ready-fd N`, writes one byte there when it listens, and closes the pipe when it dies.
 */
#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"

#define CTL_SPAWN_ARGS_MAX 160

struct ctl_spawned {
	pid_t pid;
	int ready_fd; /* one byte, or the end of file; the caller's to close */
	char log_path[108];
	off_t log_offset; /* where its own words begin */
};

/* argv[0] is the program's name; "--ready-fd N" is put behind the rest. */
int ctl_spawn(const char *const *argv, const char *run_dir, const char *log_name,
	struct ctl_spawned *ret_spawned, struct wd_err *err);
/* Says why a program that was waited for (status as from waitpid) did not come up. */
int ctl_spawn_describe_death(
	const char *name, const struct ctl_spawned *spawned, int status, struct wd_err *err);
/* The last line of the log from `offset` on that says what went wrong; "" when there is none. */
void ctl_spawn_last_words(const char *log_path, off_t offset, char *out, size_t cap);

#endif
