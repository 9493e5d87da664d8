/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_CHAOS_H
#define WD_E2E_CHAOS_H
/*
 * The chaos program: a load that checks every byte runs over a real mount while a fault plan kills, stops,
 * replaces or damages what serves it. This header is the manual for who writes a plan.
 *
 * A plan is one file, e2e/chaos/plan_<name>.c, that defines `const struct plan plan_<name>`; CMake finds it
 * by its name, nothing else has to be told. All of its functions run on the main thread, one at a time:
 *
 *	configure   nothing is started yet: add options, choose what the daemons are told
 *	prepare     the dataset is mounted, the load does not run yet
 *	inject      one fault; called again and again in the plan's rhythm while the load runs
 *	finish      the last fault is over: heal what is still broken; the load runs until after it
 *
 * Whatever a plan breaks must be healed by itself or by finish: readers must see no error (every errno that a
 * reader sees, and every wrong byte, counts against the run). A fault that lasts is ended by a later inject, or
 * inside inject by a wait. What a plan kills on purpose it brings back (chaos_start); a daemon that dies
 * without having been told counts as an error and is started again.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

#define CHAOS_WAIT_SECONDS 60 /* how long helpers wait for what must come, before that is an error */
#define CHAOS_MANY 16		 /* programs of one role, at most */
#define CHAOS_PATH 512

struct chaos;

enum plan_flag {
	PLAN_IS_MIXABLE = 1,	   /* the plan `mixed` may pick this one's faults among others' */
	PLAN_NEEDS_OTHER_BIN = 2,  /* --other-bin must be given */
	PLAN_NEEDS_HTTP = 4,	   /* an origin that can be stopped: nginx or own */
	PLAN_NEEDS_OWN_ORIGIN = 8, /* one that can be told to misbehave */
	PLAN_NEEDS_HOLDER = 16,	   /* one more than the agent: the supervisor when --holder does not say */
};

struct plan {
	const char *name, *help; /* help: one line for --help */
	unsigned flags;		 /* enum plan_flag */
	unsigned min_ms, max_ms; /* between two faults, at random, unless --interval says otherwise */
	unsigned faults;	 /* how many when nobody says */
	/* Each returns 0 or -errno, and may be NULL but inject. An error of configure or prepare ends the run
	 * (exit code 2); one of inject is counted and printed, and the run goes on. */
	int (*configure)(struct chaos *c, struct wd_err *err);
	int (*prepare)(struct chaos *c, struct wd_err *err);
	int (*inject)(struct chaos *c, struct wd_err *err);
	int (*finish)(struct chaos *c, struct wd_err *err);
};

/* ---- what the run is (read only, but in configure) ---- */

enum origin_kind { ORIGIN_UNSAID, ORIGIN_FILE, ORIGIN_NGINX, ORIGIN_OWN };

/* Who holds the mount beside keeper and agent. With the supervisor `warpdrive-ctl mount` starts the daemons, and
 * it brings back those that were killed. */
enum holder { HOLDER_NONE, HOLDER_SUPERVISOR, HOLDER_CSI };

struct chaos_options {
	const struct plan *plan;
	char bin[CHAOS_PATH], other_bin[CHAOS_PATH]; /* other_bin "": not given */
	uint64_t faults, seconds;		     /* 0: no such end */
	uint64_t seed;
	unsigned min_ms, max_ms;
	enum origin_kind origin;
	enum holder holder;
	bool is_stop; /* --stop: SIGSTOP where a plan would SIGKILL a server */
	bool has_no_passthrough, has_no_resend, has_no_open, is_kept;
	const char *load;
};

const struct chaos_options *chaos_options(const struct chaos *c);

