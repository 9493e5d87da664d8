/* SPDX-License-Identifier: Apache-2.0 */
/* What all policies have in common: newcomers, ghosts, and how long it takes until something is used again. */
#include "agent/evict_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REUSES 2048 /* seen, after which they count for half */
#define TURNS 1024 /* newcomers looked at in one go, so that nobody waits long for the caller's lock */
#define LONG_AGE 20 /* a long age is exceeded by one in so many */

static const struct evict_rule *const rules[EVICT_FIXED] = {
	[EVICT_LRU] = &evict_rule_lru,
	[EVICT_S3FIFO] = &evict_rule_s3fifo,
	[EVICT_UNIFORM] = &evict_rule_uniform,
};

static const char *const names[EVICT_POLICIES + 1] = {
	[EVICT_LRU] = "lru",
	[EVICT_S3FIFO] = "s3fifo",
	[EVICT_UNIFORM] = "uniform",
	[EVICT_AUTO] = "auto",
};

int evict_policy_parse(const char *name, enum evict_policy *ret_policy)
{
	for (int i = 0; i <= EVICT_AUTO; i++) {
		if (strcmp(name, names[i]) != 0)
			continue;
		*ret_policy = (enum evict_policy)i;
		return 0;
	}
	return -EINVAL;
}

const char *evict_policy_name(enum evict_policy policy)
{
	return names[policy];
}

const char *evict_from_name(enum evict_from from)
{
	static const char *const from_names[EVICT_FROMS] = {
		[EVICT_STALE] = "stale",
		[EVICT_QUEUE] = "newcomer",
		[EVICT_NEWEST] = "newest",
		[EVICT_OLDEST] = "oldest",
	};

	return from_names[from];
}

const struct evict_rule *evict_rule_of(enum evict_policy policy)
{
	assert(policy < EVICT_FIXED);
	return rules[policy];
}

struct evict *evict_new(const struct evict_config *config)
{
	struct evict *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->config = *config;
	e->capacity = config->capacity;
	e->rule = rules[config->policy == EVICT_AUTO ? EVICT_LRU : config->policy];
	if (table_init(&e->table, config->max_queue + config->max_ghosts + config->max_main) == 0 &&
		(config->policy != EVICT_AUTO || judge_new(config, &e->auto_judge) == 0))
		return e;
	evict_free(e);
	return NULL;
}

void evict_free(struct evict *e)
{
	if (!e)
		return;
	judge_free(e->auto_judge);
	table_done(&e->table);
	free(e);
}

void evict_set_capacity(struct evict *e, uint64_t bytes)
{
	e->capacity = bytes;
	if (e->auto_judge)
		judge_set_capacity(e->auto_judge, bytes);
}

enum evict_policy evict_ruler(const struct evict *e)
{
	return e->rule->policy;
}

void evict_take_over(struct evict *e, const struct evict_rule *rule)
{
	e->rule = rule;
	/* for this rule the newcomers of the last one are what the cache has, like all else */
	e->vacancy = e->table.lists[LIST_QUEUE].bytes;
	e->ceded = 0;
}

bool evict_is_sampled(const struct evict *e, const struct object_id *id)
{
	return e->auto_judge && judge_is_sampled(e->auto_judge, id);
}

void evict_get_shadow_stats(const struct evict *e, struct evict_shadow_stats *ret_stats)
{
	*ret_stats = (struct evict_shadow_stats){0};
	if (e->auto_judge)
		judge_get_stats(e->auto_judge, ret_stats);
}

/* ---- what happens ---- */

static unsigned age_class(uint64_t age)
{
	unsigned power = 63 - (unsigned)__builtin_clzll(age | 1);

	return 4 * power + (power < 2 ? 0 : (unsigned)(age >> (power - 2) & 3));
}

static uint64_t age_of(unsigned class)
{
	unsigned power = class / 4;

	return power < 2 ? 1ull << power : (uint64_t)(4 + class % 4) << (power - 2);
}

static void note_reuse(struct evict *e, uint64_t age)
{
	e->reuses[age_class(age)]++;
	if (++e->nreuses < REUSES)
		return;
	e->nreuses = 0;
	for (unsigned i = 0; i < EVICT_AGES; i++)
		e->nreuses += e->reuses[i] /= 2;
}

