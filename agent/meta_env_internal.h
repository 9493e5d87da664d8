/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_META_ENV_INTERNAL_H
#define WD_AGENT_META_ENV_INTERNAL_H
/* What meta_env.c (reads, commits) and meta_env_open.c share: calls of LMDB under the guard. */
#include "agent/meta_internal.h"

/* One call. Where the guard ends it, what LMDB allocated is never freed: it may still be in use there. */
struct meta_call {
	enum meta_table table;
	MDB_val key, value;
	MDB_txn *txn;
	MDB_cursor *cursor;
	/* of get */
	void *out;
	size_t cap, len;
	/* of scan */
	meta_visit visit;
	void *arg;
	/* of commit */
	const struct meta_batch *batch;
	/* of opening */
	const char *path;
};

extern const char *const meta_table_names[META_TABLES];

/* LMDB's codes are errno values or negative ones of its own. */
int meta_env_errno(int rc);
/* Returns what fn returns, an LMDB code; EIO when the environment is dead. */
int meta_env_guarded(
	struct meta_env *e, int (*fn)(struct meta_env *e, struct meta_call *c), struct meta_call *c);

#endif
