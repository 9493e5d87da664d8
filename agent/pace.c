/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See pace.h. The window of a stream is what the line holds (rate x latency), twice, so that it is full also while
 * the reader has not come back yet, and a few GETs besides: GETs that run in turns bring blocks out of order.
 */
#include "agent/pace.h"

#define SECOND_NS 1000000000LL
#define EPOCH_MIN_NS 100000000LL
#define EPOCH_MAX_NS SECOND_NS
#define EPOCH_LATENCIES 4
#define CONNECTIONS_START 8
#define CONNECTIONS_FLOOR 4
#define GET_S 0.5
#define GET_MIN (1ULL << 20)
#define GET_MAX (16ULL << 20)
#define WINDOW_GETS 4
#define RATE_NS 200000000LL
#define QUEUE_S 0.008 /* of the line, that may stand in line before it */
#define LOW_WINDOW_MIN (64ULL << 10)
#define FAST 256e6 /* bytes per second */
#define PEAK_KEPT 0.99 /* of it, after RATE_NS at a lower rate */
#define BODY_NS (4.0 * SECOND_NS)
#define BODY_KNOWN_NS 20000000.0

void pace_init(struct pace *p, unsigned max_low)
{
	*p = (struct pace){0};
	wd_mutex_init(&p->lock);
	wd_lock(&p->lock);
	gain_init(&p->gain, CONNECTIONS_START, CONNECTIONS_FLOOR, max_low ? max_low : 1);
	wd_unlock(&p->lock);
}

void pace_done(struct pace *p)
{
	wd_mutex_done(&p->lock);
}

/* Is it the line that bounds the rate, as far as is known? Beyond FAST that is seldom so: a processor changes hands the
 * more often the shorter the windows are, and shards would not be complete before they are opened. */
static bool is_line_locked(const struct pace *p) WD_REQUIRES(p->lock)
{
	return p->peak > 0 && p->peak < FAST;
}

/* Readers have come lately: *ret_until_ns is for how long that counts; INT64_MAX: as long as they wait. */
static bool is_quiet_locked(const struct pace *p, int64_t now_ns, int64_t *ret_until_ns) WD_REQUIRES(p->lock)
{
	*ret_until_ns = p->running > p->nlow ? INT64_MAX : p->demand_ns + PACE_QUIET_NS;
	return is_line_locked(p) && p->demand_ns > 0 && *ret_until_ns > now_ns;
}

bool pace_allows(struct pace *p, enum get_priority class, int64_t now_ns, int64_t *ret_at_ns)
{
	bool is_allowed;
	int64_t until_ns;

	wd_lock(&p->lock);
	is_allowed = request_rate_allows(&p->requests, now_ns, ret_at_ns);
	if (is_allowed && class < GET_DEMAND && p->nlow >= p->gain.limit) {
		is_allowed = false;
		*ret_at_ns = INT64_MAX;
	} else if (is_allowed && class < GET_STREAM && p->nquiet >= PACE_QUIET_READS &&
		is_quiet_locked(p, now_ns, &until_ns)) {
		is_allowed = false;
		*ret_at_ns = until_ns;
	}
	wd_unlock(&p->lock);
	return is_allowed;
}

void pace_began(struct pace *p, enum get_priority class, int64_t now_ns)
{
	wd_lock(&p->lock);
	p->running++;
	p->nlow += class < GET_DEMAND;
	p->nquiet += class < GET_STREAM;
	if (class == GET_DEMAND)
		p->demand_ns = now_ns;
	wd_unlock(&p->lock);
}

void pace_ended(struct pace *p, enum get_priority class, int64_t now_ns)
{
	wd_lock(&p->lock);
	p->running--;
	p->nlow -= class < GET_DEMAND;
	p->nquiet -= class < GET_STREAM;
	if (class == GET_DEMAND)
		p->demand_ns = now_ns;
	wd_unlock(&p->lock);
}

void pace_request(struct pace *p)
{
	wd_lock(&p->lock);
	request_rate_take(&p->requests);
	wd_unlock(&p->lock);
}

void pace_first_byte(struct pace *p, int64_t now_ns, int64_t latency_ns)
{
	wd_lock(&p->lock);
	request_rate_answered(&p->requests, now_ns);
	/* down at once, up slowly: what waits behind other answers on a full line is no latency */
	if (p->latency_ns == 0 || latency_ns < p->latency_ns)
		p->latency_ns = latency_ns;
	else
		p->latency_ns += (latency_ns - p->latency_ns) / 32;
	wd_unlock(&p->lock);
}

