/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_RATES_H
#define WD_AGENT_RATES_H
/* How fast counters grew over the last minutes: for the agent's page. A plain value of one thread. */
#include <stdint.h>

#define RATES_EVERY_S 5
#define RATES_POINTS 60 /* five minutes */

enum rate { RATE_LOCAL, RATE_SERVERS, RATE_PEER, RATE_ORIGIN, RATES };

struct rates {
	uint64_t last[RATES];
	int64_t last_ns; /* 0: never */
	uint64_t points[RATES][RATES_POINTS]; /* per second; a ring */
	unsigned next, n;
};

/* A counter that went back, or a clock that stood still, counts as no growth. */
void rates_sample(struct rates *r, const uint64_t values[RATES], int64_t now_ns);
/* The i-th of RATES_POINTS, the oldest first; 0 where there was no sample yet. */
uint64_t rates_point(const struct rates *r, enum rate which, unsigned i);

#endif
