/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the tree: a fixed head, then the ETag and the key. Everything read is bounded by the
 * record's length, since a disk may lie.
 */
#include "agent/node_record.h"

#include <errno.h>
#include <string.h>

struct node_head {
	uint64_t ino, dataset, parent, size;
	int64_t mtime_s, listed_ms;
	uint64_t list_id;
	uint32_t mtime_ns;
	uint16_t etag_len, key_len;
	uint8_t is_dir, is_bound, reserved[6];
};

void key_u64(unsigned char out[8], uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		out[i] = (unsigned char)v;
}

uint64_t key_read_u64(const unsigned char in[8])
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | in[i];
	return v;
}

size_t child_key(unsigned char out[CHILD_KEY_MAX], uint64_t dir, const char *name)
{
	size_t len = strlen(name);

	if (len > TREE_NAME_MAX)
		len = TREE_NAME_MAX;
	key_u64(out, dir);
	memcpy(out + 8, name, len);
	return 8 + len;
}

static size_t cookie_key(unsigned char out[16], uint64_t dir, uint64_t ino)
{
	key_u64(out, dir);
	key_u64(out + 8, cookie_of(ino));
	return 16;
}

int node_load(struct meta *m, uint64_t id, struct node *ret_node, struct node_links *ret_links)
{
	unsigned char key[8], value[META_VALUE_MAX];
	struct node_head h;
	size_t len;
	int rc;

	key_u64(key, id);
	rc = meta_get(m, META_NODES, key, sizeof(key), value, sizeof(value), &len);
	if (rc < 0)
		return rc;
	if (len < sizeof(h))
		return -ENOENT;
	memcpy(&h, value, sizeof(h));
	if (len != sizeof(h) + h.etag_len + h.key_len || h.etag_len >= ORIGIN_ETAG_MAX ||
		h.key_len > ORIGIN_KEY_MAX)
		return -ENOENT;
	memset(&ret_node->version, 0, sizeof(ret_node->version));
	ret_node->node = id;
	ret_node->ino = h.ino;
	ret_node->parent = h.parent;
	ret_node->is_dir = h.is_dir;
	ret_node->version.size = h.size;
	ret_node->version.mtime_s = h.mtime_s;
	ret_node->version.mtime_ns = h.mtime_ns;
	ret_node->version.is_bound = h.is_bound;
	memcpy(ret_node->version.etag, value + sizeof(h), h.etag_len);
	ret_node->key_len = h.key_len;
	memcpy(ret_node->key, value + sizeof(h) + h.etag_len, h.key_len);
	ret_node->key[h.key_len] = '\0';
	*ret_links = (struct node_links){h.dataset, h.parent, {h.listed_ms, h.list_id}};
	return 0;
}

void node_save(struct meta *m, const struct node *node, const struct node_links *links)
{
	unsigned char key[8], value[sizeof(struct node_head) + ORIGIN_ETAG_MAX + ORIGIN_KEY_MAX];
	struct node_head h = {
		.ino = node->ino,
		.dataset = links->dataset,
		.parent = links->parent,
		.size = node->version.size,
		.mtime_s = node->version.mtime_s,
		.mtime_ns = node->version.mtime_ns,
		.listed_ms = links->dir.listed_ms,
		.list_id = links->dir.list_id,
		.etag_len = (uint16_t)strlen(node->version.etag),
		.key_len = (uint16_t)node->key_len,
		.is_dir = node->is_dir,
		.is_bound = node->version.is_bound,
	};

	key_u64(key, node->node);
	memcpy(value, &h, sizeof(h));
	memcpy(value + sizeof(h), node->version.etag, h.etag_len);
	memcpy(value + sizeof(h) + h.etag_len, node->key, h.key_len);
	meta_put(m, META_NODES, key, sizeof(key), value, sizeof(h) + h.etag_len + h.key_len);
}

int child_load(struct meta *m, uint64_t dir, const char *name, struct child *ret_child)
{
	unsigned char key[CHILD_KEY_MAX];
	size_t len, key_len = child_key(key, dir, name);
	struct child c;
	int rc = meta_get(m, META_CHILDREN, key, key_len, &c, sizeof(c), &len);

	if (rc < 0)
		return rc == -E2BIG ? -ENOENT : rc;
	if (len != sizeof(c))
		return -ENOENT;
	*ret_child = c;
	return 0;
}

void child_save(struct meta *m, uint64_t dir, const char *name, const struct child *child)
{
	unsigned char key[CHILD_KEY_MAX];
	size_t key_len = child_key(key, dir, name);

	meta_put(m, META_CHILDREN, key, key_len, child, sizeof(*child));
}

void child_add(struct meta *m, uint64_t dir, const char *name, const struct child *child)
{
	unsigned char key[16];
	size_t key_len = cookie_key(key, dir, child->ino);

	meta_put(m, META_COOKIES, key, key_len, name, strlen(name));
	child_save(m, dir, name, child);
}

void child_remove(struct meta *m, uint64_t dir, const char *name, const struct child *child)
{
	unsigned char cookie[16], key[CHILD_KEY_MAX];
	size_t key_len = child_key(key, dir, name), cookie_len = cookie_key(cookie, dir, child->ino);

	meta_del(m, META_CHILDREN, key, key_len);
	meta_del(m, META_COOKIES, cookie, cookie_len);
}
