/* SPDX-License-Identifier: Apache-2.0 */
/*
 * s3fifo: most objects are used once (a scan), and should not push out what is used again and again. So
 * newcomers get a tenth of the cache, go in the order in which they came, and only those that were used
 * again meanwhile come into the main order. Who went too early is remembered (a ghost) and let in when it
 * comes back.
 *
 * The paper has a second FIFO whose objects go round again if they were used; here the main order is by last
 * use, which the store keeps anyway. The two are close: what matters is that newcomers leave quickly.
 */
#include "agent/evict_internal.h"

static bool is_newcomer(struct evict *e, const struct object_id *id, bool is_ghost)
{
	return !is_ghost;
}

static unsigned plan(struct evict *e, uint64_t now, uint64_t objects, struct evict_source *ret_plan)
{
	bool are_many = e->table.lists[LIST_QUEUE].bytes > e->capacity / 10;

	ret_plan[are_many] = (struct evict_source){.from = EVICT_OLDEST};
	ret_plan[!are_many] = (struct evict_source){.from = EVICT_QUEUE};
	return 2;
}

static enum evict_verdict judge(struct evict *e, const struct evict_entry *x)
{
	if (x->uses > 0)
		return VERDICT_PROMOTE;
	return evict_is_awaited(e, x) ? VERDICT_LATER : VERDICT_GO;
}

const struct evict_rule evict_rule_s3fifo = {EVICT_S3FIFO, true, is_newcomer, plan, judge};
