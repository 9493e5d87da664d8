/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_EXPOSITION_H
#define WD_AGENT_TEST_EXPOSITION_H
/*
 * Metrics as who looks at a node sees them: tests of faults look at the Prometheus text.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/cache_metrics.h"
#include "agent/metrics.h"
#include "agent/origin.h"

/* The value of a sample, "name" or "name{label=\"x\"}", in a text; UINT64_MAX when it is not there. */
static inline uint64_t exposed_in(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, len) == 0 && line[len] == ' ')
			return strtoull(line + len + 1, NULL, 10);
	}
	return UINT64_MAX;
}

/* ... of what is counted by event, and of origins. */
static inline uint64_t exposed(const char *name)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	uint64_t value;

	metrics_print(out);
	origin_print_metrics(out);
	fclose(out);
	value = exposed_in(text, name);
	free(text);
	return value;
}

/* ... of cache and metadata. */
static inline uint64_t exposed_of_cache(struct store *store, struct meta *meta, const char *name)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	uint64_t value;

	cache_print_metrics(store, meta, out);
	fclose(out);
	value = exposed_in(text, name);
	free(text);
	return value;
}

static inline uint64_t exposed_faults(enum origin_fault class)
{
	static const char *const labels[] = {
#define F(id, label) label,
		ORIGIN_FAULTS(F)
#undef F
	};
	char name[96];

	snprintf(name, sizeof(name), "warpdrive_origin_faults_total{class=\"%s\"}", labels[class]);
	return exposed(name);
}

#endif
