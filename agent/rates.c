/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/rates.h"

#include <string.h>

static uint64_t per_second(uint64_t now, uint64_t before, int64_t ns)
{
	if (now <= before || ns <= 0)
		return 0;
	return (uint64_t)((unsigned __int128)(now - before) * 1000000000u / (uint64_t)ns);
}

void rates_sample(struct rates *r, const uint64_t values[RATES], int64_t now_ns)
{
	if (r->last_ns) {
		for (int i = 0; i < RATES; i++)
			r->points[i][r->next] = per_second(values[i], r->last[i], now_ns - r->last_ns);
		r->next = (r->next + 1) % RATES_POINTS;
		r->n += r->n < RATES_POINTS;
	}
	memcpy(r->last, values, sizeof(r->last));
	r->last_ns = now_ns;
}

uint64_t rates_point(const struct rates *r, enum rate which, unsigned i)
{
	if (i < RATES_POINTS - r->n)
		return 0;
	return r->points[which][(r->next + i) % RATES_POINTS];
}
