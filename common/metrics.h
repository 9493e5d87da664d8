/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_METRICS_H
#define WD_COMMON_METRICS_H
/*
 * Families of metrics, and their text form for Prometheus. A family is declared once, in a table (agent/families.h,
 * common/keeper_stats.h, common/rpc_stats.h): from there come its HELP and TYPE, the names of its samples' labels, and
 * its line in docs/metrics.md.
 *
 * Values of labels are printed whatever they are; that there are few of them, and that none is an object's key, is the
 * business of whoever prints them.
 */
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

enum wd_metric_type { WD_COUNTER, WD_GAUGE, WD_HISTOGRAM };

struct wd_family {
	const char *name;
	enum wd_metric_type type;
	const char *unit;   /* "bytes", "seconds", or what is counted */
	const char *labels; /* their names, "origin,to"; "": none */
	const char *help;
};

/* HELP and TYPE, before the first sample. */
void wd_family_begin(FILE *out, const struct wd_family *f);
/* One sample. values: of the labels, in the family's order; NULL where it has none. */
void wd_sample(FILE *out, const struct wd_family *f, const char *const *values, uint64_t value);
/* The same for what is no whole number. */
void wd_sample_real(FILE *out, const struct wd_family *f, const char *const *values, double value);
/* A family of one sample. */
void wd_family_one(FILE *out, const struct wd_family *f, uint64_t value);

/* A row of a table in Markdown. */
void wd_family_describe(FILE *out, const struct wd_family *f);

/*
 * How long something took. Bounds are the same for all: 1 ms to 60 s. Adding is two relaxed atomic adds, from any thread.
 * One that is zeroed is good.
 */
#define WD_HISTOGRAM_BOUNDS 15
struct wd_histogram {
	_Atomic uint64_t buckets[WD_HISTOGRAM_BOUNDS + 1]; /* the last: longer than every bound */
	_Atomic uint64_t sum_us;
};
void wd_histogram_add(struct wd_histogram *h, int64_t took_ns);
uint64_t wd_histogram_count(const struct wd_histogram *h);
/* The samples of one histogram; values as for wd_sample(). */
void wd_histogram_print(FILE *out, const struct wd_family *f, const char *const *values, const struct wd_histogram *h);

#endif
