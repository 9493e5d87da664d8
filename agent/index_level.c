/* SPDX-License-Identifier: Apache-2.0 */
/* One level of an index: each prefix is given once, so those that were given are remembered. */
#include "agent/index_level.h"

#include <stdlib.h>
#include <string.h>

struct index_prefix {
	struct index_prefix *next;
	size_t len;
	char name[];
};

void index_level_init(struct index_level *level, const char *prefix, bool is_recursive, origin_entry_cb cb, void *arg)
{
	*level = (struct index_level){
		.prefix = prefix,
		.prefix_len = strlen(prefix),
		.is_recursive = is_recursive,
		.cb = cb,
		.arg = arg,
	};
}

void index_level_done(struct index_level *level)
{
	for (size_t i = 0; i < INDEX_LEVEL_BUCKETS; i++) {
		while (level->seen[i]) {
			struct index_prefix *next = level->seen[i]->next;

			free(level->seen[i]);
			level->seen[i] = next;
		}
	}
}

/* Adds a prefix; false when it was there, or without memory. */
static bool see(struct index_level *level, const char *name, size_t len)
{
	struct index_prefix *s, **bucket;
	size_t hash = 5381;

	for (size_t i = 0; i < len; i++)
		hash = hash * 33 + (unsigned char)name[i];
	bucket = &level->seen[hash % INDEX_LEVEL_BUCKETS];
	for (s = *bucket; s; s = s->next)
		if (s->len == len && memcmp(s->name, name, len) == 0)
			return false;
	s = malloc(sizeof(*s) + len);
	if (!s) {
		level->is_out_of_memory = true;
		return false;
	}
	s->len = len;
	memcpy(s->name, name, len);
	s->next = *bucket;
	*bucket = s;
	return true;
}

bool index_level_take(void *arg, const struct origin_entry *in)
{
	struct index_level *level = arg;
	struct origin_entry out = *in;
	const char *slash;
	char key[ORIGIN_KEY_MAX + 1];

	if (in->key_len <= level->prefix_len || memcmp(in->key, level->prefix, level->prefix_len) != 0)
		return true;
	/* a key that ends with "/" marks a directory */
	out.is_prefix = in->key[in->key_len - 1] == '/';
	slash = memchr(in->key + level->prefix_len, '/', in->key_len - level->prefix_len);
	if (!level->is_recursive && slash) {
		out.key_len = (size_t)(slash + 1 - in->key);
		out.is_prefix = true;
		if (!see(level, in->key, out.key_len))
			return !level->is_out_of_memory;
		memcpy(key, in->key, out.key_len);
		key[out.key_len] = 0;
		out.key = key;
	}
	if (out.is_prefix)
		out.version = (struct version){0};
	level->has_ended = !level->cb(level->arg, &out);
	return !level->has_ended;
}
