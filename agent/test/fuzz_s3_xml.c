/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of ListObjectsV2, error documents, and answers of the token service. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/s3_xml.h"
#include "agent/sts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool look(void *arg, const struct origin_entry *e)
{
	size_t *n = arg;

	if (!e->key_len || strlen(e->key) != e->key_len)
		__builtin_trap();
	return ++*n < 100;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t n = 0;
	struct s3_page page = {.cb = look, .arg = &n};
	struct s3_error error;
	struct sts_keys keys;

	if (s3_parse_page(data, size, &page, NULL) == 0 && page.is_truncated && !page.is_ended &&
		!page.token[0])
		__builtin_trap();
	s3_parse_error(data, size, &error);
	if (sts_parse(data, size, &keys, NULL) == 0) {
		if (!keys.access_key || !keys.secret_key || !keys.session_token)
			__builtin_trap();
		sts_keys_done(&keys);
	}
	return 0;
}
