/* SPDX-License-Identifier: Apache-2.0 */
/* The table of keeper_stats.h as families of metrics. */
#include "common/keeper_stats.h"

#define S(name, metric, unit, help) {metric, WD_COUNTER, unit, "", help},
const struct wd_family wd_keeper_families[WD_KEEPER_STATS_COUNT] = {WD_KEEPER_STATS(S)};
