/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_EVICT_INTERNAL_H
#define WD_AGENT_EVICT_INTERNAL_H
/*
 * Inside the policies:
 *
 *	evict.c         what they have in common: newcomers and ghosts, and who is asked
 *	evict_table.c   remembered objects, in lists, in memory that is taken once
 *	evict_lru.c evict_s3fifo.c evict_uniform.c      a rule each
 *	evict_auto.c    the shadows, and which rule is in force
 *	evict_sim.c     a whole cache in memory
 *
 * A rule has no memory of its own beside struct evict, and may be exchanged at any time. To add one: a file
 * with an evict_rule, a row in evict.c, a value of enum evict_policy; bench/eviction and the metrics follow.
 */
#include <stddef.h>

#include "agent/evict.h"

#define EVICT_NONE UINT32_MAX
#define NEVER_USED (-1)
#define EVICT_AGES 256 /* four to a power of two */

enum evict_list { LIST_QUEUE, LIST_GHOSTS, LIST_MAIN, LISTS };

struct evict_entry {
	struct object_id id;
	uint64_t size;
	uint64_t when; /* of a simulation: its last use */
	uint64_t came; /* LIST_QUEUE: evict.came when it did */
	uint32_t prev, next, chain;
	int8_t uses; /* LIST_QUEUE: after the one that it came for; NEVER_USED: it came ahead of that */
	uint8_t list;
};

struct evict_table {
	struct evict_entry *entries;
	uint32_t *buckets;
	uint32_t max, used, free, mask;
	struct {
		uint32_t head, tail, count; /* the head is the oldest */
		uint64_t bytes;
	} lists[LISTS];
};

int table_init(struct evict_table *t, uint32_t max);
void table_done(struct evict_table *t);
struct evict_entry *table_find(const struct evict_table *t, const struct object_id *id);
/* At the end of a list; NULL when the table is full. It is not there yet. */
struct evict_entry *table_add(struct evict_table *t, enum evict_list list, const struct object_id *id,
	uint64_t size);
void table_move(struct evict_table *t, struct evict_entry *x, enum evict_list list);
void table_remove(struct evict_table *t, struct evict_entry *x);
struct evict_entry *table_oldest(const struct evict_table *t, enum evict_list list);
struct evict_entry *table_newest(const struct evict_table *t, enum evict_list list);
struct evict_entry *table_next(const struct evict_table *t, const struct evict_entry *x); /* in its list */

enum evict_verdict { VERDICT_GO, VERDICT_PROMOTE, VERDICT_LATER };

struct evict_rule {
	enum evict_policy policy;
	bool has_ghosts; /* newcomers that go are remembered */
	bool (*is_newcomer)(struct evict *e, const struct object_id *id, bool is_ghost);
	unsigned (*plan)(struct evict *e, uint64_t now, uint64_t objects, struct evict_source *ret_plan);
	/* of the newcomer whose turn it is */
	enum evict_verdict (*judge)(struct evict *e, const struct evict_entry *x);
};
extern const struct evict_rule evict_rule_lru, evict_rule_s3fifo, evict_rule_uniform;
const struct evict_rule *evict_rule_of(enum evict_policy policy);

struct evict_judge;

struct evict {
	const struct evict_rule *rule;
	struct evict_config config;
	struct evict_table table;
	uint64_t capacity;
	bool is_full; /* room was needed before */
	uint32_t reuses[EVICT_AGES], nreuses; /* of late, by the age of what was used again */
	uint64_t vacancy; /* bytes that left the main order and that newcomers may take over */
	uint64_t ceded;	  /* bytes that left the main order because of room for newcomers, under this rule */
	uint64_t came;	  /* bytes admitted so far */
	uint64_t clock;	  /* of a simulation */
	struct evict_judge *auto_judge; /* NULL unless the policy is auto */
};

/* Fetched ahead, and not read yet: it may still be, until as much came after it as a quarter of the cache. */
bool evict_is_awaited(const struct evict *e, const struct evict_entry *x);
/* An age that a few in a hundred of what was used again of late exceeded; 0: nothing was. */
uint64_t evict_long_age(const struct evict *e);
/* To another rule. */
void evict_take_over(struct evict *e, const struct evict_rule *rule);

/* evict_auto.c */
int judge_new(const struct evict_config *config, struct evict_judge **ret_judge);
void judge_free(struct evict_judge *j);
void judge_set_capacity(struct evict_judge *j, uint64_t bytes);
/* Lets the shadows see a use; the rule that shall be in force. */
enum evict_policy judge_used(struct evict_judge *j, enum evict_policy ruler, const struct object_id *id,
	uint64_t size);
void judge_seed(struct evict_judge *j, const struct object_id *id, uint64_t size);
bool judge_is_sampled(const struct evict_judge *j, const struct object_id *id);
void judge_get_stats(const struct evict_judge *j, struct evict_shadow_stats *ret_stats);

/* evict_sim.c */
/* Forgets what is not in the sample any more. */
void sim_keep(struct evict *e, bool (*is_kept)(const void *arg, const struct object_id *id), const void *arg);
uint64_t sim_bytes(const struct evict *e);
uint32_t sim_count(const struct evict *e);

#endif
