/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include "agent/http_range.h"

static struct http_answer answer(const char *const *lines)
{
	struct http_answer a;

	http_answer_reset(&a);
	for (; *lines; lines++)
		http_answer_line(&a, *lines, strlen(*lines));
	return a;
}
#define ANSWER(...) answer((const char *const[]){__VA_ARGS__, NULL})

static const struct version v100 = {.size = 100, .mtime_s = 1767225600, .etag = "\"e\""};

static enum http_verdict check(
	struct http_answer a, const struct version *v, uint64_t offset, uint64_t length)
{
	char why[200];

	return http_check_get(&a, v, offset, length, why, sizeof(why));
}

static void content_range_is_read_exactly(void **state)
{
	static const char *const bad[] = {"bytes", "bytes ", "bytes 0-9", "bytes 0-9/",
		"bytes 9-0/100", "bytes 0-100/100", "bytes -5/100", "bytes 0-9/100 ", "bytes 0-9/*",
		"items 0-9/100", "bytes 0-99999999999999999999/100", "bytes=0-9/100",
		"bytes 0-9/100x", "bytes */", "bytes */*"};
	struct http_answer a = {0};

	(void)state;
	assert_true(http_parse_content_range("bytes 0-9/100", 13, &a));
	assert_int_equal(a.first, 0);
	assert_int_equal(a.last, 9);
	assert_int_equal(a.total, 100);
	assert_true(http_parse_content_range("bytes */100", 11, &a));
	assert_true(a.is_unsatisfied);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (http_parse_content_range(bad[i], strlen(bad[i]), &a))
			fail_msg("'%s' was accepted", bad[i]);
}

static void dates_are_seconds_since_1970(void **state)
{
	static const char *const bad[] = {"", "Thu, 01 Jan 2026", "Thu, 01 Foo 2026 00:00:00 GMT",
		"Thu, 01 Jan 2026 00:00:00 CET", "Thu, 01 Jan 2026 25:00:00 GMT",
		"Thu, 01 Jan 2026 00:00:00 GMT and more", "Thu, 99 Jan 2026 00:00:00 GMT",
		"Thu, 01 anF 2026 00:00:00 GMT"};
	int64_t s;

	(void)state;
	assert_true(http_parse_date("Thu, 01 Jan 1970 00:00:00 GMT", 29, &s));
	assert_int_equal(s, 0);
	assert_true(http_parse_date("Fri, 24 May 2013 00:00:00 GMT", 29, &s));
	assert_int_equal(s, 1369353600);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(http_parse_date(bad[i], strlen(bad[i]), &s));
}

static void etags_are_kept_as_they_go_into_if_match(void **state)
{
	char etag[ORIGIN_ETAG_MAX], lng[300];

	(void)state;
	assert_true(http_etag_keep("\"abc-2\"", 7, etag));
	assert_string_equal(etag, "\"abc-2\"");
	assert_true(http_etag_keep("abc", 3, etag));
	assert_string_equal(etag, "\"abc\"");
	assert_true(http_etag_keep("W/\"abc\"", 7, etag));
	assert_string_equal(etag, "W/\"abc\"");
	assert_true(http_etag_is_weak(etag));
	assert_false(http_etag_keep("\"a\r\nX: y\"", 9, etag));
	assert_false(http_etag_keep("\"a\"b\"", 5, etag));
	assert_false(http_etag_keep("", 0, etag));
	memset(lng, 'x', sizeof(lng));
	assert_false(http_etag_keep(lng, sizeof(lng), etag));
	assert_string_equal(etag, "");
	assert_true(http_etag_equal("W/\"a\"", "\"a\""));
	assert_false(http_etag_equal("\"a\"", "\"b\""));
}

static void headers_are_read_whatever_their_case(void **state)
{
	struct http_answer a = ANSWER("HTTP/1.1 503 Slow\r\n", "RETRY-AFTER: 7\r\n",
		"content-type: Text/HTML; charset=x\r\n", "ETag:\"q\"\r\n",
		"x-amz-bucket-region: eu-west-1\r\n", "nonsense\r\n", ": \r\n", "\r\n");

	(void)state;
	assert_int_equal(a.status, 503);
	assert_int_equal(a.retry_after_ms, 7000);
	assert_string_equal(a.type, "text/html");
	assert_string_equal(a.etag, "\"q\"");
	assert_string_equal(a.region, "eu-west-1");
}

static void a_second_status_line_starts_afresh(void **state)
{
	struct http_answer a = ANSWER(
		"HTTP/1.1 100 Continue", "ETag: \"old\"", "HTTP/1.1 206 x", "Content-Length: 5");

	(void)state;
	assert_int_equal(a.status, 206);
	assert_string_equal(a.etag, "");
	assert_int_equal(a.length, 5);
}

