/* SPDX-License-Identifier: Apache-2.0 */
#include "e2e/chaos/stats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t stats_now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int stats_init(struct stats *s)
{
	s->fault_us = calloc(STATS_FAULTS_MAX, sizeof(*s->fault_us));
	s->stall_us = calloc(STATS_FAULTS_MAX, sizeof(*s->stall_us));
	pthread_mutex_init(&s->lock, NULL);
	return s->fault_us && s->stall_us ? 0 : -ENOMEM;
}

void stats_done(struct stats *s)
{
	free(s->fault_us);
	free(s->stall_us);
}

void stats_fault(struct stats *s)
{
	uint32_t n = atomic_load(&s->faults);

	if (n < STATS_FAULTS_MAX)
		s->fault_us[n] = stats_now_us();
	atomic_store(&s->faults, n + 1); /* after its time: readers see both or neither */
}

static unsigned bucket_of(uint64_t us)
{
	unsigned log;

	if (us < 4)
		return (unsigned)us;
	log = 63 - (unsigned)__builtin_clzll(us);
	return (log - 1) * 4 + (unsigned)(us >> (log - 2) & 3);
}

/* The upper end of a bucket. */
static uint64_t bucket_end(unsigned bucket)
{
	unsigned log = bucket / 4 + 1;

	if (bucket < 4)
		return bucket + 1;
	return (uint64_t)(4 + bucket % 4 + 1) << (log - 2);
}

static void raise_to(_Atomic uint32_t *value, uint64_t to)
{
	uint32_t now = atomic_load_explicit(value, memory_order_relaxed);
	uint32_t want = to > UINT32_MAX ? UINT32_MAX : (uint32_t)to;

	while (want > now && !atomic_compare_exchange_weak(value, &now, want))
		;
}

/* From the last fault back to the first one in whose time the operation was under way. */
static void count_stalls(struct stats *s, uint64_t start, uint64_t end)
{
	uint32_t n = atomic_load(&s->faults);

	for (uint32_t i = n < STATS_FAULTS_MAX ? n : STATS_FAULTS_MAX; i-- > 0;) {
		if (s->fault_us[i] <= end)
			raise_to(&s->stall_us[i], end - start);
		if (s->fault_us[i] <= start)
			break;
	}
}

void stats_op(struct stats *s, uint64_t start_us, const char *what, const char *path, uint64_t offset)
{
	uint64_t end = stats_now_us(), took = end - start_us;

	atomic_fetch_add_explicit(&s->ops, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&s->buckets[bucket_of(took)], 1, memory_order_relaxed);
	count_stalls(s, start_us, end);
	if (took <= atomic_load_explicit(&s->longest_us, memory_order_relaxed))
		return;
	pthread_mutex_lock(&s->lock);
	if (took > atomic_load(&s->longest_us)) {
		atomic_store(&s->longest_us, took);
		snprintf(s->longest, sizeof(s->longest), "%s '%s' at %llu", what, path,
			(unsigned long long)offset);
	}
	pthread_mutex_unlock(&s->lock);
}

static double op_percentile_ms(struct stats *s, double share)
{
	uint64_t total = 0, sum = 0;

	for (unsigned i = 0; i < STATS_BUCKETS; i++)
		total += atomic_load(&s->buckets[i]);
	for (unsigned i = 0; i < STATS_BUCKETS; i++) {
		sum += atomic_load(&s->buckets[i]);
		if ((double)sum >= share * (double)total)
			return (double)bucket_end(i) / 1000;
	}
	return 0;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_stalls(struct stats *s)
{
	uint32_t n = atomic_load(&s->faults);
	uint32_t *sorted;

	n = n < STATS_FAULTS_MAX ? n : STATS_FAULTS_MAX;
	sorted = calloc(n ? n : 1, sizeof(*sorted));
	if (n == 0 || !sorted) {
		free(sorted);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		sorted[i] = atomic_load(&s->stall_us[i]);
	qsort(sorted, n, sizeof(*sorted), compare);
	printf("stalls of %u faults: p50 %.0f ms, p90 %.0f ms, p99 %.0f ms, max %.0f ms\n", n,
		sorted[(n - 1) / 2] / 1e3, sorted[(uint64_t)(n - 1) * 90 / 100] / 1e3,
		sorted[(uint64_t)(n - 1) * 99 / 100] / 1e3, sorted[n - 1] / 1e3);
	free(sorted);
}

void stats_print(struct stats *s)
{
	printf("operations: p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms; longest %.0f ms: %s\n",
		op_percentile_ms(s, .5), op_percentile_ms(s, .99), op_percentile_ms(s, .999),
		(double)atomic_load(&s->longest_us) / 1e3, s->longest);
	print_stalls(s);
}
