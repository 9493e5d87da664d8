/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each eviction policy finds in the cache, on generated traces, beside who knows the future. No bytes are
 * moved and no time is measured: the numbers are the same on every machine.
 *
 *	bench-eviction [--objects N]
 *
 * The last line is "ratio R": the worst of auto's hit ratio in the third of shuffled epochs over the
 * share of the dataset that the cache holds.
 */
#include "agent/test/evict_traces.h"

static double worst_ratio = 1e9, worst_loss;

static void show(struct trace *t)
{
	double hits[EVICT_POLICIES + 1], best = 0;
	uint64_t switches;

	for (int i = 0; i <= EVICT_AUTO; i++)
		hits[i] = trace_replay(t, (enum evict_policy)i, &switches);
	for (int i = 0; i < EVICT_FIXED; i++)
		best = hits[i] > best ? hits[i] : best;
	printf("%-24s", t->name);
	if (t->fraction > 0)
		printf(" %4.0f%%", t->fraction * 100);
	else
		printf(" %5s", "");
	for (int i = 0; i <= EVICT_AUTO; i++)
		printf(" %8.3f", hits[i]);
	printf(" %9.3f %9.3f %9llu\n", trace_optimum(t), hits[EVICT_AUTO] / best, (unsigned long long)switches);
	if (t->fraction > 0)
		worst_ratio = fmin(worst_ratio, hits[EVICT_AUTO] / t->fraction);
	else
		worst_loss = fmax(worst_loss, 1 - hits[EVICT_AUTO] / best);
	trace_free(t);
}

int main(int argc, char **argv)
{
	static const double fractions[] = {0.25, 0.5, 0.75};
	uint32_t n = 20000;
	struct trace t;

	if (argc == 3 && strcmp(argv[1], "--objects") == 0)
		n = (uint32_t)strtoul(argv[2], NULL, 10);
	else if (argc != 1)
		n = 0;
	if (n < 16 || n > 10000000) {
		fprintf(stderr, "usage: bench-eviction [--objects N], 16 to 10000000\n");
		return 2;
	}
	printf("%u objects; hits / uses in bytes, after the cache was warm\n", n);
	printf("%-24s %5s", "trace", "cache");
	for (int i = 0; i <= EVICT_AUTO; i++)
		printf(" %8s", evict_policy_name((enum evict_policy)i));
	printf(" %9s %9s %9s\n", "optimum", "auto/best", "switches");
	for (int i = 0; i < 3; i++) {
		trace_shuffled(&t, n, fractions[i]);
		show(&t);
	}
	trace_shuffled_unequal(&t, n, 0.5);
	show(&t);
	trace_sequential(&t, n);
	show(&t);
	trace_zipfian(&t, n, 0.8);
	show(&t);
	trace_zipfian(&t, n, 1.1);
	show(&t);
	trace_mixed(&t, n);
	show(&t);
	trace_scans(&t, n);
	show(&t);
	trace_jobs(&t, n);
	show(&t);
	printf("auto is at most %.1f%% behind the best of the others where it is not about epochs\n",
		worst_loss * 100);
	printf("ratio %.3f\n", worst_ratio);
	return 0;
}
