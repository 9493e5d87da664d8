/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_BENCH_MEASURE_H
#define WD_BENCH_MEASURE_H
/* Clock, CPU time, medians, orders by chance, and errors that end a benchmark. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static inline double seconds_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static inline int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Sorts in place. */
static inline double median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), compare_doubles);
	return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* who: RUSAGE_SELF or RUSAGE_CHILDREN. */
static inline double cpu_seconds(int who)
{
	struct rusage u;

	getrusage(who, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6 + (double)u.ru_stime.tv_sec +
	       (double)u.ru_stime.tv_usec / 1e6;
}

#define DIE(...)                                                                                   \
	do {                                                                                       \
		fprintf(stderr, "bench: " __VA_ARGS__);                                            \
		fputc('\n', stderr);                                                               \
		exit(1);                                                                           \
	} while (0)

/* The numbers below n in an order that the seed gives; never freed. */
static inline uint32_t *shuffled(uint32_t n, uint64_t seed)
{
	uint64_t state = seed * 2654435761ULL + 88172645463325252ULL;
	uint32_t *order = calloc(n, sizeof(*order));

	if (!order)
		DIE("out of memory");
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j;

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		j = (uint32_t)(state % (i + 1));
		order[i] = order[j];
		order[j] = i;
	}
	return order;
}

#endif
