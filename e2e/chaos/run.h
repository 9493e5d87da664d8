/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_CHAOS_RUN_H
#define WD_E2E_CHAOS_RUN_H
/*
 * One run, as the program's own files see it (plans use chaos.h only). Who owns what: the main thread runs the
 * plan and starts and reaps programs; each worker of the load has a thread; one more samples resources.
 */
#include <pthread.h>
#include <stdatomic.h>

#include "e2e/chaos/chaos.h"
#include "e2e/chaos/stats.h"

#define ARGUMENTS_MAX 48
#define WORKERS_MAX 64
#define ERRORS_SHOWN 20

struct program {
	_Atomic pid_t pid; /* started by us; 0: none. A supervised one is only found in /proc */
	bool is_down;	   /* killed on purpose, and not started again yet */
	bool is_other;	   /* the next one comes from --other-bin */
};

struct origin_control; /* shared with the origin's process */

struct chaos {
	struct chaos_options options;
	char dir[CHAOS_PATH], data[CHAOS_PATH], mount[CHAOS_PATH], run[CHAOS_PATH], cache[CHAOS_PATH];
	char url[CHAOS_PATH], mount_options[CHAOS_PATH];
	const char *agent_arguments[ARGUMENTS_MAX], *keeper_arguments[ARGUMENTS_MAX];
	struct program programs[ROLE_COUNT];
	struct origin_control *origin;
	int origin_fd; /* the memfd of *origin */
	unsigned origin_port;
	unsigned connection; /* /sys/fs/fuse/connections/N; 0: not known */
	uint64_t random;     /* of the main thread */
	_Atomic bool is_over;
	struct stats stats;
	struct load *load;
	struct resources *resources;
};

/* ---- programs.c ---- */
/* Starts a program in its own session with output to run/<log>; waits for its ready byte if it has one, for
 * which "--ready-fd N" is added. Returns its pid. */
pid_t program_spawn(struct chaos *c, const char *const *argv, const char *log, bool has_ready,
	struct wd_err *err);
int programs_mount(struct chaos *c, struct wd_err *err);
int programs_umount(struct chaos *c, struct wd_err *err);
/* Ends daemons and origin as their users would, and waits for them. */
int programs_stop(struct chaos *c, struct wd_err *err);
/* Counts what died untold, starts it again; reaps orphans. */
void programs_watch(struct chaos *c);

/* ---- proc.c: what /proc says ---- */
struct process {
	pid_t pid, parent;
	char state;    /* as in /proc/PID/stat */
	char name[64]; /* argv[0]'s last part; of a zombie its comm */
	enum role role; /* ROLE_COUNT: none of ours */
};
#define PROCESSES_MAX 256
/* All descendants of this process, without itself. */
size_t proc_descendants(struct process *out, size_t max);
/* RssAnon + RssShmem in KiB, 0 when it is gone. */
uint64_t proc_rss_kib(pid_t pid);
unsigned proc_count_fds(pid_t pid);
bool proc_has_open(pid_t pid, const char *file);
/* Where a thread hangs: state, wchan and kernel stack, as far as they can be read; several lines. */
void proc_print_stack(pid_t pid, pid_t tid);
/* The device minor of what is mounted at dir (a FUSE connection's number); 0 when nothing is. */
unsigned proc_mount_minor(const char *dir);
unsigned proc_mounts_below(const char *dir);

/* ---- origin.c, origin_own.c ---- */
int origin_prepare(struct chaos *c, struct wd_err *err);
int origin_start(struct chaos *c, struct wd_err *err);
/* The origin's own process: never returns to the caller's work. */
int origin_serve(int argc, char **argv);

/* ---- load.c ---- */
int load_start(struct chaos *c, struct wd_err *err);
/* Ends the workers. Who hangs is an error, and is freed by aborting the connection. */
void load_stop(struct chaos *c);
/* Says what has been taking long. */
void load_show_slow(struct chaos *c);
void load_print_help(void);
bool load_is_known(const char *list);

/* ---- killed.c ---- */
/* The reader that is killed: a program of its own. */
int reader_main(int argc, char **argv);

/* ---- resources.c ---- */
int resources_start(struct chaos *c);
void resources_stop(struct chaos *c);
void resources_print(struct chaos *c);
/* Before the load starts and after it has ended, with everything still running: counts what grew. */
void resources_mark(struct chaos *c);
void resources_compare(struct chaos *c);
/* When everything has ended: processes, mounts, descriptors that are left. */
void resources_leaks(struct chaos *c);
/* Crashes and sanitizer reports in the daemons' logs. */
void resources_logs(struct chaos *c);

/* ---- options.c ---- */
/* Returns -1 to go on, or an exit code. */
int options_parse(struct chaos *c, int argc, char **argv);

#endif
