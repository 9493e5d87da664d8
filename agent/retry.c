/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The retry policy of all origins, as arithmetic: no clock, no sleep, no lock. Full jitter, because
 * many agents meet the same fault at the same moment.
 */
#include "agent/retry.h"

#define NS_PER_MS 1000000

static void set_deadline(struct retry *r, int64_t now_ns, int64_t deadline_ns)
{
	int64_t margin_ns = (deadline_ns - now_ns) / 10;

	if (margin_ns > (int64_t)RETRY_LAST_MAX_MS * NS_PER_MS)
		margin_ns = (int64_t)RETRY_LAST_MAX_MS * NS_PER_MS;
	r->deadline_ns = deadline_ns;
	r->last_ns = margin_ns > 0 ? deadline_ns - margin_ns : deadline_ns;
}

void retry_start_until(struct retry *r, int64_t now_ns, int64_t deadline_ns)
{
	set_deadline(r, now_ns, deadline_ns);
	r->tries = 0;
	r->backoff = 0;
}

void retry_start(struct retry *r, int64_t now_ns, int64_t deadline_ms)
{
	retry_start_until(r, now_ns, now_ns + deadline_ms * NS_PER_MS);
}

void retry_progress(struct retry *r, int64_t now_ns, int64_t deadline_ms)
{
	set_deadline(r, now_ns, now_ns + deadline_ms * NS_PER_MS);
	r->backoff = 0;
}

bool retry_again(struct retry *r, int64_t now_ns, int64_t retry_after_ms, uint32_t random,
	int64_t *ret_at_ns)
{
	int64_t window_ms = RETRY_CAP_MS, wait_ms;

	if (now_ns >= r->last_ns)
		return false;
	if (r->backoff < 16 && ((int64_t)RETRY_BASE_MS << r->backoff) < RETRY_CAP_MS)
		window_ms = (int64_t)RETRY_BASE_MS << r->backoff;
	if (r->backoff < 16)
		r->backoff++;
	wait_ms = RETRY_FLOOR_MS + (int64_t)((uint64_t)random * (uint64_t)(window_ms + 1) >> 32);
	if (wait_ms < retry_after_ms)
		wait_ms = retry_after_ms;
	*ret_at_ns = wait_ms > (r->last_ns - now_ns) / NS_PER_MS ? r->last_ns : now_ns + wait_ms * NS_PER_MS;
	return true;
}
