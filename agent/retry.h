/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RETRY_H
#define WD_AGENT_RETRY_H
/*
 * When to try again: exponential backoff with full jitter inside a deadline. Pure; the caller
 * brings clock and randomness.
 *
 * The wait before try n+1 is even over [20 ms, 20 ms + min(5 s, 100 ms * 2^n)], and at least what the
 * server asked for. The last try starts a little before the deadline (a tenth of it, at most 2 s), so
 * that it has a chance, and so that the answer of a lasting fault comes within the deadline; a wait
 * that would pass this point is cut to it.
 */
#include <stdbool.h>
#include <stdint.h>

#define RETRY_BASE_MS 100
#define RETRY_CAP_MS 5000
#define RETRY_FLOOR_MS 20
#define RETRY_LAST_MAX_MS 2000

struct retry {
	int64_t deadline_ns; /* monotonic; a try under way then is to be ended */
	int64_t last_ns;     /* no try starts later */
	unsigned tries;	     /* begun so far */
	unsigned backoff;    /* exponent; falls back to 0 with progress */
};

void retry_start(struct retry *r, int64_t now_ns, int64_t deadline_ms);
/* The same with an absolute deadline, which may be over. */
void retry_start_until(struct retry *r, int64_t now_ns, int64_t deadline_ns);
/* A try is begun. */
static inline void retry_count(struct retry *r)
{
	r->tries++;
}
/* The request got on: what it waited for so far no longer counts. */
void retry_progress(struct retry *r, int64_t now_ns, int64_t deadline_ms);
/* A try failed. retry_after_ms < 0: the server asked for nothing. False when the last try has been made, else
 * *ret_at_ns is when to try again. */
bool retry_again(struct retry *r, int64_t now_ns, int64_t retry_after_ms, uint32_t random,
	int64_t *ret_at_ns);

#endif
