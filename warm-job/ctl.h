/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_H
#define WD_WARM_JOB_CTL_H
/*
 * What the subcommands of warpdrive-ctl share: exit codes, the table row of a subcommand, the paths
 * of the daemons' sockets. One thread; each subcommand parses its own arguments with getopt_long.
 */
#include <stddef.h>
#include <stdio.h>

#include "common/err.h"

enum ctl_exit { CTL_DONE = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_PARTLY = 3 };

struct ctl_command {
	const char *name;
	const char *arguments; /* "URL DIR [-o ...]", behind the name in usage lines */
	const char *summary;   /* one line for `help` */
	/* The rest of `NAME --help`; ends with a newline. */
	const char *help;
	/* argv[0] is the subcommand's name. Prints its own errors. */
	enum ctl_exit (*run)(const struct ctl_command *self, int argc, char **argv);
	void (*print_more)(FILE *out); /* behind the help; may be NULL */
};

enum ctl_exit ctl_mount(const struct ctl_command *self, int argc, char **argv);
enum ctl_exit ctl_umount(const struct ctl_command *self, int argc, char **argv);
enum ctl_exit ctl_status(const struct ctl_command *self, int argc, char **argv);
enum ctl_exit ctl_doctor(const struct ctl_command *self, int argc, char **argv);
/* Ended by signal n, it returns 128 + n. */
enum ctl_exit ctl_warm(const struct ctl_command *self, int argc, char **argv);
enum ctl_exit ctl_trace(const struct ctl_command *self, int argc, char **argv);
/* warm-job/ctl_dataset.h */
enum ctl_exit ctl_dataset(const struct ctl_command *self, int argc, char **argv);
enum ctl_exit ctl_version(const struct ctl_command *self, int argc, char **argv);

/* Prints "usage: ...", summary and help of one subcommand on stdout; returns CTL_DONE. */
enum ctl_exit ctl_print_help(const struct ctl_command *self);

/* One line on stderr, "warpdrive-ctl: ..."; control bytes are shown as "?". */
void ctl_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void ctl_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same and a hint at --help; returns CTL_USAGE. */
enum ctl_exit ctl_usage(const struct ctl_command *self, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The run directory: `given` (may be NULL), else WARPDRIVE_RUN_DIR, else the default. */
const char *ctl_run_dir(const char *given);
/* "<run dir>/<name>" into out; -ENAMETOOLONG where a socket's address could not hold it. */
int ctl_run_path(const char *run_dir, const char *name, char out[108], struct wd_err *err);

/* realpath() of the parent, and the last component as it stands: what may be a mount, and dead, is not
 * looked at. out has room for PATH_MAX bytes. */
int ctl_absolute(const char *dir, char *out, struct wd_err *err);

/* Makes err, of connecting to the "agent" or "keeper" of run_dir, the sentence that all subcommands say. */
int ctl_explain(const char *daemon, const char *run_dir, struct wd_err *err);
/* Connects to the daemon that is asked `type`. The keeper's socket is root's: who may not open it asks the agent beside
 * it, which passes KEEPER_STATUS on. The socket or -errno. */
int ctl_connect(const char *socket_path, unsigned type, struct wd_err *err);
/* Asks a daemon for its status: the JSON text (caller frees) or -errno. */
int ctl_fetch_status(const char *socket_path, unsigned type, char **ret_text, struct wd_err *err);
/* What a daemon wrote into a memfd: bytes (caller frees; a terminator is behind them) or -errno. */
int ctl_read_answer(int fd, char **ret_text, size_t *ret_len, struct wd_err *err);

#endif
