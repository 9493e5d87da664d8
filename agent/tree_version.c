/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file's version: bound to what the origin has, expired when that is gone, and the cache object it names.
 *
 * A listing may lack what a version is told by (an ETag). The first open completes it by a question to the
 * origin; if the object differs from the listing, the name leads to another node from then on, and the open
 * fails with ESTALE so that the kernel looks up again. One such question per node is under way at a time.
 */
#include "agent/tree.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/tree_internal.h"

/* The last component of a file's key. */
static const char *base_name(const struct node *node)
{
	const char *slash = memrchr(node->key, '/', node->key_len);

	return slash ? slash + 1 : node->key;
}

static int bind_now(struct dataset *ds, struct node *node, const struct node_links *links,
	struct wd_err *err)
{
	struct version version;
	struct child child;
	uint64_t asked_id = meta_next_id(ds->tree->meta);
	int rc = origin_stat(ds->origin, node->key, &version, err);

	if (rc == -ENOENT)
		tree_expire(ds, node->node);
	if (rc < 0)
		return rc == -ENOENT ? -ESTALE : rc;
	version.is_bound = true;
	if (!version_equal(&node->version, &version)) {
		tree_upsert(ds, links->parent, base_name(node), node->key, node->key_len, false, &version, asked_id,
			tree_now_ms(), &child);
		return wd_err_set(err, ESTALE, "open '%s': changed since it was listed", node->key);
	}
	node->version = version;
	node_save(ds->tree->meta, node, links);
	return 0;
}

int tree_bind(struct dataset *ds, uint64_t id, bool may_block, struct node *ret_node, struct wd_err *err)
{
	struct node_links links;
	struct flight *f;
	int status = 0;

	if (node_load(ds->tree->meta, id, ret_node, &links) < 0 || links.dataset != ds->root)
		return wd_err_set(err, ESTALE, "open: the file is not known any longer");
	if (ret_node->is_dir)
		return wd_err_set(err, EISDIR, "open '%s': a directory", ret_node->key);
	if (ret_node->version.is_bound)
		return 0;
	if (!may_block)
		return -EAGAIN;
	f = tree_flight_join(ds, id, "\n", &status);
	if (f) {
		status = bind_now(ds, ret_node, &links, err);
		tree_flight_land(ds, f, status);
		return status;
	}
	if (status < 0)
		return wd_err_sys(err, -status, "open '%s'", ret_node->key);
	return node_load(ds->tree->meta, id, ret_node, &links) < 0 ? -ESTALE : 0;
}

void tree_expire(struct dataset *ds, uint64_t id)
{
	struct node node;
	struct node_links links;
	struct child child;

	if (node_load(ds->tree->meta, id, &node, &links) < 0 || node.is_dir)
		return;
	wd_lock(&ds->children);
	if (child_load(ds->tree->meta, links.parent, base_name(&node), &child) == 0 && child.node == id) {
		child.checked_ms = 0;
		child_save(ds->tree->meta, links.parent, base_name(&node), &child);
	}
	wd_unlock(&ds->children);
}

void tree_object_id(const struct dataset *ds, const struct node *node, struct object_id *ret_id)
{
	char text[4096];
	const struct version *v = &node->version;
	const char *pinned = strstr(ds->place, TREE_PLACE_VERSION); /* bytes are shared by all versions of a dataset */
	int n = snprintf(text, sizeof(text), "%.*s\n%s\n%llu\n%s",
		(int)(pinned ? (size_t)(pinned - ds->place) : strlen(ds->place)), ds->place, node->key,
		(unsigned long long)v->size, v->etag);

	if (v->etag[0] == '\0' || strncmp(v->etag, "W/", 2) == 0)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "\n%lld.%u", (long long)v->mtime_s,
			v->mtime_ns);
	object_id_make(text, (size_t)n, ret_id);
}
