/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The breaker as arithmetic: no clock, no lock, no sleep. Requests that began before it opened may end
 * at any time; their failures only push the next probe away when the breaker is half open, because
 * only then is there one whose failure says something new.
 */
#include "agent/breaker.h"

#define NS_PER_MS 1000000

/* When the next probe may go. */
static int64_t next_probe(const struct breaker *b, int64_t now_ns, int64_t asked_ms, uint32_t random)
{
	int64_t window_ms = BREAKER_CAP_MS, wait_ms;

	if (b->backoff < 16 && ((int64_t)BREAKER_BASE_MS << b->backoff) < BREAKER_CAP_MS)
		window_ms = (int64_t)BREAKER_BASE_MS << b->backoff;
	wait_ms = window_ms / 2 + (int64_t)((uint64_t)random * (uint64_t)(window_ms / 2 + 1) >> 32);
	if (asked_ms > BREAKER_ASKED_MAX_MS)
		asked_ms = BREAKER_ASKED_MAX_MS;
	if (wait_ms < asked_ms)
		wait_ms = asked_ms;
	return now_ns + wait_ms * NS_PER_MS;
}

bool breaker_allows(struct breaker *b, int64_t now_ns, int64_t *ret_at_ns)
{
	if (b->state == BREAKER_CLOSED)
		return true;
	if (now_ns < b->probe_at_ns) {
		*ret_at_ns = b->probe_at_ns;
		return false;
	}
	b->state = BREAKER_HALF_OPEN;
	b->probe_at_ns = now_ns + (int64_t)BREAKER_PROBE_MS * NS_PER_MS;
	return true;
}

bool breaker_answered(struct breaker *b)
{
	bool was_closed = b->state == BREAKER_CLOSED;

	*b = (struct breaker){.state = BREAKER_CLOSED};
	return !was_closed;
}

bool breaker_failed(struct breaker *b, int64_t now_ns, int64_t asked_ms, uint32_t random)
{
	switch (b->state) {
	case BREAKER_CLOSED:
		if (++b->failures < BREAKER_FAILURES)
			return false;
		b->state = BREAKER_OPEN;
		b->backoff = 0;
		b->opened_ns = now_ns;
		b->probe_at_ns = next_probe(b, now_ns, asked_ms, random);
		return true;
	case BREAKER_HALF_OPEN:
		if (b->backoff < 16)
			b->backoff++;
		b->state = BREAKER_OPEN;
		b->probe_at_ns = next_probe(b, now_ns, asked_ms, random);
		return false;
	case BREAKER_OPEN:
		break;
	}
	return false;
}

void breaker_abandoned(struct breaker *b, int64_t now_ns)
{
	if (b->state != BREAKER_HALF_OPEN)
		return;
	b->state = BREAKER_OPEN;
	b->probe_at_ns = now_ns;
}
