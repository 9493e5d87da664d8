/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_SUPERVISE_ARGS_H
#define WD_WARM_JOB_CTL_SUPERVISE_ARGS_H
/*
 * What the supervised daemons are told, kept beside the sockets (supervisor.args), so that the next supervisor starts
 * them as this one does: each argument with an 'a' (agent) or 'k' (keeper) before it and a NUL behind.
 */
#include <stdbool.h>

#include "warm-job/ctl_daemons.h"

#define SUPERVISE_FIXED_ARGS 4 /* "warpdrive-agent --run-dir DIR --exit-when-idle" */

/* NULL ends it. */
struct supervise_args {
	const char *argv[2 * CTL_DAEMON_ARGS_MAX];
};

/* arg is borrowed. False: there is no room. */
bool supervise_args_add(struct supervise_args *args, const char *arg);
/* All but the fixed ones; a failure is logged. */
void supervise_args_save(const char *run_dir, const struct supervise_args *agent, const struct supervise_args *keeper);
/* What was saved in place of what is there; nothing where nothing was. */
void supervise_args_load(const char *run_dir, struct supervise_args *agent, struct supervise_args *keeper);

#endif
