/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_CACHE_METRICS_H
#define WD_AGENT_CACHE_METRICS_H
/*
 * The state of cache and metadata as Prometheus text. What is counted by event is in agent/metrics.h.
 */
#include <stdio.h>

#include "agent/meta.h"
#include "agent/store.h"

void cache_print_metrics(struct store *store, struct meta *meta, FILE *out);

#endif
