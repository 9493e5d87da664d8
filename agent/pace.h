/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_PACE_H
#define WD_AGENT_PACE_H
/*
 * How fast one endpoint is, as far as its answers have told: latency, bytes per second, the number of connections
 * that pays (agent/gain.h), the requests per second that it takes (agent/request_rate.h); and what follows from that
 * for those who ask. One for each endpoint, in agent/origin_health.h.
 *
 * Only reads that nobody waits for are held to the number of connections that pays; demand goes while there are
 * places. While reads of demand run, and for PACE_QUIET_NS after the last, no more than PACE_QUIET_READS of those of files
 * that nobody reads yet (directory, warm) begin: so many go on whatever comes, and each has its share of the line from
 * who waits. Reads that were raised are not counted as demand here: their reader is as fast as the line. Nor are any held
 * up at an endpoint that has brought more than about 2 Gbit/s of late. Thread-safe; one lock, a leaf below the queue's (agent/get_queue.h).
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agent/gain.h"
#include "agent/priority.h"
#include "agent/request_rate.h"
#include "common/lock.h"

#define PACE_QUIET_READS 2
#define PACE_QUIET_NS 250000000LL

struct pace {
	struct wd_mutex lock;
	struct gain gain WD_GUARDED_BY(lock);
	struct request_rate requests WD_GUARDED_BY(lock);
	unsigned running WD_GUARDED_BY(lock), nlow WD_GUARDED_BY(lock); /* nlow: of them, below demand */
	unsigned nquiet WD_GUARDED_BY(lock);	  /* of them, below GET_STREAM */
	int64_t demand_ns WD_GUARDED_BY(lock);	  /* when the last read of demand began or ended; 0: there was none */
	int64_t latency_ns WD_GUARDED_BY(lock);	  /* to the first byte, smoothed; 0: not known */
	double rate WD_GUARDED_BY(lock);	  /* bytes per second, of late; 0: not known */
	/* bodies, of late: bytes, and how long one connection was at them */
	double body_bytes WD_GUARDED_BY(lock), body_ns WD_GUARDED_BY(lock);
	double peak WD_GUARDED_BY(lock);	  /* the highest rate, slowly forgotten */
	int64_t rtt_ns WD_GUARDED_BY(lock);	  /* of its connections' segments, the shortest; 0: not known */
	int64_t window_ns WD_GUARDED_BY(lock);	  /* the rate is being measured since then */
	uint64_t window_bytes WD_GUARDED_BY(lock);
};

/* What suits the endpoint. */
struct pace_advice {
	uint64_t get_bytes;    /* the largest GET: about half a second; a power of two, 1-16 MiB */
	uint64_t window_bytes; /* ahead of one stream: fills the line, and no more */
};

/* max_low: how many reads below demand there may be at all. */
void pace_init(struct pace *p, unsigned max_low);
void pace_done(struct pace *p);

/* May a read begin? False: *ret_at_ns is when to ask again; INT64_MAX: when another one has ended. */
bool pace_allows(struct pace *p, enum get_priority class, int64_t now_ns, int64_t *ret_at_ns);
/* One runs; one that was begun with this class has ended. */
void pace_began(struct pace *p, enum get_priority class, int64_t now_ns);
void pace_ended(struct pace *p, enum get_priority class, int64_t now_ns);

/* A request goes out. */
void pace_request(struct pace *p);
/* The first byte of a good answer came after so long. */
void pace_first_byte(struct pace *p, int64_t now_ns, int64_t latency_ns);
/* Bytes of a body came, within so long. */
void pace_bytes(struct pace *p, int64_t now_ns, uint64_t bytes, int64_t took_ns);
/* 429, SlowDown, 503. */
void pace_complaint(struct pace *p, int64_t now_ns);

/* How long a segment and its acknowledgement take on one of its connections; 0: not known. */
void pace_rtt(struct pace *p, int64_t rtt_ns);
/* How many bytes of one connection that brings what nobody waits for may be on their way at once: all of them together
 * fill the line, and make no long line before it. UINT64_MAX: as many as the kernel likes, where the rate is not known
 * yet or so high that it is hardly a line that bounds it. */
uint64_t pace_low_window(struct pace *p);

void pace_advise(struct pace *p, struct pace_advice *ret_advice);

/* For the metrics page. */
struct pace_stats {
	unsigned connections;
	double request_limit; /* 0: none */
	double latency_s, bytes_per_s;
};
void pace_get_stats(struct pace *p, struct pace_stats *ret_stats);

#endif
