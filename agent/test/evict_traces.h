/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_EVICT_TRACES_H
#define WD_AGENT_TEST_EVICT_TRACES_H
/*
 * Generated traces of uses of objects, and what can be got out of each: the policies, and the clairvoyant
 * optimum. For the test and for bench/eviction. The same numbers in, the same trace out.
 */
#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/evict.h"

#define TRACE_NEVER UINT64_MAX

struct trace {
	const char *name;
	uint64_t capacity; /* of the cache, bytes */
	double fraction;   /* of the dataset, where it is about that; else 0 */
	uint32_t *uses;	   /* object numbers */
	uint64_t nuses, max_uses;
	uint64_t from, to; /* the uses that count; those before warm the cache up */
	uint64_t *sizes;   /* by object number */
	uint32_t nobjects;
	uint64_t state; /* of the generator */
};

static inline uint64_t trace_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static inline uint64_t trace_random(struct trace *t)
{
	return trace_mix(t->state++);
}

/* In [0, 1). */
static inline double trace_uniform(struct trace *t)
{
	return (double)(trace_random(t) >> 11) / (double)(1ull << 53);
}

static inline struct object_id trace_id(uint32_t object)
{
	struct object_id id;
	uint64_t words[2] = {trace_mix(object), trace_mix(object + (1ull << 40))};

	memcpy(id.b, words, sizeof(id.b));
	return id;
}

static inline void trace_begin(struct trace *t, const char *name, uint32_t nobjects, uint64_t max_uses)
{
	*t = (struct trace){.name = name, .nobjects = nobjects, .max_uses = max_uses, .state = 1};
	t->uses = malloc(max_uses * sizeof(*t->uses));
	t->sizes = malloc(nobjects * sizeof(*t->sizes));
	assert(t->uses && t->sizes);
	for (uint32_t i = 0; i < nobjects; i++)
		t->sizes[i] = 1 << 20;
}

static inline void trace_free(struct trace *t)
{
	free(t->uses);
	free(t->sizes);
}

static inline void trace_use(struct trace *t, uint32_t object)
{
	assert(t->nuses < t->max_uses && object < t->nobjects);
	t->uses[t->nuses++] = object;
}

/* Objects first to first + n - 1 in a random order, into `order`. */
static inline void trace_shuffle(struct trace *t, uint32_t first, uint32_t n, uint32_t *order)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)(trace_random(t) % (i + 1));

		order[i] = order[j];
		order[j] = first + i;
	}
}

static inline void trace_epoch(struct trace *t, uint32_t first, uint32_t n)
{
	uint32_t *order = malloc(n * sizeof(*order));

	assert(order);
	trace_shuffle(t, first, n, order);
	for (uint32_t i = 0; i < n; i++)
		trace_use(t, order[i]);
	free(order);
}

/* The cumulated weights of n objects of which the k-th is used like 1 / k^skew. */
static inline double *trace_zipf_weights(uint32_t n, double skew)
{
	double *sums = malloc(n * sizeof(*sums)), sum = 0;

	assert(sums);
	for (uint32_t i = 0; i < n; i++)
		sums[i] = sum += pow(i + 1, -skew);
	return sums;
}

