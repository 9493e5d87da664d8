/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_DOCTOR_H
#define WD_WARM_JOB_CTL_DOCTOR_H
/*
 * What the checks of `warpdrive-ctl doctor` share.
 *
 * First everything is asked (ctl_doctor_ask.c, bounded by a time), then each check turns what is
 * known into findings. Checks read files below `root` and the daemons' JSON, nothing else, so that a
 * test can give them any machine it likes. None of them touches a mount of ours (stat, statfs and
 * open wait for its server), and none takes a daemon's words for complete: every field may be
 * missing or of another type.
 */
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

enum doctor_verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_finding {
	enum doctor_verdict verdict;
	char *subject, *text, *remedy; /* remedy "": nothing to do */
};

/* An answer of a daemon, or why there is none. */
struct doctor_answer {
	int status; /* 0 or -errno; -ETIMEDOUT: it said nothing in time */
	json_t *json;
	struct wd_err err;
};

/* What only a try on the real machine tells. */
struct doctor_probes {
	int init_status; /* 0: init_flags is what the kernel offers; else -errno */
	uint64_t init_flags;
	int memfd_exec_status; /* 0: a program in memory runs */
};

struct doctor {
	const char *root;    /* "" on the machine itself; never ends with a slash */
	const char *run_dir; /* below root, too */
	int timeout_ms;	     /* for every question */
	bool is_root;	     /* runs as root: sees all processes */
	struct doctor_answer agent, keeper; /* their status */
	struct doctor_answer agent_check;   /* CHECK of the agent itself */
	json_t *origins;		    /* array: the answers of CHECK for each mount */
	int supervisor_status;		    /* of a connect to its socket: 0 or -errno */
	int healthz_status;		    /* HTTP status; 0: not asked; -errno */
	struct doctor_probes probes;

	struct doctor_finding *findings;
	size_t nfindings, cap;
};

/* remedy NULL: none. Texts are copied; control bytes become "?". */
void doctor_note(struct doctor *d, enum doctor_verdict verdict, const char *subject,
	const char *remedy, const char *fmt, ...) __attribute__((format(printf, 5, 6)));
size_t doctor_count(const struct doctor *d, enum doctor_verdict verdict);
/* A line per finding and a last one with the counts. */
void doctor_print(const struct doctor *d, FILE *out);
/* New reference: {"checks": [{verdict, subject, finding, remedy}], "ok", "warn", "failed"}. */
json_t *doctor_to_json(const struct doctor *d);
/* Frees findings and answers. */
void doctor_done(struct doctor *d);

/* Reads a small file below root as text (at most cap - 1 bytes). Its length, or -errno. */
int doctor_read(const struct doctor *d, const char *path, char *out, size_t cap);
/* A file that holds one number; false when it is missing or holds none. */
bool doctor_read_number(const struct doctor *d, const char *path, int64_t *ret_n);

/* ---- asking ---- */
/* Fills answers, origins, healthz_status and probes; takes no longer than a little over timeout_ms
 * each. */
void doctor_ask(struct doctor *d);
void doctor_probe(struct doctor_probes *ret_probes, int timeout_ms);

/* ---- the checks ---- */
void doctor_check_kernel(struct doctor *d);
void doctor_check_daemons(struct doctor *d);
void doctor_check_mounts(struct doctor *d);
void doctor_check_cache(struct doctor *d);
void doctor_check_origins(struct doctor *d);
void doctor_check_leftovers(struct doctor *d);

/* ---- processes, for the checks ---- */
struct doctor_process {
	char name[16]; /* the kernel's: at most 15 bytes */
	char state;    /* of /proc/PID/stat: R S D T t Z */
	int parent;
	int64_t uid;
	uint64_t caps; /* CapEff */
	int64_t seccomp, no_new_privs;
};
/* -ENOENT when there is none. */
int doctor_process(const struct doctor *d, int64_t pid, struct doctor_process *ret_process);

#define DOCTOR_KEEPER_COMM "warpdrive-keepe" /* "warpdrive-keeper" as the kernel cuts it */

#endif
