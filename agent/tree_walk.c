/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of all datasets, a part of them in each call: for who looks at everything again and again and may neither
 * hold up anybody nor take long.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/tree_internal.h"
#include "common/cleanup.h"

#define PART 8192

struct part {
	struct tree_cursor *cursor;
	unsigned n;
	uint64_t nodes[PART];
};

static bool visit(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct part *p = arg;
	struct child child;

	if (key_len > CHILD_KEY_MAX)
		return true;
	memcpy(p->cursor->next, key, key_len);
	p->cursor->next[key_len] = 0; /* the first key after this one */
	p->cursor->len = key_len + 1;
	if (len == sizeof(child)) {
		memcpy(&child, value, sizeof(child));
		if (!child.is_dir)
			p->nodes[p->n++] = child.node;
	}
	return p->n < PART;
}

int tree_walk(struct tree *t, struct tree_cursor *cursor, tree_file_cb cb, void *arg)
{
	wd_autofree struct part *p = calloc(1, sizeof(*p));
	struct node node;
	struct node_links links;
	int rc;

	_Static_assert(sizeof(cursor->next) > CHILD_KEY_MAX, "a key and a zero");
	if (!p)
		return -ENOMEM;
	p->cursor = cursor;
	rc = meta_scan_below(t->meta, META_CHILDREN, cursor->next, cursor->len, 0, visit, p);
	if (rc < 0)
		return rc;
	for (unsigned i = 0; i < p->n; i++)
		if (node_load(t->meta, p->nodes[i], &node, &links) == 0)
			cb(arg, links.dataset, &node);
	return p->n < PART;
}

bool tree_is_listed(struct dataset *ds)
{
	struct node node;
	struct node_links links;

	return node_load(ds->tree->meta, ds->root, &node, &links) == 0 && links.dir.listed_ms != 0;
}