static inline uint32_t trace_zipf(struct trace *t, const double *sums, uint32_t n)
{
	double at = trace_uniform(t) * sums[n - 1];
	uint32_t low = 0, high = n - 1;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (sums[middle] <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* ---- the traces; n is the size of the dataset, in objects. Where nothing else is said the second half counts ---- */

/* What counts is the third epoch. */
static inline void trace_shuffled(struct trace *t, uint32_t n, double fraction)
{
	trace_begin(t, "shuffled epochs", n, 3ull * n);
	for (int i = 0; i < 3; i++)
		trace_epoch(t, 0, n);
	t->fraction = fraction;
	t->capacity = (uint64_t)(fraction * n) << 20;
	t->from = 2ull * n;
	t->to = t->nuses;
}

/* Objects of 32 KiB to 32 MiB, by powers of two, all powers taking about the same room. */
static inline void trace_shuffled_unequal(struct trace *t, uint32_t n, double fraction)
{
	uint64_t sum = 0;

	trace_shuffled(t, n, fraction);
	t->name = "shuffled, unequal sizes";
	for (uint32_t i = 0; i < n; i++) {
		unsigned power = 15;

		while (power < 25 && (trace_random(t) & 1))
			power++;
		t->sizes[i] = (1ull << power) + trace_random(t) % (1ull << power);
		sum += t->sizes[i];
	}
	t->capacity = (uint64_t)(fraction * (double)sum);
}

static inline void trace_sequential(struct trace *t, uint32_t n)
{
	trace_begin(t, "sequential epochs", n, 6ull * n);
	for (uint64_t i = 0; i < t->max_uses; i++)
		trace_use(t, (uint32_t)(i % n));
	t->capacity = (uint64_t)n / 2 << 20;
	t->from = t->nuses / 2;
	t->to = t->nuses;
}

static inline void trace_zipfian(struct trace *t, uint32_t n, double skew)
{
	double *sums = trace_zipf_weights(n, skew);

	trace_begin(t, skew < 1 ? "zipf 0.8" : "zipf 1.1", n, 10ull * n);
	for (uint64_t i = 0; i < t->max_uses; i++)
		trace_use(t, trace_zipf(t, sums, n));
	t->capacity = (uint64_t)n / 10 << 20;
	t->from = t->nuses / 2;
	t->to = t->nuses;
	free(sums);
}

/* Training reads a dataset in shuffled epochs, and as often inference asks for one of n/4 objects by zipf. */
static inline void trace_mixed(struct trace *t, uint32_t n)
{
	uint32_t *order = malloc(n * sizeof(*order)), nmodels = n / 4;
	double *sums = trace_zipf_weights(nmodels, 0.9);

	assert(order);
	trace_begin(t, "training and inference", n + nmodels, 12ull * n);
	for (int epoch = 0; epoch < 6; epoch++) {
		trace_shuffle(t, 0, n, order);
		for (uint32_t i = 0; i < n; i++) {
			trace_use(t, order[i]);
			trace_use(t, n + trace_zipf(t, sums, nmodels));
		}
	}
	t->capacity = (uint64_t)n / 2 << 20;
	t->from = t->nuses / 2;
	t->to = t->nuses;
	free(sums);
	free(order);
}

/* A working set, used by zipf, and half of the time a scan of objects that are used once. */
static inline void trace_scans(struct trace *t, uint32_t n)
{
	const uint64_t nuses = 16ull * n;
	double *sums = trace_zipf_weights(n, 0.8);
	uint32_t next = n;

	trace_begin(t, "scan pollution", n + (uint32_t)(nuses / 2), nuses);
	for (uint64_t i = 0; i < nuses; i += n / 2) {
		for (uint32_t k = 0; k < n / 2; k++) {
			if (i / (n / 2) % 2 == 0)
				trace_use(t, trace_zipf(t, sums, n));
			else
				trace_use(t, next++);
		}
	}
	t->capacity = (uint64_t)n / 4 << 20;
	t->from = t->nuses / 2;
	t->to = t->nuses;
	free(sums);
}

/* One job after another: eight shuffled epochs of a dataset, then of the next one, and so on. All jobs but the
 * first count. */
static inline void trace_jobs(struct trace *t, uint32_t n)
{
	trace_begin(t, "job after job", 4 * n, 32ull * n);
	for (uint32_t job = 0; job < 4; job++)
		for (int epoch = 0; epoch < 8; epoch++)
			trace_epoch(t, job * n, n);
	t->capacity = (uint64_t)n / 2 << 20;
	t->from = 8ull * n;
	t->to = t->nuses;
}

/* ---- what can be got out of them: hits over uses, in bytes ---- */

static inline double trace_replay(const struct trace *t, enum evict_policy policy, uint64_t *ret_switches)
{
	struct evict_config config = {.policy = policy,
		.capacity = t->capacity,
		.max_queue = t->nobjects,
		.max_ghosts = t->nobjects,
		.max_main = t->nobjects + 1};
	struct evict *e = evict_new(&config);
	struct evict_shadow_stats stats;
	uint64_t hits = 0, all = 0;

	assert(e);
	for (uint64_t i = 0; i < t->to; i++) {
		struct object_id id = trace_id(t->uses[i]);
		uint64_t size = t->sizes[t->uses[i]];
		bool is_hit = evict_sim_use(e, &id, size);

		if (i < t->from)
			continue;
		hits += is_hit ? size : 0;
		all += size;
	}
	evict_get_shadow_stats(e, &stats);
	if (ret_switches)
		*ret_switches = stats.switches;
	evict_free(e);
	return (double)hits / (double)all;
}

/*
 * Who knows the future keeps what is used soonest (Belady), and does not keep at all what is used later than
 * all else. Of the last one a part may stay: so with unequal sizes this is a bound, which no
 * policy of whole objects need be able to reach; with equal ones it is exact.
 */
struct trace_heap {
	struct {
		uint64_t next;
		uint32_t object;
	} *items; /* the latest next use first */
	uint64_t n;
};

static inline void trace_heap_add(struct trace_heap *h, uint64_t next, uint32_t object)
{
	uint64_t i = h->n++;

	for (; i > 0 && h->items[(i - 1) / 2].next < next; i = (i - 1) / 2)
		h->items[i] = h->items[(i - 1) / 2];
	h->items[i].next = next;
	h->items[i].object = object;
}

static inline void trace_heap_pop(struct trace_heap *h)
{
	uint64_t i = 0, child;

	h->n--;
	for (; (child = 2 * i + 1) < h->n; i = child) {
		child += child + 1 < h->n && h->items[child + 1].next > h->items[child].next;
		if (h->items[h->n].next >= h->items[child].next)
			break;
		h->items[i] = h->items[child];
	}
	h->items[i] = h->items[h->n];
}

static inline double trace_optimum(const struct trace *t)
{
	struct trace_heap heap = {.items = malloc((t->nuses + 1) * sizeof(*heap.items))};
	uint64_t *next_use = malloc(t->nuses * sizeof(*next_use)), *next_of = malloc(t->nobjects * sizeof(*next_of));
	uint64_t *kept = calloc(t->nobjects, sizeof(*kept)); /* bytes */
	uint64_t used = 0, hits = 0, all = 0;

	assert(heap.items && next_use && next_of && kept);
	for (uint32_t i = 0; i < t->nobjects; i++)
		next_of[i] = TRACE_NEVER;
	for (uint64_t i = t->nuses; i-- > 0;) {
		next_use[i] = next_of[t->uses[i]];
		next_of[t->uses[i]] = i;
	}
	for (uint64_t i = 0; i < t->to; i++) {
		uint32_t object = t->uses[i];

		if (i >= t->from) {
			hits += kept[object];
			all += t->sizes[object];
		}
		used += t->sizes[object] - kept[object];
		kept[object] = t->sizes[object];
		next_of[object] = next_use[i];
		trace_heap_add(&heap, next_use[i], object);
		while (used > t->capacity) {
			uint32_t last = heap.items[0].object;
			uint64_t less;

			if (heap.items[0].next != next_of[last] || kept[last] == 0) {
				trace_heap_pop(&heap); /* was used since, or is not kept */
				continue;
			}
			less = used - t->capacity < kept[last] ? used - t->capacity : kept[last];
			kept[last] -= less;
			used -= less;
		}
	}
	free(heap.items);
	free(next_use);
	free(next_of);
	free(kept);
	return (double)hits / (double)all;
}

#endif