/* The run's private directory, and in it: the mount, the cache, the sockets and logs. A plan may make more. */
const char *chaos_dir(const struct chaos *c);
const char *chaos_mount_dir(const struct chaos *c);
const char *chaos_cache_dir(const struct chaos *c);
const char *chaos_run_dir(const struct chaos *c);
/* In configure: an argument of the daemons ("--set", "x=y" are two), and an option of the mount. */
void chaos_agent_argument(struct chaos *c, const char *argument);
void chaos_keeper_argument(struct chaos *c, const char *argument);
void chaos_mount_option(struct chaos *c, const char *option);

/* ---- the programs ---- */

enum role { ROLE_KEEPER, ROLE_AGENT, ROLE_SERVER, ROLE_SUPERVISOR, ROLE_CSI, ROLE_ORIGIN, ROLE_COUNT };

const char *role_name(enum role role);
/* The role of --holder; ROLE_COUNT: there is none. */
enum role chaos_holder(const struct chaos *c);
/* The pids of all that live in this role now, from /proc: no daemon has to answer. Returns how many, 0 too:
 * between two servers there is none. Zombies do not count. */
size_t chaos_pids(struct chaos *c, enum role role, pid_t pids[CHAOS_MANY]);
/* Waits until there is one, sends all of them a signal and returns at once. */
int chaos_signal(struct chaos *c, enum role role, int sig, struct wd_err *err);
/* The same, and waits until they are dead. A keeper or agent that was killed stays away until
 * chaos_start; with a supervisor it comes back by itself. */
int chaos_kill(struct chaos *c, enum role role, int sig, struct wd_err *err);
/* Several roles at once: all are signalled before any is waited for. `roles` ends with ROLE_COUNT. */
int chaos_kill_all(struct chaos *c, const enum role *roles, int sig, struct wd_err *err);
/* Waits until a process that was found before is dead (0) or CHAOS_WAIT_SECONDS have gone. */
int chaos_wait_gone(struct chaos *c, pid_t pid, struct wd_err *err);
/* Brings a program that is no server back and waits until it is ready. What the supervisor brings back is only
 * waited for. */
int chaos_start(struct chaos *c, enum role role, struct wd_err *err);
/* Waits until keeper, agent and holder all have the mount: two of them may be killed then. */
int chaos_wait_held(struct chaos *c, struct wd_err *err);
/* From which directory the next one of this role is started: --other-bin or --bin. The supervisor takes its own
 * for agent and keeper. */
void chaos_use_other_bin(struct chaos *c, enum role role, bool is_other);

/* Runs `warpdrive-ctl ARGUMENT...` (ends with NULL) and returns its exit code. Its output goes to the log. */
int chaos_ctl(struct chaos *c, const char *const *arguments);

/* ---- the origin ---- */

/* Refuses connections until it is started again by chaos_start(ROLE_ORIGIN): for nginx and own. */
int chaos_origin_stop(struct chaos *c, struct wd_err *err);

/* How the own origin misbehaves from now on. All zero: not at all. Each is per thousand requests. */
struct origin_faults {
	unsigned status_503, cut_short, reset;
	unsigned stall_ms; /* every answer is late by so much */
};
void chaos_origin_faults(struct chaos *c, struct origin_faults faults);

/* ---- the load, and what is said ---- */

/* A number below n, from the run's seed. */
uint64_t chaos_random(struct chaos *c, uint64_t n);
/* A pause of min to max milliseconds, as a part of a fault's rhythm; never a wait for something to happen. */
void chaos_pause(struct chaos *c, unsigned min_ms, unsigned max_ms);
/* Waits until every worker of the load has finished n further operations: who is served again proves it. */
int chaos_wait_progress(struct chaos *c, unsigned n, struct wd_err *err);
/* False when the run is to end: for plans with long faults. */
bool chaos_goes_on(const struct chaos *c);
/* Counts an error against the run; the first few are printed. */
void chaos_error(struct chaos *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A line among the results, "# ..." */
void chaos_note(struct chaos *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- the plans there are ---- */

extern const struct plan *const chaos_plans[]; /* ends with NULL; generated from the files' names */
/* Whether what the plan needs is there in this run. */
bool chaos_suits(const struct chaos *c, const struct plan *plan);

#endif