static int64_t epoch_of_locked(const struct pace *p) WD_REQUIRES(p->lock)
{
	int64_t ns = p->latency_ns * EPOCH_LATENCIES;

	return ns < EPOCH_MIN_NS ? EPOCH_MIN_NS : ns > EPOCH_MAX_NS ? EPOCH_MAX_NS : ns;
}

static double smooth(double old, double now, double weight)
{
	return old > 0 ? old + (now - old) * weight : now;
}

void pace_bytes(struct pace *p, int64_t now_ns, uint64_t bytes, int64_t took_ns)
{
	int64_t since_ns;

	wd_lock(&p->lock);
	since_ns = now_ns - p->window_ns;
	p->window_bytes += bytes;
	if (p->window_ns == 0 || since_ns > 4 * RATE_NS) {
		p->window_ns = now_ns;
		p->window_bytes = 0;
	} else if (since_ns >= RATE_NS) {
		p->rate = smooth(p->rate, (double)p->window_bytes * SECOND_NS / (double)since_ns, 0.3);
		p->peak = p->rate > p->peak * PEAK_KEPT ? p->rate : p->peak * PEAK_KEPT;
		p->window_ns = now_ns;
		p->window_bytes = 0;
	}
	p->body_bytes += (double)bytes;
	p->body_ns += (double)took_ns;
	if (p->body_ns > BODY_NS) {
		p->body_bytes /= 2;
		p->body_ns /= 2;
	}
	gain_bytes(&p->gain, now_ns, bytes, p->running, epoch_of_locked(p));
	wd_unlock(&p->lock);
}

void pace_complaint(struct pace *p, int64_t now_ns)
{
	wd_lock(&p->lock);
	request_rate_complain(&p->requests, now_ns);
	wd_unlock(&p->lock);
}

static uint64_t power_of_two_below(double bytes)
{
	uint64_t n = GET_MIN;

	while (n < GET_MAX && (double)(n * 2) <= bytes)
		n *= 2;
	return n;
}

void pace_rtt(struct pace *p, int64_t rtt_ns)
{
	wd_lock(&p->lock);
	/* each connection's is the shortest it has seen: down at once; up, as roads change, slowly */
	if (rtt_ns > 0)
		p->rtt_ns = p->rtt_ns == 0 || rtt_ns < p->rtt_ns ? rtt_ns : p->rtt_ns + (rtt_ns - p->rtt_ns) / 1024;
	wd_unlock(&p->lock);
}

uint64_t pace_low_window(struct pace *p)
{
	uint64_t bytes = UINT64_MAX;

	wd_lock(&p->lock);
	if (is_line_locked(p)) {
		bytes = (uint64_t)(p->peak * (QUEUE_S + 2 * (double)p->rtt_ns / SECOND_NS)) /
			(p->nlow > CONNECTIONS_FLOOR ? p->nlow : CONNECTIONS_FLOOR);
		bytes = bytes > LOW_WINDOW_MIN ? bytes : LOW_WINDOW_MIN;
	}
	wd_unlock(&p->lock);
	return bytes;
}

void pace_advise(struct pace *p, struct pace_advice *ret_advice)
{
	double line;

	wd_lock(&p->lock);
	ret_advice->get_bytes = GET_MAX;
	if (p->body_ns > BODY_KNOWN_NS)
		ret_advice->get_bytes = power_of_two_below(p->body_bytes / p->body_ns * SECOND_NS * GET_S);
	line = p->rate * (double)p->latency_ns / SECOND_NS;
	ret_advice->window_bytes = WINDOW_GETS * ret_advice->get_bytes + (uint64_t)(2 * line);
	wd_unlock(&p->lock);
}

void pace_get_stats(struct pace *p, struct pace_stats *ret_stats)
{
	wd_lock(&p->lock);
	*ret_stats = (struct pace_stats){.connections = p->gain.limit,
		.request_limit = p->requests.limit,
		.latency_s = (double)p->latency_ns / SECOND_NS,
		.bytes_per_s = p->rate};
	wd_unlock(&p->lock);
}
