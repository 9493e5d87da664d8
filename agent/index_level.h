/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_INDEX_LEVEL_H
#define WD_AGENT_INDEX_LEVEL_H
/* Of the entries of an index, which stand in any order: those below a prefix, all of them or one level. */
#include <stdbool.h>
#include <stddef.h>

#include "agent/origin.h"

#define INDEX_LEVEL_BUCKETS 4096

struct index_level {
	const char *prefix; /* borrowed */
	size_t prefix_len;
	bool is_recursive;
	origin_entry_cb cb;
	void *arg;
	struct index_prefix *seen[INDEX_LEVEL_BUCKETS]; /* prefixes given so far (one level) */
	bool has_ended;	       /* cb returned false */
	bool is_out_of_memory; /* some entries were not given */
};

/* prefix and cb as of origin_list(). */
void index_level_init(struct index_level *level, const char *prefix, bool is_recursive, origin_entry_cb cb, void *arg);
void index_level_done(struct index_level *level);
/* An origin_entry_cb whose argument is the level. */
bool index_level_take(void *level, const struct origin_entry *entry);

#endif
