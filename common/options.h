/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_OPTIONS_H
#define WD_COMMON_OPTIONS_H
/*
 * The command line of a daemon: one row per option says its name, what follows it, where the value
 * goes and what it means. The same table parses and prints --help; --help and --version are known to
 * all. Values land in a struct of the caller by offset. Before threads start.
 */
#include <stddef.h>

#include "common/err.h"

enum wd_option_type {
	WD_OPTION_TEXT,	  /* const char *; the argument itself */
	WD_OPTION_FLAG,	  /* bool, becomes true */
	WD_OPTION_NUMBER, /* int from 0 */
	WD_OPTION_SIZE,	  /* int64_t bytes: 4MiB */
	WD_OPTION_SPAN,	  /* int64_t nanoseconds: 30s */
	WD_OPTION_CALL,	  /* `set` is called */
};

struct wd_option {
	const char *name; /* without "--" */
	enum wd_option_type type;
	size_t offset;	      /* into values */
	const char *argument; /* as --help shows it: "DIR"; NULL for a flag */
	const char *initial;  /* what it is without the option, shown by --help; NULL: the struct's own */
	const char *help;     /* lines separated by "\n" */
	/* WD_OPTION_CALL: 0 or -EINVAL when the text is no value for it */
	int (*set)(void *values, const char *text);
};

struct wd_command {
	const char *name;   /* of the program */
	const char *usage;  /* what follows it in the first line of --help */
	const char *about;  /* what it does, whole lines */
	const char *more;   /* after the options, whole lines */
	const struct wd_option *options; /* ends with the row {.name = NULL} */
};

/* Returns -1 to go on, or the exit code: 0 after --help and --version, 2 after a mistake, which is told on
 * stderr. Arguments that are no options are mistakes. */
int wd_options_parse(const struct wd_command *c, int argc, char **argv, void *values);

/* What --ready-fd is for: tells who started this program that it serves, and closes fd. Nothing when fd < 0. */
void wd_tell_ready(int fd);

#endif
