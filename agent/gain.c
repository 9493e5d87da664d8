/* SPDX-License-Identifier: Apache-2.0 */
/* See gain.h. */
#include "agent/gain.h"

#define SECOND_NS 1000000000LL
#define HOLD_MIN_NS SECOND_NS
#define HOLD_MAX_NS (16 * SECOND_NS)
#define WORTH_MORE 1.10
#define COSTS_LITTLE 0.97

void gain_init(struct gain *g, unsigned start, unsigned floor, unsigned ceiling)
{
	*g = (struct gain){.floor = floor < ceiling ? floor : ceiling, .ceiling = ceiling, .hold_ns = HOLD_MIN_NS};
	g->limit = start < g->floor ? g->floor : start > ceiling ? ceiling : start;
}

static unsigned more(const struct gain *g)
{
	unsigned n = g->limit + (g->limit + 1) / 2;

	return n < g->ceiling ? n : g->ceiling;
}

static unsigned fewer(const struct gain *g)
{
	unsigned n = g->limit * 2 / 3;

	return n > g->floor ? n : g->floor;
}

static void hold(struct gain *g, int64_t now_ns)
{
	g->step = GAIN_HOLD;
	g->hold_until_ns = now_ns + g->hold_ns;
}

static void try_limit(struct gain *g, enum gain_step step, unsigned limit, double rate, int64_t now_ns)
{
	if (limit == g->limit) {
		hold(g, now_ns);
		return;
	}
	g->step = step;
	g->before = g->limit;
	g->rate = rate;
	g->limit = limit;
}

/* A try that brought nothing: the next one is later, and in the other direction. */
static void back(struct gain *g, int64_t now_ns)
{
	g->limit = g->before;
	g->goes_up_next = !g->goes_up_next;
	g->hold_ns = g->hold_ns * 2 < HOLD_MAX_NS ? g->hold_ns * 2 : HOLD_MAX_NS;
	hold(g, now_ns);
}

static void decide(struct gain *g, double rate, int64_t now_ns)
{
	switch (g->step) {
	case GAIN_GROW:
	case GAIN_MORE:
		if (g->rate > 0 && rate < g->rate * WORTH_MORE) {
			back(g, now_ns);
			return;
		}
		g->hold_ns = HOLD_MIN_NS;
		try_limit(g, GAIN_MORE, more(g), rate, now_ns);
		return;
	case GAIN_FEWER:
		if (rate < g->rate * COSTS_LITTLE) {
			back(g, now_ns);
			return;
		}
		g->hold_ns = HOLD_MIN_NS;
		/* the rate to compare with stays, so that many small losses do not add up */
		try_limit(g, GAIN_FEWER, fewer(g), g->rate, now_ns);
		return;
	case GAIN_HOLD:
		if (now_ns < g->hold_until_ns)
			return;
		if (g->goes_up_next)
			try_limit(g, GAIN_MORE, more(g), rate, now_ns);
		else
			try_limit(g, GAIN_FEWER, fewer(g), rate, now_ns);
		if (g->step == GAIN_HOLD) /* it is at its end in that direction */
			g->goes_up_next = !g->goes_up_next;
		return;
	}
}

void gain_bytes(struct gain *g, int64_t now_ns, uint64_t bytes, unsigned used, int64_t epoch_ns)
{
	double rate;

	/* a pause: what was measured so far means nothing */
	if (g->epoch_ns == 0 || now_ns - g->epoch_ns > 4 * epoch_ns) {
		g->epoch_ns = now_ns;
		g->settled_ns = 0;
	}
	if (g->settled_ns == 0) {
		if (now_ns - g->epoch_ns < epoch_ns / 2)
			return;
		g->settled_ns = now_ns;
		g->bytes = 0;
		g->is_full = true;
	}
	g->bytes += bytes;
	g->is_full = g->is_full && used >= g->limit;
	if (now_ns - g->epoch_ns < epoch_ns || now_ns == g->settled_ns)
		return;
	rate = (double)g->bytes * SECOND_NS / (double)(now_ns - g->settled_ns);
	g->epoch_ns = now_ns;
	g->settled_ns = 0;
	if (g->is_full)
		decide(g, rate, now_ns);
}
