/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_EVICT_H
#define WD_AGENT_EVICT_H
/*
 * Which object makes room: the policies, apart from the cache that asks them.
 *
 *	           promoted                       used again
 *	 queue  ──────────────►  main, by last use ──┐
 *	 newcomers, by arrival       ▲               │
 *	   │ goes        goes,       └───────────────┘
 *	   ▼             oldest or newest
 *	 ghosts: ids of newcomers that went
 *
 * The main order is the cache's own (META_LRU, which is on disk and as long as the cache is large); a policy
 * remembers the newcomers and ghosts alone, so that its memory is bounded however many objects there are.
 * It is told of uses, arrivals and departures, and when room is needed it says from where, in which order
 * of preference (evict_plan). The cache passes over what cannot go: what is in use or pinned.
 *
 *	lru      the oldest of all
 *	s3fifo   newcomers that were not used again before the main order, as in S3-FIFO: a tenth of the
 *	         cache is theirs, and who comes back soon (a ghost) is no newcomer. The main order is
 *	         by last use.
 *	uniform  for epochs: the cache keeps what it has until everything was read, and newcomers pass
 *	         through a small part of it. What was not used for twice the longest time between two uses that
 *	         was seen of late is not read in epochs any more, and goes first.
 *	auto     small caches in memory (shadows) go by each of these on a sample of the same uses, and what
 *	         the best of them does is done. Another takes over once it has won by a tenth of the
 *	         cache; advantages below 1% count for nothing, so that equal ones do not take turns.
 *
 * A policy can also have the main order itself (max_main): that is a whole cache without bytes, a simulation
 * (evict_sim_use), as the shadows, the benchmark and the tests use it.
 *
 * Pure code: no clock, no lock, no I/O, and no allocation after evict_new, so the same uses have the
 * same outcome. The caller's lock guards it. Time is the number of uses so far.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/object_id.h"

struct evict;

enum evict_policy { EVICT_LRU, EVICT_S3FIFO, EVICT_UNIFORM, EVICT_FIXED, EVICT_AUTO = EVICT_FIXED, EVICT_POLICIES };

struct evict_config {
	enum evict_policy policy;
	uint64_t capacity;  /* bytes */
	uint32_t max_queue; /* newcomers remembered; more are not treated as such */
	uint32_t max_ghosts;
	uint32_t max_main; /* 0: the main order is the caller's */
};

/* The name as in settings; -EINVAL. */
int evict_policy_parse(const char *name, enum evict_policy *ret_policy);
const char *evict_policy_name(enum evict_policy policy);

/* NULL: out of memory. */
struct evict *evict_new(const struct evict_config *config);
void evict_free(struct evict *e);
/* What the cache really holds, where that is not its limit. */
void evict_set_capacity(struct evict *e, uint64_t bytes);

struct evict_use {
	struct object_id id;
	uint64_t size; /* bytes of the whole object */
	bool is_resident;
	uint64_t age; /* of a resident one: uses of others since its last one */
};
/* Somebody reads the object from now on; before it is fetched. */
void evict_used(struct evict *e, const struct evict_use *use);
/* It takes room from now on. is_used: because of a use, not ahead of one. */
void evict_admitted(struct evict *e, const struct object_id *id, uint64_t size, bool is_used);
/* It takes none any more. is_evicted: because room was needed. */
void evict_removed(struct evict *e, const struct object_id *id, uint64_t size, bool is_evicted);

enum evict_from {
	EVICT_STALE,  /* the oldest of the main order whose last use was before `before` */
	EVICT_QUEUE,  /* evict_queue_next */
	EVICT_NEWEST, /* of the main order: what was used last of all */
	EVICT_OLDEST,
	EVICT_FROMS
};
const char *evict_from_name(enum evict_from from);

struct evict_source {
	enum evict_from from;
	uint64_t before;
};
/* Where to look for an object that can go, best first. now: the number of uses so far; objects: how many
 * there are in the cache. */
unsigned evict_plan(struct evict *e, uint64_t now, uint64_t objects, struct evict_source ret_plan[EVICT_FROMS]);
/* The newcomer that should go next. It stays one, at the end of the line, until it is removed: so one that is
 * in use is not asked for again before all others. False when none should. */
bool evict_queue_next(struct evict *e, struct object_id *ret_id);
/* It is not in the main order, but among the newcomers. */
bool evict_is_queued(const struct evict *e, const struct object_id *id);
uint32_t evict_queue_count(const struct evict *e);

/* The policy in force: with auto the one that rules. */
enum evict_policy evict_ruler(const struct evict *e);

struct evict_shadow_stats {
	uint64_t hit_bytes[EVICT_FIXED];
	uint64_t bytes; /* of all uses that the shadows saw */
	uint64_t switches;
	uint64_t entries; /* remembered, in all shadows together */
};
/* Zeros unless the policy is auto. */
void evict_get_shadow_stats(const struct evict *e, struct evict_shadow_stats *ret_stats);

/* ---- simulation: max_main > 0 ---- */

/* One use, with all that follows from it in a cache. True: it was there. */
bool evict_sim_use(struct evict *e, const struct object_id *id, uint64_t size);
/* Makes it the newest without counting as a use that anything follows from: what a cache held at start.
 * With auto it is for the shadows. */
void evict_seed(struct evict *e, const struct object_id *id, uint64_t size);
/* auto: whether the shadows would look at this one. */
bool evict_is_sampled(const struct evict *e, const struct object_id *id);

#endif
