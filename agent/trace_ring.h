/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TRACE_RING_H
#define WD_AGENT_TRACE_RING_H
/*
 * An open or a read that the agent saw, and a bounded ring of them between who sees and who tells. A ring never
 * waits for its reader: what finds no room is lost, and counted.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/lock.h"

/* Values of the control API (common/control.proto). */
enum trace_kind { TRACE_OPEN, TRACE_READ };
enum trace_tier {
	TRACE_NO_BYTES, /* an open that moved none, or a failure */
	TRACE_LOCAL,	/* all of it was in the cache when it was asked for */
	TRACE_PEER,
	TRACE_ORIGIN	/* some of it had to come from there */
};
enum trace_mode { TRACE_PASSTHROUGH, TRACE_CACHED, TRACE_COLD, TRACE_UNCACHED };

struct trace_event {
	int64_t at_us; /* Unix time at which it was asked for */
	uint64_t mount, offset, length, wait_us;
	enum trace_kind kind;
	enum trace_tier tier;
	enum trace_mode mode;
	int code; /* errno, positive; 0: it went well */
	const char *target, *dataset, *path; /* borrowed; cut at TRACE_TEXT_MAX bytes in a ring */
};

#define TRACE_TEXT_MAX 1023
/* No event takes more in a ring, or in what is taken from it. */
#define TRACE_RECORD_MAX 4096

struct trace_ring {
	struct wd_mutex lock; /* a leaf */
	struct wd_cond wake;
	unsigned char *bytes;
	size_t size, at, used WD_GUARDED_BY(lock);
	uint64_t lost WD_GUARDED_BY(lock);
	bool is_ended WD_GUARDED_BY(lock);
};

/* size >= TRACE_RECORD_MAX bytes. -ENOMEM. */
int trace_ring_init(struct trace_ring *r, size_t size);
void trace_ring_done(struct trace_ring *r);
/* Copies e. False: no room, or the ring has ended. Never waits. */
bool trace_ring_put(struct trace_ring *r, const struct trace_event *e);
/* Takes what is there, as many whole events as fit into cap >= TRACE_RECORD_MAX bytes; waits for one until
 * deadline_ns or the end. Returns the bytes taken. *ret_lost: how many were lost since the beginning. */
size_t trace_ring_take(struct trace_ring *r, void *out, size_t cap, int64_t deadline_ns, uint64_t *ret_lost);
/* Nothing is put any more; who waits returns. */
void trace_ring_end(struct trace_ring *r);
bool trace_ring_has_ended(struct trace_ring *r);

/* The event at *at of len taken bytes, whose texts lie there and may be written to; moves *at on. False: no more. */
bool trace_next(void *bytes, size_t len, size_t *at, struct trace_event *ret_event);

/* "local"; "" for TRACE_NO_BYTES. */
const char *trace_tier_name(enum trace_tier tier);
const char *trace_mode_name(enum trace_mode mode);
/* The pod's uid in the path of a volume of the kubelet's (.../pods/UID/volumes/...): its length, 0: it is none. */
size_t trace_pod(const char *target, const char **ret_uid);

#endif
