/* SPDX-License-Identifier: Apache-2.0 */
/* See rpc_stats.h. A row is taken by the first call of its method, and is never given back. */
#include "common/rpc_stats.h"

#include <string.h>

#define CODES 17 /* as gRPC has published them */

const struct wd_family wd_rpc_family = {"warpdrive_rpc_seconds", WD_HISTOGRAM, "seconds", "method,code",
	"How long calls took, by method and by the code they ended with"};

static struct {
	_Atomic(const char *) path;
	struct wd_histogram codes[CODES];
} rows[RPC_STATS_METHODS];

void rpc_stats_add(const char *path, enum rpc_code code, int64_t took_ns)
{
	for (int i = 0; i < RPC_STATS_METHODS && (unsigned)code < CODES; i++) {
		const char *theirs = NULL;

		if (atomic_compare_exchange_strong(&rows[i].path, &theirs, path) || strcmp(theirs, path) == 0) {
			wd_histogram_add(&rows[i].codes[code], took_ns);
			return;
		}
	}
}

void rpc_stats_print(FILE *out)
{
	const char *path;

	wd_family_begin(out, &wd_rpc_family);
	for (int i = 0; i < RPC_STATS_METHODS && (path = atomic_load(&rows[i].path)); i++) {
		for (int code = 0; code < CODES; code++) {
			const char *values[] = {path + (*path == '/'), rpc_code_name((enum rpc_code)code)};

			if (wd_histogram_count(&rows[i].codes[code]))
				wd_histogram_print(out, &wd_rpc_family, values, &rows[i].codes[code]);
		}
	}
}
