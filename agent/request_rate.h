/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_REQUEST_RATE_H
#define WD_AGENT_REQUEST_RATE_H
/*
 * How many requests per second an endpoint takes. There is no limit until it asks for one, by several complaints
 * (429, SlowDown, 503) within a second: then it is 7/10 of what it answered well in the last second, and never less
 * than 16; it grows by a tenth (at least four requests per second) with every second in which it does not ask again.
 * After a minute without a complaint there is no limit.
 *
 * An endpoint that answers nothing well is no matter of rates: that is the breaker's (agent/breaker.h). Requests that
 * are tried again wait by their own backoff (agent/retry.h) and ask nobody here, but count, up to a second's worth.
 * Pure: the caller brings clock and lock.
 */
#include <stdbool.h>
#include <stdint.h>

struct request_rate {
	double limit;  /* requests per second; 0: none */
	double tokens; /* requests that may go at once; below 0 after retries, which ask nobody */
	int64_t at_ns; /* filled up to then */
	int64_t cut_ns, grown_ns, complaint_ns;
	/* good answers in this second and in the one before */
	int64_t second_ns;
	unsigned count, last_count, complaints;
};

/* May a request go now? False: *ret_at_ns is when. */
bool request_rate_allows(struct request_rate *r, int64_t now_ns, int64_t *ret_at_ns);
/* A request goes. */
void request_rate_take(struct request_rate *r);
/* One was answered well. */
void request_rate_answered(struct request_rate *r, int64_t now_ns);
/* The endpoint wants fewer. */
void request_rate_complain(struct request_rate *r, int64_t now_ns);

#endif