static void exact_answer_is_accepted(void **state)
{
	(void)state;
	assert_int_equal(check(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-19/100",
				       "Content-Length: 10", "ETag: \"e\""),
				 &v100, 10, 10),
		HTTP_OK);
	/* the whole object may come as 200 */
	assert_int_equal(check(ANSWER("HTTP/1.1 200 x", "Content-Length: 100", "ETag: \"e\""),
				 &v100, 0, 100),
		HTTP_OK);
}

/* The answer is tried again for exactly that reason. */
static void retried(struct http_answer a, uint64_t length, const char *reason)
{
	char why[200];

	assert_int_equal(http_check_get(&a, &v100, 10, length, why, sizeof(why)), HTTP_RETRY);
	assert_string_equal(why, reason);
}

static void every_other_answer_is_tried_again(void **state)
{
#define RANGE "Content-Range: bytes 10-19/100"
#define LENGTH "Content-Length: 10"
	(void)state;
	retried(ANSWER("HTTP/1.1 200 x", "Content-Length: 100", "ETag: \"e\""), 10,
		"HTTP 200 instead of 206: the server ignored the range");
	retried(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 11-20/100", LENGTH), 10,
		"Content-Range is bytes 11-20");
	retried(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-18/100", LENGTH), 10,
		"Content-Range is bytes 10-18");
	retried(ANSWER("HTTP/1.1 206 x", LENGTH), 10, "HTTP 206 without Content-Range");
	retried(ANSWER("HTTP/1.1 206 x", RANGE), 10, "HTTP 206 without Content-Length");
	retried(ANSWER("HTTP/1.1 206 x", RANGE, "Content-Length: 9"), 10,
		"Content-Length 9 instead of 10");
	retried(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes ten", LENGTH), 10,
		"garbled Content-Length or Content-Range");
	/* two that differ */
	retried(ANSWER("HTTP/1.1 206 x", RANGE, "Content-Range: bytes 10-18/100", LENGTH), 10,
		"garbled Content-Length or Content-Range");
	retried(ANSWER("HTTP/1.1 206 x", RANGE, LENGTH, "Content-Encoding: gzip"), 10,
		"the answer is compressed although identity was asked for");
	/* a whole object as 200 must say how long it is */
	assert_int_equal(check(ANSWER("HTTP/1.1 200 x", "ETag: \"e\""), &v100, 0, 100), HTTP_RETRY);
}

static void another_version_is_stale(void **state)
{
	static const struct version weak = {.size = 100, .mtime_s = 1767225600, .etag = "W/\"e\""};
	static const struct version bare = {.size = 100, .mtime_s = 1767225600};

	(void)state;
	assert_int_equal(
		check(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-19/100", "ETag: \"f\""),
			&v100, 10, 10),
		HTTP_STALE);
	assert_int_equal(
		check(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-19/101", "ETag: \"e\""),
			&v100, 10, 10),
		HTTP_STALE);
	/* without a strong ETag size and time decide */
	assert_int_equal(check(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-19/100",
				       "Last-Modified: Thu, 01 Jan 2026 00:00:01 GMT"),
				 &bare, 10, 10),
		HTTP_STALE);
	assert_int_equal(
		check(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-19/100", "ETag: W/\"e\"",
			      "Last-Modified: Thu, 01 Jan 2026 00:00:01 GMT"),
			&weak, 10, 10),
		HTTP_STALE);
	assert_int_equal(
		check(ANSWER("HTTP/1.1 206 x", "Content-Range: bytes 10-19/100",
			      "Content-Length: 10", "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"),
			&bare, 10, 10),
		HTTP_OK);
	assert_int_equal(
		check(ANSWER("HTTP/1.1 200 x", "Content-Length: 99"), &bare, 0, 100), HTTP_STALE);
	assert_int_equal(check(ANSWER("HTTP/1.1 412 x"), &v100, 0, 1), HTTP_STALE);
	assert_int_equal(check(ANSWER("HTTP/1.1 416 x"), &v100, 0, 1), HTTP_STALE);
}

static void statuses_mean_what_they_say(void **state)
{
	(void)state;
	assert_int_equal(http_classify(404), HTTP_NOENT);
	assert_int_equal(http_classify(403), HTTP_ACCES);
	assert_int_equal(http_classify(429), HTTP_RETRY);
	assert_int_equal(http_classify(503), HTTP_RETRY);
	assert_int_equal(http_classify(0), HTTP_RETRY);
	assert_int_equal(http_classify(400), HTTP_FATAL);
	assert_int_equal(http_classify(302), HTTP_REDIRECT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(content_range_is_read_exactly),
		cmocka_unit_test(dates_are_seconds_since_1970),
		cmocka_unit_test(etags_are_kept_as_they_go_into_if_match),
		cmocka_unit_test(headers_are_read_whatever_their_case),
		cmocka_unit_test(a_second_status_line_starts_afresh),
		cmocka_unit_test(exact_answer_is_accepted),
		cmocka_unit_test(every_other_answer_is_tried_again),
		cmocka_unit_test(another_version_is_stale),
		cmocka_unit_test(statuses_mean_what_they_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
