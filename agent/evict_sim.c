/* SPDX-License-Identifier: Apache-2.0 */
/* A whole cache without bytes: its main order is in memory, and what the policy says is done at once. */
#include <assert.h>

#include "agent/evict_internal.h"

uint64_t sim_bytes(const struct evict *e)
{
	return e->table.lists[LIST_MAIN].bytes + e->table.lists[LIST_QUEUE].bytes;
}

uint32_t sim_count(const struct evict *e)
{
	return e->table.lists[LIST_MAIN].count + e->table.lists[LIST_QUEUE].count;
}

static bool find_victim(struct evict *e, const struct evict_source *from, struct object_id *ret_id)
{
	const struct evict_entry *x;

	if (from->from == EVICT_QUEUE)
		return evict_queue_next(e, ret_id);
	x = from->from == EVICT_NEWEST ? table_newest(&e->table, LIST_MAIN) : table_oldest(&e->table, LIST_MAIN);
	if (!x || (from->from == EVICT_STALE && x->when >= from->before))
		return false;
	*ret_id = x->id;
	return true;
}

static bool evict_one(struct evict *e)
{
	struct evict_source plan[EVICT_FROMS];
	unsigned n = evict_plan(e, e->clock, sim_count(e), plan);
	struct object_id id;

	for (unsigned i = 0; i < n; i++) {
		if (!find_victim(e, &plan[i], &id))
			continue;
		evict_removed(e, &id, table_find(&e->table, &id)->size, true);
		return true;
	}
	return false;
}

/* True when there is room for it, in bytes and in the table. */
static bool make_room(struct evict *e, uint64_t size)
{
	if (size > e->capacity)
		return false;
	while (sim_bytes(e) + size > e->capacity || sim_count(e) >= e->config.max_main)
		if (!evict_one(e))
			return false;
	return true;
}

bool evict_sim_use(struct evict *e, const struct object_id *id, uint64_t size)
{
	struct evict_entry *x = table_find(&e->table, id);
	bool is_resident = x && x->list != LIST_GHOSTS;

	assert(e->config.max_main > 0);
	e->clock++;
	evict_used(e, &(struct evict_use){*id, size, is_resident, is_resident ? e->clock - x->when : 0});
	if (!is_resident) {
		if (make_room(e, size))
			evict_admitted(e, id, size, true);
		return false;
	}
	x->when = e->clock;
	if (x->list == LIST_MAIN)
		table_move(&e->table, x, LIST_MAIN);
	return true;
}

void evict_seed(struct evict *e, const struct object_id *id, uint64_t size)
{
	struct evict_entry *x;

	if (e->auto_judge)
		judge_seed(e->auto_judge, id, size);
	if (e->config.max_main == 0)
		return;
	x = table_find(&e->table, id);
	e->clock++;
	if (x && x->list == LIST_GHOSTS)
		table_remove(&e->table, x);
	else if (x)
		return;
	/* like lru, whatever the rule is: what was there at start is no newcomer */
	while (sim_bytes(e) + size > e->capacity || sim_count(e) >= e->config.max_main) {
		x = table_oldest(&e->table, LIST_MAIN);
		if (!x)
			return;
		table_remove(&e->table, x);
	}
	x = table_add(&e->table, LIST_MAIN, id, size);
	if (x)
		x->when = e->clock;
}

void sim_keep(struct evict *e, bool (*is_kept)(const void *arg, const struct object_id *id), const void *arg)
{
	struct evict_table *t = &e->table;

	for (int list = 0; list < LISTS; list++) {
		struct evict_entry *x = table_oldest(t, (enum evict_list)list), *next;

		for (; x; x = next) {
			next = table_next(t, x);
			if (!is_kept(arg, &x->id))
				table_remove(t, x);
		}
	}
}
