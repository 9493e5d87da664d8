/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_NODE_RECORD_H
#define WD_AGENT_NODE_RECORD_H
/*
 * How nodes and children are written into the metadata. Host byte order is fine (a cache does not
 * travel); the metadata's format number covers changes.
 */
#include <stdbool.h>
#include <stdint.h>

#include "agent/meta.h"
#include "agent/tree.h"

struct dir_state {
	int64_t listed_ms;  /* when the listing was complete, Unix time; 0: never */
	uint64_t list_id;   /* which listing that was */
};

struct child {
	uint64_t node, ino;
	int64_t checked_ms; /* Unix time */
	uint64_t list_id;   /* the listing that last saw it */
	uint32_t is_dir;
	uint32_t reserved;
};

/* META_NODES. `dataset` and `parent` (the directory's ino) travel with the node. */
struct node_links {
	uint64_t dataset, parent;
	struct dir_state dir;
};
int node_load(struct meta *m, uint64_t id, struct node *ret_node, struct node_links *ret_links);
void node_save(struct meta *m, const struct node *node, const struct node_links *links);

/* META_CHILDREN and META_COOKIES. */
int child_load(struct meta *m, uint64_t dir, const char *name, struct child *ret_child);
void child_save(struct meta *m, uint64_t dir, const char *name, const struct child *child);
/* Also writes the cookie: for a new child. */
void child_add(struct meta *m, uint64_t dir, const char *name, const struct child *child);
void child_remove(struct meta *m, uint64_t dir, const char *name, const struct child *child);

/* A directory offset: the counter part of an ino, so that it is positive and at least 16. */
static inline uint64_t cookie_of(uint64_t ino)
{
	return ino & ((1ULL << 44) - 1);
}

/* Big-endian keys, so that the tables are in order. */
void key_u64(unsigned char out[8], uint64_t v);
uint64_t key_read_u64(const unsigned char in[8]);
#define CHILD_KEY_MAX (8 + TREE_NAME_MAX)
size_t child_key(unsigned char out[CHILD_KEY_MAX], uint64_t dir, const char *name);

#endif
