/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_BREAKER_H
#define WD_AGENT_BREAKER_H
/*
 * A circuit breaker: when an endpoint has failed a few times running, nobody asks it but one probe at
 * a time; the first answer lets everybody go on. Pure: the caller brings clock, randomness and lock.
 *
 *	CLOSED ──BREAKER_FAILURES failures running──► OPEN ──time for a probe──► HALF_OPEN
 *	   ▲                                           ▲                            │
 *	   └──── an answer, whoever asked ─────────────┼──── the probe failed ──────┤
 *	                                               └──── or hangs: another ─────┘
 *
 * A failure is what says that the endpoint is not there, or wants to be left alone: no connection, no
 * answer, 5xx, 429. Any other answer, a refusal too, shows that it is there.
 *
 * The wait before a probe is even over [half, whole] of 250 ms * 2^n, at most 1 s: that is also the
 * most a reader loses after the end of an outage. A server that asks for more (Retry-After) gets it,
 * up to BREAKER_ASKED_MAX_MS.
 */
#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES 5
#define BREAKER_BASE_MS 250
#define BREAKER_CAP_MS 1000
#define BREAKER_ASKED_MAX_MS 60000
#define BREAKER_PROBE_MS 5000 /* a probe that takes longer no longer keeps others from probing */

/* The values are those of the metric warpdrive_origin_breaker_state. */
enum breaker_state { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN };

/* All zero is a closed breaker. */
struct breaker {
	enum breaker_state state;
	unsigned failures;  /* running */
	unsigned backoff;   /* probes that failed since it opened */
	int64_t opened_ns;  /* not CLOSED: since when */
	int64_t probe_at_ns; /* not CLOSED: the next probe may start */
};

/* May a request start now? True in HALF_OPEN only for the probe itself, which must be followed by
 * breaker_answered(), breaker_failed() or breaker_abandoned(). False: *ret_at_ns is when to ask again,
 * unless the breaker closes before. */
bool breaker_allows(struct breaker *b, int64_t now_ns, int64_t *ret_at_ns);

/* The endpoint answered. True when that closed the breaker: all who wait may go on. */
bool breaker_answered(struct breaker *b);

/* No answer, or one that asks to be left alone; asked_ms < 0: it did not say for how long. True when
 * that opened the breaker. */
bool breaker_failed(struct breaker *b, int64_t now_ns, int64_t asked_ms, uint32_t random);

/* A request ended without telling anything (cancelled): if it was the probe, another may go. */
void breaker_abandoned(struct breaker *b, int64_t now_ns);

#endif
