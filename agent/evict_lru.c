/* SPDX-License-Identifier: Apache-2.0 */
/* lru: the oldest goes. Newcomers are nothing special; those of another rule are let into the main order. */
#include "agent/evict_internal.h"

static bool is_newcomer(struct evict *e, const struct object_id *id, bool is_ghost)
{
	return false;
}

static unsigned plan(struct evict *e, uint64_t now, uint64_t objects, struct evict_source *ret_plan)
{
	unsigned n = 0;

	if (evict_queue_count(e) > 0)
		ret_plan[n++] = (struct evict_source){.from = EVICT_QUEUE};
	ret_plan[n++] = (struct evict_source){.from = EVICT_OLDEST};
	return n;
}

static enum evict_verdict judge(struct evict *e, const struct evict_entry *x)
{
	return VERDICT_PROMOTE;
}

const struct evict_rule evict_rule_lru = {EVICT_LRU, false, is_newcomer, plan, judge};
