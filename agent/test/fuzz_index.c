/* SPDX-License-Identifier: Apache-2.0 */
/* Index files and nginx listings, whole and in pieces: both ways must give the same entries. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool count(void *arg, const struct origin_entry *e)
{
	size_t *n = arg;

	if (!e->key_len || e->key_len > ORIGIN_KEY_MAX + 1 || strlen(e->key) != e->key_len)
		__builtin_trap();
	*n = *n * 31 + e->key_len + e->version.size;
	return true;
}

static int parse(enum index_form form, const uint8_t *data, size_t size, size_t step, size_t *ret)
{
	struct index_parser *p = index_new(form, count, ret);
	int rc = 0;

	for (size_t at = 0; p && at < size && rc == 0; at += step)
		rc = index_feed(p, data + at, size - at < step ? size - at : step, NULL);
	if (rc == 0)
		rc = index_finish(p, NULL);
	index_free(p);
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	for (int form = INDEX_LINES; form <= INDEX_AUTOINDEX; form++) {
		size_t a = 0, b = 0;

		if (parse(form, data, size, size + 1, &a) != parse(form, data, size, 7, &b) ||
			a != b)
			__builtin_trap();
	}
	return 0;
}
