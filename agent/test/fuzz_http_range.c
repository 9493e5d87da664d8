/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libFuzzer target: the headers of an answer, line by line, and the verdict on them for versions
 * with a strong validator, a weak one, and none but size and time. What is accepted is exactly what
 * was asked for.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "agent/http_range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool is_so)
{
	if (!is_so)
		abort();
}

static void check(const struct http_answer *a, const struct version *v)
{
	char why[64] = "";
	enum http_verdict verdict = http_check_get(a, v, 10, 20, why, sizeof(why));

	require(strlen(why) < sizeof(why));
	if (verdict != HTTP_OK)
		return;
	require(a->status == 206 && a->first == 10 && a->last == 29 && a->total == v->size);
	require(a->has_length && a->length == 20 && !a->is_garbled && !a->is_encoded);
	if (v->etag[0] && a->etag[0])
		require(http_etag_equal(a->etag, v->etag));
}

static void check_values(const struct http_answer *a)
{
	char again[ORIGIN_ETAG_MAX];

	require(strlen(a->etag) < sizeof(a->etag) && strlen(a->type) < sizeof(a->type) &&
		strlen(a->region) < sizeof(a->region));
	require(a->retry_after_ms >= -1);
	if (a->has_range && !a->is_unsatisfied && !a->is_garbled)
		require(a->first <= a->last && a->last < a->total);
	/* what is kept could be sent back, and is kept again as it is */
	if (a->etag[0] && http_etag_keep(a->etag, strlen(a->etag), again))
		require(strcmp(again, a->etag) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct version versions[] = {
		{.size = 1000, .mtime_s = 1767225600, .etag = "\"e\""},
		{.size = 1000, .mtime_s = 1767225600, .etag = "W/\"e\""},
		{.size = 1000, .mtime_s = 1767225600},
		{.size = 30},
	};
	const char *p = (const char *)data, *end = p + size;
	struct http_answer a;

	http_answer_reset(&a);
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = nl ? (size_t)(nl + 1 - p) : (size_t)(end - p);

		http_answer_line(&a, p, len);
		p += len;
	}
	check_values(&a);
	http_classify(a.status);
	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++)
		check(&a, &versions[i]);
	return 0;
}
