/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uniform: for epochs, in each of which everything is read once, shuffled or not. What was read is needed again
 * only after all that was not read yet, so whatever the cache keeps, it must keep until its turn comes: the
 * share of the dataset that fits is then the share that is found. To go by last use is the worst
 * that one can do.
 *
 * Once the cache is full, newcomers pass through a small part of it (GRACE, for which the oldest leave once), in the
 * order in which they came: so they are streamed and read ahead like anything else, and a file that is
 * opened twice in a row is fetched once. Where these do not suffice (all of them are in use), the newest of
 * the main order goes: it was just read, and that comes to the same.
 *
 * The main order would keep for ever what nobody reads any more. In an epoch no time between two uses is longer
 * than two epochs; what was not used for twice as long as the longest seen of late is stale, goes first, and
 * newcomers take over its place. While nothing at all is found there is no such time: then it is many
 * times the turn-over of the cache.
 */
#include "agent/evict_internal.h"

#define GRACE(capacity) ((capacity) / 64)
#define IDLE_TURNS 16

static bool is_newcomer(struct evict *e, const struct object_id *id, bool is_ghost)
{
	return e->is_full;
}

static unsigned plan(struct evict *e, uint64_t now, uint64_t objects, struct evict_source *ret_plan)
{
	uint64_t age = evict_long_age(e), limit = age > 0 ? age + age / 2 : IDLE_TURNS * objects;
	bool are_many = e->table.lists[LIST_QUEUE].bytes > GRACE(e->capacity);
	unsigned n = 0;

	if (now > limit)
		ret_plan[n++] = (struct evict_source){EVICT_STALE, now - limit};
	if (are_many)
		ret_plan[n++] = (struct evict_source){.from = EVICT_QUEUE};
	if (are_many || e->ceded > GRACE(e->capacity))
		ret_plan[n++] = (struct evict_source){.from = EVICT_NEWEST};
	ret_plan[n++] = (struct evict_source){.from = EVICT_OLDEST};
	return n;
}

static enum evict_verdict judge(struct evict *e, const struct evict_entry *x)
{
	/* what left the main order is made up for, but a part stays for newcomers to pass through */
	if (e->vacancy >= x->size && e->table.lists[LIST_QUEUE].bytes - x->size >= 2 * GRACE(e->capacity))
		return VERDICT_PROMOTE;
	return evict_is_awaited(e, x) ? VERDICT_LATER : VERDICT_GO;
}

const struct evict_rule evict_rule_uniform = {EVICT_UNIFORM, false, is_newcomer, plan, judge};