uint64_t evict_long_age(const struct evict *e)
{
	uint32_t left = e->nreuses / LONG_AGE;
	unsigned i = EVICT_AGES;

	if (e->nreuses == 0)
		return 0;
	while (i > 1 && e->reuses[i - 1] <= left)
		left -= e->reuses[--i];
	return age_of(i) - 1;
}

void evict_used(struct evict *e, const struct evict_use *use)
{
	struct evict_entry *x = table_find(&e->table, &use->id);

	if (use->is_resident)
		note_reuse(e, use->age);
	if (x && x->list == LIST_QUEUE && x->uses < INT8_MAX)
		x->uses++;
	if (e->auto_judge) {
		enum evict_policy best = judge_used(e->auto_judge, e->rule->policy, &use->id, use->size);

		if (best != e->rule->policy)
			evict_take_over(e, rules[best]);
	}
}

void evict_admitted(struct evict *e, const struct object_id *id, uint64_t size, bool is_used)
{
	struct evict_entry *x = table_find(&e->table, id);
	bool is_ghost = x && x->list == LIST_GHOSTS;

	if (x && !is_ghost)
		return;
	e->came += size;
	if (is_ghost)
		table_remove(&e->table, x);
	x = NULL;
	if (e->rule->is_newcomer(e, id, is_ghost) && e->table.lists[LIST_QUEUE].count < e->config.max_queue &&
		(x = table_add(&e->table, LIST_QUEUE, id, size)) != NULL)
		x->uses = is_used ? 0 : NEVER_USED;
	if (!x && e->config.max_main > 0)
		x = table_add(&e->table, LIST_MAIN, id, size);
	if (!x)
		return;
	x->when = e->clock;
	x->came = e->came;
}

static void make_ghost(struct evict *e, struct evict_entry *x)
{
	struct evict_table *t = &e->table;

	table_move(t, x, LIST_GHOSTS);
	while (t->lists[LIST_GHOSTS].count > e->config.max_ghosts || t->lists[LIST_GHOSTS].bytes > e->capacity)
		table_remove(t, table_oldest(t, LIST_GHOSTS));
}

void evict_removed(struct evict *e, const struct object_id *id, uint64_t size, bool is_evicted)
{
	struct evict_entry *x = table_find(&e->table, id);

	if (x && x->list == LIST_GHOSTS)
		x = NULL;
	if (x && x->list == LIST_QUEUE) {
		if (is_evicted && e->rule->has_ghosts)
			make_ghost(e, x);
		else
			table_remove(&e->table, x);
		return;
	}
	if (x)
		table_remove(&e->table, x);
	e->ceded += is_evicted ? size : 0;
	e->vacancy += size;
	if (e->vacancy > e->capacity)
		e->vacancy = e->capacity;
}

/* ---- what goes ---- */

unsigned evict_plan(struct evict *e, uint64_t now, uint64_t objects, struct evict_source ret_plan[EVICT_FROMS])
{
	e->is_full = true;
	return e->rule->plan(e, now, objects, ret_plan);
}

static void promote(struct evict *e, struct evict_entry *x)
{
	e->vacancy -= e->vacancy < x->size ? e->vacancy : x->size;
	if (e->config.max_main == 0) {
		table_remove(&e->table, x);
		return;
	}
	x->when = e->clock;
	table_move(&e->table, x, LIST_MAIN);
}

bool evict_is_awaited(const struct evict *e, const struct evict_entry *x)
{
	return x->uses == NEVER_USED && e->came - x->came < e->capacity / 4;
}

bool evict_queue_next(struct evict *e, struct object_id *ret_id)
{
	uint32_t n = e->table.lists[LIST_QUEUE].count;

	for (n = n < TURNS ? n : TURNS; n > 0; n--) {
		struct evict_entry *x = table_oldest(&e->table, LIST_QUEUE);

		if (!x)
			return false;
		switch (e->rule->judge(e, x)) {
		case VERDICT_PROMOTE:
			promote(e, x);
			break;
		case VERDICT_LATER:
			table_move(&e->table, x, LIST_QUEUE);
			break;
		case VERDICT_GO:
			*ret_id = x->id;
			table_move(&e->table, x, LIST_QUEUE);
			return true;
		}
	}
	return false;
}

bool evict_is_queued(const struct evict *e, const struct object_id *id)
{
	const struct evict_entry *x = table_find(&e->table, id);

	return x && x->list == LIST_QUEUE;
}

uint32_t evict_queue_count(const struct evict *e)
{
	return e->table.lists[LIST_QUEUE].count;
}
