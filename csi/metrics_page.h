/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_METRICS_PAGE_H
#define WD_CSI_METRICS_PAGE_H
/*
 * /metrics of this process, for Prometheus: how long its calls took (common/rpc_stats.h). HTTP with one thread, one
 * connection at a time and one answer for each; who is slow is left after PAGE_PATIENCE_MS.
 */
#include "common/err.h"

#define PAGE_PATIENCE_MS 2000

struct metrics_page;

/* address: "address:port", IPv6 in brackets; no names. NULL or "": no page, and *ret_page is NULL. */
int metrics_page_start(const char *address, struct metrics_page **ret_page, struct wd_err *err);
void metrics_page_stop(struct metrics_page *p);

#endif
