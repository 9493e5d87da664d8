/* SPDX-License-Identifier: Apache-2.0 */
/* Answer headers, line by line, and the verdict on them. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/http_range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct version v = {.size = 1000, .mtime_s = 1767225600, .etag = "\"e\""};
	const char *p = (const char *)data, *end = p + size;
	struct http_answer a;
	char why[64];

	http_answer_reset(&a);
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = nl ? (size_t)(nl + 1 - p) : (size_t)(end - p);

		http_answer_line(&a, p, len);
		p += len;
	}
	/* what is accepted is exactly what was asked for */
	if (http_check_get(&a, &v, 10, 20, why, sizeof(why)) == HTTP_OK &&
		(a.status != 206 || a.first != 10 || a.last != 29 || a.total != 1000 ||
			!a.has_length || a.length != 20))
		__builtin_trap();
	return 0;
}
