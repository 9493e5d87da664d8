/* SPDX-License-Identifier: Apache-2.0 */
/* See volume_id.h. */
#include "csi/volume_id.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define PREFIX_LEN 22 /* "wd-d-", 16 digits, "-" */
#define HASH_LEN 33   /* "-" and 32 digits */
#define NAME_KEPT (VOLUME_ID_MAX - PREFIX_LEN - HASH_LEN)

uint64_t volume_id_digest(struct map context)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < context.n; i++) {
		const struct map_entry *e = context.entries[i];
		uint64_t h;

		if (!volume_is_of_node(e->key))
			continue;
		h = XXH3_64bits(e->key, strlen(e->key));
		/* a sum of hashes is the same in any order, and the value's hash depends on its key */
		sum += XXH3_64bits_withSeed(e->value, strlen(e->value), h);
	}
	return sum;
}

const char *volume_id_make(struct rpc_call *call, const char *name, struct map context)
{
	char kind = volume_is_scratch(context) ? 's' : 'd';
	unsigned long long digest = volume_id_digest(context);
	XXH128_hash_t h;

	if (PREFIX_LEN + strlen(name) <= VOLUME_ID_MAX)
		return arena_printf(call->arena, "wd-%c-%016llx-%s", kind, digest, name);
	h = XXH3_128bits(name, strlen(name));
	return arena_printf(call->arena, "wd-%c-%016llx-%.*s-%016llx%016llx", kind, digest, NAME_KEPT, name,
		(unsigned long long)h.high64, (unsigned long long)h.low64);
}

bool volume_id_parse(const char *text, struct volume_id *ret_id)
{
	char digits[17];

	if (strncmp(text, "wd-d-", 5) != 0 && strncmp(text, "wd-s-", 5) != 0)
		return false;
	if (strspn(text + 5, "0123456789abcdef") != 16 || text[21] != '-' || !text[22] ||
		strlen(text) > VOLUME_ID_MAX)
		return false;
	memcpy(digits, text + 5, 16);
	digits[16] = '\0';
	*ret_id = (struct volume_id){text[3] == 's', strtoull(digits, NULL, 16)};
	return true;
}
