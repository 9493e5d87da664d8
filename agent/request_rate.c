/* SPDX-License-Identifier: Apache-2.0 */
/* See request_rate.h. Complaints within one second are one: they answer requests that had gone before the cut. */
#include "agent/request_rate.h"

#define SECOND_NS 1000000000LL
#define CALM_NS (60 * SECOND_NS)
#define CUT 0.7
#define LEAST 16.0
#define LEAST_GROWTH 4.0
#define COMPLAINTS 3 /* fewer, or fewer than one in twenty, are accidents */
#define GROWTH 0.1
#define BURST_S 0.1 /* saved up, but for one request at least */

static void turn_second(struct request_rate *r, int64_t now_ns)
{
	if (now_ns - r->second_ns < SECOND_NS)
		return;
	r->last_count = now_ns - r->second_ns < 2 * SECOND_NS ? r->count : 0;
	r->count = 0;
	r->complaints = 0;
	r->second_ns = now_ns;
}

static void grow(struct request_rate *r, int64_t now_ns)
{
	while (r->limit > 0 && now_ns - r->grown_ns >= SECOND_NS) {
		r->limit += r->limit * GROWTH > LEAST_GROWTH ? r->limit * GROWTH : LEAST_GROWTH;
		r->grown_ns += SECOND_NS;
		if (r->grown_ns - r->complaint_ns >= CALM_NS)
			r->limit = 0;
	}
}

static void fill(struct request_rate *r, int64_t now_ns)
{
	double most = r->limit * BURST_S > 1 ? r->limit * BURST_S : 1;

	if (now_ns > r->at_ns)
		r->tokens += r->limit * (double)(now_ns - r->at_ns) / SECOND_NS;
	r->at_ns = now_ns;
	if (r->tokens > most)
		r->tokens = most;
}

bool request_rate_allows(struct request_rate *r, int64_t now_ns, int64_t *ret_at_ns)
{
	grow(r, now_ns);
	if (r->limit == 0)
		return true;
	fill(r, now_ns);
	if (r->tokens >= 1)
		return true;
	*ret_at_ns = now_ns + (int64_t)((1 - r->tokens) / r->limit * SECOND_NS) + 1;
	return false;
}

void request_rate_take(struct request_rate *r)
{
	if (r->limit > 0 && r->tokens > -r->limit)
		r->tokens -= 1;
}

void request_rate_answered(struct request_rate *r, int64_t now_ns)
{
	turn_second(r, now_ns);
	r->count++;
}

void request_rate_complain(struct request_rate *r, int64_t now_ns)
{
	double went;

	grow(r, now_ns);
	turn_second(r, now_ns);
	went = r->count > r->last_count ? r->count : r->last_count;
	r->complaints++;
	if (went == 0 || r->complaints < COMPLAINTS || r->complaints * 20 < went)
		return;
	r->complaint_ns = now_ns;
	r->grown_ns = now_ns;
	if (r->limit > 0 && now_ns - r->cut_ns < SECOND_NS)
		return;
	if (r->limit == 0 || went < r->limit)
		r->limit = went;
	r->limit = r->limit * CUT > LEAST ? r->limit * CUT : LEAST;
	r->cut_ns = now_ns;
	r->at_ns = now_ns;
	if (r->tokens > 0)
		r->tokens = 0;
}
