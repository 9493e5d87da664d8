/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_WARM_ARGS_H
#define WD_WARM_JOB_CTL_WARM_ARGS_H
/* The command line of `warm`. Texts are those of argv. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "warm-job/ctl.h"

enum warm_progress { WARM_AUTO, WARM_TTY, WARM_PLAIN, WARM_JSON, WARM_NONE };

struct warm_args {
	const char *run_dir;
	char **places; /* PATH|URL... */
	size_t nplaces;
	const char *from_file; /* NULL: not given */
	uint64_t max_size, bandwidth; /* bytes, bytes per second; 0: no limit */
	uint32_t workers; /* 0: the agent's default */
	char **includes, **excludes; /* arrays of ours */
	size_t nincludes, nexcludes;
	int64_t timeout_ms; /* 0: none */
	uint64_t cancel;    /* a task's id; 0: nothing is to be cancelled */
	enum warm_progress progress;
	bool verify, detach, list, pin;
};

/* True to go on; else *ret_exit is what to end with, and what there is to say was said. *ret_args is to be given to
 * warm_args_done() either way. */
bool warm_args_parse(const struct ctl_command *self, int argc, char **argv, struct warm_args *ret_args,
	enum ctl_exit *ret_exit);
void warm_args_done(struct warm_args *a);

#endif
