/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_BENCH_MEASURE_H
#define WD_BENCH_MEASURE_H
/* Clock, medians, and errors that end a benchmark. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

#define DIE(...)                                                                                   \
	do {                                                                                       \
		fprintf(stderr, "bench: " __VA_ARGS__);                                            \
		fputc('\n', stderr);                                                               \
		exit(1);                                                                           \
	} while (0)

#endif
