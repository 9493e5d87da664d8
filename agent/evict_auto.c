/* SPDX-License-Identifier: Apache-2.0 */
/*
 * auto: which of the fixed rules is in force.
 *
 *	every use ─► in the sample? ─► shadow lru, shadow s3fifo, shadow uniform ─► who found it?
 *	             (hash of the id)  each a whole cache in memory, as much smaller as the sample is
 *
 * What another rule finds and the one in force does not adds to its claim, the opposite takes off, and a little
 * (DRIFT) wears away with every byte. A claim of a tenth of the cache takes over: that is what
 * changing may cost. So how soon it happens follows from how much is at stake: within a third of an epoch
 * where lru meets shuffled epochs, and never between rules that differ by less than DRIFT.
 *
 * The sample is of objects, not of uses, so each shadow sees all uses of what it sees. It halves when a shadow
 * has SHADOW_MAX objects, and doubles when all have few: memory is bounded, and small caches are simulated
 * exactly. The numbers of a scaled cache are those of the whole but for chance, which is the same for all
 * shadows.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agent/evict_internal.h"

#define SHADOW_MAX 8192
#define DRIFT 0.01
#define CLAIM 0.1     /* of the shadows' capacity */
#define CLAIM_OBJECTS 8 /* and at least so many objects of mean size, and two of the largest: one says nothing */
#define MEMORY 8	/* capacities read, after which the merits of the one in force are forgotten */
#define SHIFT_MAX 40

struct evict_judge {
	struct evict *shadows[EVICT_FIXED];
	uint64_t capacity; /* of the cache */
	unsigned shift;	   /* one of 2^shift objects is in the sample */
	double claims[EVICT_FIXED];
	double mean_size, large_size; /* of the uses in the sample; the largest of late */
	struct evict_shadow_stats stats;
};

static uint64_t shadow_capacity(const struct evict_judge *j)
{
	return j->capacity >> j->shift;
}

int judge_new(const struct evict_config *config, struct evict_judge **ret_judge)
{
	struct evict_judge *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->capacity = config->capacity;
	for (int i = 0; i < EVICT_FIXED; i++) {
		struct evict_config shadow = {.policy = (enum evict_policy)i,
			.capacity = config->capacity,
			.max_queue = i == EVICT_LRU ? 0 : SHADOW_MAX,
			.max_ghosts = i == EVICT_S3FIFO ? SHADOW_MAX : 0,
			.max_main = SHADOW_MAX};

		j->shadows[i] = evict_new(&shadow);
		if (!j->shadows[i]) {
			judge_free(j);
			return -ENOMEM;
		}
	}
	*ret_judge = j;
	return 0;
}

void judge_free(struct evict_judge *j)
{
	if (!j)
		return;
	for (int i = 0; i < EVICT_FIXED; i++)
		evict_free(j->shadows[i]);
	free(j);
}

void judge_set_capacity(struct evict_judge *j, uint64_t bytes)
{
	j->capacity = bytes;
	for (int i = 0; i < EVICT_FIXED; i++)
		evict_set_capacity(j->shadows[i], shadow_capacity(j));
}

/* ---- the sample ---- */

static bool is_sampled(const void *arg, const struct object_id *id)
{
	const struct evict_judge *j = arg;
	uint64_t n;

	memcpy(&n, id->b + 8, sizeof(n)); /* not the part that tables go by */
	return (n & (((uint64_t)1 << j->shift) - 1)) == 0;
}

bool judge_is_sampled(const struct evict_judge *j, const struct object_id *id)
{
	return is_sampled(j, id);
}

static void set_shift(struct evict_judge *j, unsigned shift)
{
	double factor = shift > j->shift ? 0.5 : 2;

	j->shift = shift;
	for (int i = 0; i < EVICT_FIXED; i++) {
		j->claims[i] *= factor;
		evict_set_capacity(j->shadows[i], shadow_capacity(j));
		sim_keep(j->shadows[i], is_sampled, j);
	}
}

static void fit_sample(struct evict_judge *j)
{
	uint32_t most = 0;
	bool are_full = true;

	for (int i = 0; i < EVICT_FIXED; i++) {
		uint32_t n = sim_count(j->shadows[i]);

		most = n > most ? n : most;
		are_full &= sim_bytes(j->shadows[i]) >= shadow_capacity(j) / 10 * 9;
	}
	if (most >= SHADOW_MAX && j->shift < SHIFT_MAX)
		set_shift(j, j->shift + 1);
	else if (most < SHADOW_MAX / 8 && are_full && j->shift > 0)
		set_shift(j, j->shift - 1);
}

void judge_seed(struct evict_judge *j, const struct object_id *id, uint64_t size)
{
	if (!is_sampled(j, id))
		return;
	for (int i = 0; i < EVICT_FIXED; i++)
		evict_seed(j->shadows[i], id, size);
	fit_sample(j);
}

/* ---- the verdict ---- */

/* won: what this one found (1), the ruler (-1), both or neither (0) */
static void hear_claim(const struct evict_judge *j, double *claim, double size, int won)
{
	double capacity = (double)shadow_capacity(j);

	*claim += size * won;
	if (*claim > 0)
		*claim -= *claim < size * DRIFT ? *claim : size * DRIFT;
	else if (*claim < -capacity)
		*claim = -capacity;
	else
		*claim -= *claim * fmin(size / (MEMORY * capacity), 1);
}

static enum evict_policy judge_claims(struct evict_judge *j, enum evict_policy ruler)
{
	double least = CLAIM * (double)shadow_capacity(j), best_claim;
	enum evict_policy best = ruler;

	if (least < CLAIM_OBJECTS * j->mean_size)
		least = CLAIM_OBJECTS * j->mean_size;
	if (least < 2 * j->large_size)
		least = 2 * j->large_size;
	best_claim = least;
	for (int i = 0; i < EVICT_FIXED; i++) {
		if (j->claims[i] <= best_claim)
			continue;
		best_claim = j->claims[i];
		best = (enum evict_policy)i;
	}
	if (best == ruler)
		return ruler;
	memset(j->claims, 0, sizeof(j->claims));
	j->stats.switches++;
	return best;
}

enum evict_policy judge_used(struct evict_judge *j, enum evict_policy ruler, const struct object_id *id,
	uint64_t size)
{
	bool is_found[EVICT_FIXED];

	if (!is_sampled(j, id))
		return ruler;
	for (int i = 0; i < EVICT_FIXED; i++) {
		is_found[i] = evict_sim_use(j->shadows[i], id, size);
		j->stats.hit_bytes[i] += is_found[i] ? size : 0;
	}
	j->mean_size += ((double)size - j->mean_size) / (j->stats.bytes > 0 ? 256 : 1);
	j->large_size = fmax(j->large_size - j->large_size / SHADOW_MAX, (double)size);
	j->stats.bytes += size;
	for (int i = 0; i < EVICT_FIXED; i++)
		hear_claim(j, &j->claims[i], (double)size, is_found[i] - is_found[ruler]);
	fit_sample(j);
	return judge_claims(j, ruler);
}

void judge_get_stats(const struct evict_judge *j, struct evict_shadow_stats *ret_stats)
{
	*ret_stats = j->stats;
	for (int i = 0; i < EVICT_FIXED; i++)
		for (int list = 0; list < LISTS; list++)
			ret_stats->entries += j->shadows[i]->table.lists[list].count;
}
