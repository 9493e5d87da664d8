/* SPDX-License-Identifier: Apache-2.0 */
/* The counters and the tables of families; see metrics.h and families.h. */
#include "agent/metrics.h"

#include <stdbool.h>
#include <string.h>

#include "common/keeper_stats.h"
#include "common/rpc_stats.h"

_Atomic uint64_t metric_values[METRIC_COUNT];
struct wd_histogram metric_read_wait;

#define F(id, name, type, unit, labels, help) {name, type, unit, labels, help},
const struct wd_family families[FAMILY_COUNT] = {WD_FAMILIES(F)};
#undef F

static const struct {
	enum family family;
	const char *value;
} rows[METRIC_COUNT] = {
#define M(id, family, value) {FAMILY_##family, value},
	WD_METRICS(M)
#undef M
};

void metrics_print(FILE *out)
{
	for (int i = 0; i < METRIC_COUNT; i++) {
		const struct wd_family *f = &families[rows[i].family];
		uint64_t value = atomic_load_explicit(&metric_values[i], memory_order_relaxed);

		if (i == 0 || rows[i].family != rows[i - 1].family)
			wd_family_begin(out, f);
		if (strcmp(f->unit, "seconds") == 0)
			wd_sample_real(out, f, &rows[i].value, (double)value / 1e6);
		else
			wd_sample(out, f, &rows[i].value, value);
	}
	wd_family_begin(out, &families[FAMILY_READ_WAIT]);
	wd_histogram_print(out, &families[FAMILY_READ_WAIT], NULL, &metric_read_wait);
}

/* ---- docs/metrics.md ---- */

static void describe(FILE *out, const char *title, const char *about, const struct wd_family *first, size_t n)
{
	fprintf(out, "\n## %s\n\n%s\n\n| name | type | unit | meaning |\n|---|---|---|---|\n", title, about);
	for (size_t i = 0; i < n; i++)
		wd_family_describe(out, &first[i]);
}

/* The number of families in a part of the table. */
#define F(...) +1
#define PART(part) (0 WD_FAMILIES_##part(F))

void metrics_describe(FILE *out)
{
	static const struct {
		const char *title, *about;
		size_t n;
	} parts[] = {
		{"Reads",
			"What readers do, and what the cache does for them. The share of opens that hit is "
			"`hits / (hits + misses)`, in operations or in bytes.",
			PART(READS)},
		{"Prefetch and warming", "What is fetched before somebody asks for it.", PART(AHEAD)},
		{"Origins",
			"Requests to origins. `origin` is `scheme://host:port`; series of an origin go with the last mount "
			"that names it.",
			PART(ORIGIN)},
		{"Cache", "The cache and its metadata.", PART(CACHE)},
		{"Mounts", "A mount's own series (`target`) go with it; of more than 256 mounts the rest have none.",
			PART(MOUNTS)},
	};
	const struct wd_family *f = families;

	fputs("# Metrics\n\n"
	      "<!-- made by `warpdrive-agent --print-metrics`: cmake --build build-dev --target docs-metrics -->\n\n"
	      "The agent's `/metrics` (setting `http-listen`) has its own metrics and the keeper's; `warpdrive-csi` has "
	      "those of its calls with `--metrics-listen`. Names are Prometheus': base units, counters end with "
	      "`_total`, histograms have `_bucket`, `_sum` and `_count`. No label ever holds an object's key.\n",
		out);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); f += parts[i++].n)
		describe(out, parts[i].title, parts[i].about, f, parts[i].n);
	describe(out, "Keeper", "What the keeper counts since it was started; the agent exports it while it knows it.",
		wd_keeper_families, WD_KEEPER_STATS_COUNT);
	describe(out, "Calls", "Of the agent's control API, and of `warpdrive-csi`; methods and codes that were not seen have no series.",
		&wd_rpc_family, 1);
}
#undef F
