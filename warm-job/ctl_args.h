/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_ARGS_H
#define WD_WARM_JOB_CTL_ARGS_H
/* The options of a subcommand as a table. Texts are those of argv. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "warm-job/ctl.h"

enum ctl_kind {
	CTL_FLAG,     /* bool * */
	CTL_STRING,   /* const char ** */
	CTL_COUNT,    /* uint64_t *, at least 1 */
	CTL_SIZE,     /* uint64_t * of bytes, above 0 */
	CTL_DURATION, /* int64_t * of milliseconds, above 0 */
	CTL_OUTPUT,   /* enum ctl_output *, of those in `outputs` */
};

enum ctl_output { CTL_TEXT, CTL_WIDE, CTL_JSON, CTL_YAML };

struct ctl_option {
	const char *name; /* without "--" */
	char letter;	  /* 0: none */
	enum ctl_kind kind;
	void *value;
	const char *outputs; /* "text, wide or json" */
};

#define CTL_OPTIONS_MAX 12

/* Parses; --help is every table's. True to go on, with argv[*ret_first] as the first that is no option; else *ret_exit
 * is what to end with, and what there is to say was said. */
bool ctl_args_parse(const struct ctl_command *self, int argc, char **argv, const struct ctl_option *options, size_t n,
	int *ret_first, enum ctl_exit *ret_exit);

#endif
