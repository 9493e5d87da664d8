/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_COMMON_RPC_STATS_H
#define WD_COMMON_RPC_STATS_H
/*
 * How long calls took, by method and code, of all servers of the process. Methods come from tables, so there are few;
 * beyond RPC_STATS_METHODS no further one is counted. Lock-free; any thread.
 */
#include "common/metrics.h"
#include "common/rpc.h"

#define RPC_STATS_METHODS 64

extern const struct wd_family wd_rpc_family;

/* A call of the method with this path (static memory) is over. */
void rpc_stats_add(const char *path, enum rpc_code code, int64_t took_ns);
/* Those that were seen. */
void rpc_stats_print(FILE *out);

#endif
