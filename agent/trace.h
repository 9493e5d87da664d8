/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TRACE_H
#define WD_AGENT_TRACE_H
/*
 * Who sees opens and reads tells them here; the access log and the tracers (`warpdrive-ctl trace`) that want them
 * get a copy. While there is neither, it costs a load.
 *
 * The agent sees what it is asked: opens, and reads of bytes that are not there. It does not see reads by passthrough
 * (the kernel's), reads of present bytes (a server's), nor opens of pooled files; the latter two are counted.
 *
 * Thread-safe; never waits for who listens. Lock order: traces->lock, a ring's lock.
 */
#include "agent/mount.h"
#include "agent/trace_ring.h"

struct traces;
struct tracer;

#define TRACERS_MAX 16
#define TRACER_PATIENCE_MS 30000 /* one that nobody takes from for so long is ended */

int traces_new(struct agent *a, struct traces **ret_traces, struct wd_err *err);
/* Tracers end: who waits for one returns. */
void traces_stop(struct traces *t);
void traces_free(struct traces *t);

/* Whether anybody wants to know. */
bool traces_are_on(const struct traces *t);
/* wd_now_ns() if so, else 0: for trace_tell(). */
int64_t traces_now(const struct traces *t);
/* e: kind, tier, mode, code, offset, length and path; the rest is filled in here. asked_ns: of traces_now(); 0: nobody
 * wanted to know then, and nothing is told. */
void trace_tell(struct mount *mnt, int64_t asked_ns, struct trace_event *e);

/* What a tracer wants to know. NULL or "": all of it. */
struct trace_filter {
	const char *target; /* one mount */
	const char *path;   /* below the root of each: a file, or a directory with all below it */
	const char *pod;    /* the uid of a pod */
};

/* Begins one. -ENOENT: there is no such mount; -EAGAIN: TRACERS_MAX are; -ENOMEM. */
int tracer_begin(struct traces *t, const struct trace_filter *filter, uint64_t *ret_id, struct wd_err *err);
/* With a reference, or NULL. */
struct tracer *tracer_find(struct traces *t, uint64_t id);
void tracer_unref(struct tracer *tr);
void tracer_end(struct traces *t, uint64_t id);

struct trace_counts {
	uint64_t lost;	       /* events that found no room: the tracer was not read fast enough */
	uint64_t server_bytes; /* with which servers answered reads, those that the agent saw among them */
	uint64_t unseen_opens; /* of files that are open or pooled, which the agent is not asked for */
};
/* As trace_ring_take(); what was counted since the beginning. -ESHUTDOWN: it has ended; -ENOTCONN: its mount has. */
int tracer_take(struct tracer *tr, void *out, size_t cap, int64_t deadline_ns, size_t *ret_len,
	struct trace_counts *ret_counts);

#endif
