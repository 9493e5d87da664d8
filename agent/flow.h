/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_FLOW_H
#define WD_AGENT_FLOW_H
/*
 * Whose reads of an origin are counted together: those of one mount. Flows take turns in the queue
 * (agent/get_queue.h), so that one with many readers does not keep another's waiting, and each may have a bandwidth
 * limit. Besides, there is one limit for all flows.
 *
 * Counted; a read that is with the queue does not hold its flow, so whoever pushes it does.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/bucket.h"
#include "agent/priority.h"

struct origin_get;

enum flow_pattern { FLOW_SEQUENTIAL, FLOW_STRIDED, FLOW_TAIL, FLOW_RANDOM, FLOW_PATTERNS };

/* One that is zeroed is good, and without a limit of its own. */
struct flow {
	_Atomic int refs;
	uint64_t rate; /* bytes per second; 0: no limit */
	/* counted by who reads (agent/fetch.h), for who asks */
	_Atomic uint64_t waits, wait_us, patterns[FLOW_PATTERNS];
	/* the queue's, guarded by its lock: a flow goes through one queue */
	struct bucket bucket;
	unsigned running;
	struct flow_line {
		struct origin_get *head; /* that wait in this class, in order of arrival */
		struct flow_line *prev, *next;
		struct flow *flow;
	} lines[GET_PRIORITIES];
};

/* bytes_per_s 0: no limit. NULL: no memory. */
struct flow *flow_new(uint64_t bytes_per_s);
struct flow *flow_ref(struct flow *f);
void flow_unref(struct flow *f);

/* The limit of all flows together, 0: none; before there is any read. */
void flows_set_limit(uint64_t bytes_per_s);
uint64_t flows_limit(void);
/* May one byte more be asked for now? */
bool flows_allow(int64_t now_ns, int64_t *ret_at_ns);
void flows_take(uint64_t bytes);
void flows_return(uint64_t bytes);

#endif
