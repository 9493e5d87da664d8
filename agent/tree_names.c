/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a directory by name, as far as they are known. */
#include <errno.h>
#include <string.h>

#include "agent/tree_internal.h"

#define NAME_PAGES 20 /* a listing that is made for the names gives up after this many */

struct visit {
	uint64_t dir;
	tree_name_cb cb;
	void *arg;
};

static bool visit_child(void *arg, const void *key, size_t key_len, const void *value, size_t len)
{
	struct visit *v = arg;
	char name[TREE_NAME_MAX + 1];
	struct child child;

	if (key_len <= 8 || key_len - 8 > TREE_NAME_MAX || key_read_u64(key) != v->dir || len != sizeof(child))
		return false;
	memcpy(&child, value, sizeof(child));
	if (child.is_dir)
		return true;
	memcpy(name, (const char *)key + 8, key_len - 8);
	name[key_len - 8] = '\0';
	return v->cb(v->arg, name, child.node);
}

int tree_names(struct dataset *ds, uint64_t dir, bool may_list, tree_name_cb cb, void *arg)
{
	struct visit v = {dir, cb, arg};
	struct wd_err err = WD_ERR_INIT;
	struct node node;
	struct node_links links;
	unsigned char from[8];

	if (node_load(ds->tree->meta, dir, &node, &links) < 0 || links.dataset != ds->root || !node.is_dir)
		return -ESTALE;
	/* one that is too large, or fails, is known as far as it is known */
	if (may_list && links.dir.listed_ms == 0)
		tree_refresh_listing(ds, dir, NAME_PAGES, &err);
	key_u64(from, dir);
	return meta_scan_below(ds->tree->meta, META_CHILDREN, from, sizeof(from), sizeof(from), visit_child, &v);
}
