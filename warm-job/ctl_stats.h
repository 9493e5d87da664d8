/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_WARM_JOB_CTL_STATS_H
#define WD_WARM_JOB_CTL_STATS_H
/* Figures made of two answers of the agent, for `stats` and `top`. */
#include <stdint.h>
#include <stdio.h>

#include "common/control.pb-c.h"

#define CTL_STATS_GAUGES 31 /* fields of NodeStats with a higher number are no counters */

/* "812M": what was added per second, in five characters at most; 0 where it runs backwards. */
const char *ctl_rate(uint64_t before, uint64_t now, uint64_t us, char out[16]);
void ctl_stats_head(FILE *out);
void ctl_stats_line(const Warpdrive__V1__NodeStats *a, const Warpdrive__V1__NodeStats *b, FILE *out);
/* On CLOCK_MONOTONIC. */
void ctl_sleep_until(int64_t at_ns);

#endif
