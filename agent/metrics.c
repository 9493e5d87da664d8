/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters and their text form. Rows of one family stand together in the table; HELP and TYPE are
 * printed before the first of them.
 */
#include "agent/metrics.h"

#include <inttypes.h>
#include <string.h>

_Atomic uint64_t metric_values[METRIC_COUNT];

static const struct {
	const char *name, *labels, *help;
} rows[METRIC_COUNT] = {
#define M(id, name, labels, help) {name, labels, help},
	WD_METRICS(M)
#undef M
};

void metrics_print(FILE *out)
{
	for (int i = 0; i < METRIC_COUNT; i++) {
		uint64_t value = atomic_load_explicit(&metric_values[i], memory_order_relaxed);

		if (i == 0 || strcmp(rows[i].name, rows[i - 1].name) != 0)
			fprintf(out, "# HELP %s %s\n# TYPE %s counter\n", rows[i].name, rows[i].help,
				rows[i].name);
		if (rows[i].labels[0])
			fprintf(out, "%s{%s} %" PRIu64 "\n", rows[i].name, rows[i].labels, value);
		else
			fprintf(out, "%s %" PRIu64 "\n", rows[i].name, value);
	}
}

void metrics_print_one(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	fprintf(out, "# HELP %s %s\n# TYPE %s %s\n%s %" PRIu64 "\n", name, help, name, type, name, value);
}
