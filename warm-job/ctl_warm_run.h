/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_WARM_RUN_H
#define WD_WARM_JOB_CTL_WARM_RUN_H
/*
 * The tasks of one `warm`: one per mount, more where a list of paths does not fit into a request. Two at a time, so
 * that the agent does not fall idle between them.
 */
#include "warm-job/ctl_warm_args.h"
#include "warm-job/ctl_warm_places.h"
#include "warm-job/ctl_warm_show.h"

/* How long a task waits for an agent that went away. */
#define WARM_AWAY_MS 60000

struct warm_run;

/* Splits what is wanted into tasks; borrows places and args. Nothing is asked yet. */
int warm_run_new(const struct warm_places *places, const struct warm_args *args, struct warm_run **ret_run,
	struct wd_err *err);
void warm_run_free(struct warm_run *r);
/*
 * Starts the tasks and shows them until they are over. SIGINT, SIGTERM and SIGHUP cancel them (the second one ends
 * the process as it would have); the exit code is 128 + the signal then.
 */
enum ctl_exit warm_run_wait(struct warm_run *r, struct warm_show *show);
/* Starts them all, and prints their ids on out, one a line. */
enum ctl_exit warm_run_detach(struct warm_run *r, bool as_json, FILE *out);

#endif
