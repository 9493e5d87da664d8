/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_METRICS_H
#define WD_AGENT_METRICS_H
/*
 * What the agent counts by event: rows of the families in agent/families.h. Counting is one relaxed atomic add.
 * What is kept elsewhere (cache use, mounts, origins) is printed by who keeps it, as samples of its families.
 *
 * Columns: identifier, family, value of its label ("": it has none). Rows of one family stand together. Rows of a
 * family in seconds are in microseconds.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/families.h"

#define WD_METRICS(M) \
	M(OPENS_PASSTHROUGH, OPENS, "passthrough") \
	M(OPENS_CACHED, OPENS, "cached") \
	M(OPENS_COLD, OPENS, "cold") \
	M(HITS, HITS, "") \
	M(MISSES, MISSES, "") \
	M(HIT_BYTES, HIT_BYTES, "") \
	M(MISS_BYTES, MISS_BYTES, "") \
	M(READ_LOCAL, READ_BYTES, "local") \
	M(READ_PEER, READ_BYTES, "peer") \
	M(READ_ORIGIN, READ_BYTES, "origin") \
	M(SERVER_READ_BYTES, SERVER_READ_BYTES, "") \
	M(ENSURES, ENSURES, "") \
	M(UNCACHED_BYTES, UNCACHED_BYTES, "") \
	M(PREFETCH_BYTES, PREFETCH_BYTES, "") \
	M(PREFETCH_USED, PREFETCH_USED, "") \
	M(PREFETCH_UNUSED, PREFETCH_UNUSED, "") \
	M(PREFETCH_CANCELLED, PREFETCH_CANCELLED, "") \
	M(AHEAD_DIRECTORY, AHEAD, "directory") \
	M(AHEAD_WARM, AHEAD, "warm") \
	M(AHEAD_FILES_ISSUED, AHEAD_FILES, "issued") \
	M(AHEAD_FILES_USED, AHEAD_FILES, "used") \
	M(AHEAD_FILES_UNUSED, AHEAD_FILES, "unused") \
	M(DIRS_SORTED, DIRS, "sorted") \
	M(DIRS_STRIDED, DIRS, "strided") \
	M(DIRS_SHUFFLED, DIRS, "shuffled") \
	M(GETS_SMALL, GETS, "to_256KiB") \
	M(GETS_MEDIUM, GETS, "to_1MiB") \
	M(GETS_LARGE, GETS, "to_4MiB") \
	M(GETS_HUGE, GETS, "larger") \
	M(QUEUED_WARM, QUEUED, "warm") \
	M(QUEUED_DIRECTORY, QUEUED, "directory") \
	M(QUEUED_STREAM, QUEUED, "stream") \
	M(QUEUED_DEMAND, QUEUED, "demand") \
	M(QUEUE_US_WARM, QUEUE_TIME, "warm") \
	M(QUEUE_US_DIRECTORY, QUEUE_TIME, "directory") \
	M(QUEUE_US_STREAM, QUEUE_TIME, "stream") \
	M(QUEUE_US_DEMAND, QUEUE_TIME, "demand") \
	M(STREAMS_SEQUENTIAL, STREAMS, "sequential") \
	M(STREAMS_STRIDED, STREAMS, "strided") \
	M(STREAMS_TAIL, STREAMS, "tail") \
	M(STREAMS_RANDOM, STREAMS, "random") \
	M(STALE_OBJECTS, STALE_OBJECTS, "") \
	M(FETCH_ERRORS, FETCH_ERRORS, "") \
	M(LOOKUPS, LOOKUPS, "") \
	M(LOOKUPS_ORIGIN, LOOKUPS_ORIGIN, "") \
	M(LISTINGS, LISTINGS, "") \
	M(NAMES_LEFT_OUT, NAMES_LEFT_OUT, "") \
	M(PROOFS, PROOFS, "") \
	M(BACKING_OPENS, BACKING_OPENS, "") \
	M(BACKING_RECLAIMS, BACKING_RECLAIMS, "") \
	M(GIVEN_UP, GIVEN_UP, "") \
	M(RENEWALS, RENEWALS, "") \
	M(RENEWALS_FAILED, RENEWALS_FAILED, "") \
	M(UNCLEAN_STARTS, UNCLEAN_STARTS, "") \
	M(META_SET_ASIDE, META_SET_ASIDE, "") \
	M(ACCESS_LOG_WRITTEN, ACCESS_LOG, "written") \
	M(ACCESS_LOG_DROPPED, ACCESS_LOG, "dropped") \
	M(TRACE_LOST, TRACE_LOST, "") \
	M(BAD_MESSAGES, BAD_MESSAGES, "")

enum metric {
#define M(id, family, value) METRIC_##id,
	WD_METRICS(M)
#undef M
		METRIC_COUNT
};

extern _Atomic uint64_t metric_values[METRIC_COUNT];

static inline void metric_add(enum metric m, uint64_t n)
{
	atomic_fetch_add_explicit(&metric_values[m], n, memory_order_relaxed);
}
#define metric_inc(m) metric_add(m, 1)

/* How long readers waited for bytes. */
extern struct wd_histogram metric_read_wait;

/* Prometheus text of all rows, and of what is above. */
void metrics_print(FILE *out);
/* docs/metrics.md: every family that any program exports. */
void metrics_describe(FILE *out);

#endif
