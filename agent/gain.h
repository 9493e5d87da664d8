/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_GAIN_H
#define WD_AGENT_GAIN_H
/*
 * How many connections to an endpoint are worth having, found by trying. Time goes in epochs; only those in which
 * all connections were in use tell something, and of each the first half is left for things to settle.
 *
 *	grow: half as many more while that brings at least a tenth more; else back, and hold
 *	hold: after a while a third fewer; if that costs less than 3%, it stays and goes on, else back.
 *	      The next time half as many more are tried.
 *
 * Few connections matter where the line is the limit: whoever waits for one GET shares it with all of the others.
 * Pure: the caller brings clock and lock.
 */
#include <stdbool.h>
#include <stdint.h>

enum gain_step { GAIN_GROW, GAIN_HOLD, GAIN_FEWER, GAIN_MORE };

struct gain {
	unsigned limit, floor, ceiling;
	enum gain_step step;
	unsigned before;   /* the limit that was before the try */
	double rate;	   /* bytes per second, with `before` */
	int64_t epoch_ns;  /* when this one began; 0: none has */
	uint64_t bytes;	   /* since it has settled */
	int64_t settled_ns; /* 0: not yet */
	bool is_full;	   /* all connections were in use since then */
	int64_t hold_until_ns, hold_ns;
	bool goes_up_next;
};

void gain_init(struct gain *g, unsigned start, unsigned floor, unsigned ceiling);
/* Bytes came; `used` connections are in use. epoch_ns: how long an epoch is to be (a few times the latency). */
void gain_bytes(struct gain *g, int64_t now_ns, uint64_t bytes, unsigned used, int64_t epoch_ns);

#endif
