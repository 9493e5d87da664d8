/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include "agent/index.h"

/* Feeds text in pieces of `step` bytes; 0 or the first error. */
static int parse(enum index_form form, const char *text, size_t len, size_t step, struct listed *l,
	struct wd_err *err)
{
	struct index_parser *p = index_new(form, listed_add, l);
	int rc = 0;

	assert_non_null(p);
	for (size_t at = 0; at < len && rc == 0; at += step)
		rc = index_feed(p, text + at, len - at < step ? len - at : step, err);
	if (rc == 0)
		rc = index_finish(p, err);
	index_free(p);
	return rc;
}

static int parse_text(enum index_form form, const char *text, struct listed *l, struct wd_err *err)
{
	*l = (struct listed){0};
	return parse(form, text, strlen(text), 4096, l, err);
}

static void index_lines_are_entries(void **state)
{
	static const char text[] =
		"{\"key\":\"a/"
		"b\",\"size\":5,\"mtime\":\"2026-01-02T03:04:05.678Z\",\"etag\":\"\\\"x\\\"\"}\n"
		"\r\n{ \"key\": \"sp ace \\u00e9{}\\\"\\n\", \"size\": 0, \"mtime\": 1767225600, "
		"\"more\": {\"x\": [1, \"}\"]} }";
	struct wd_err err = WD_ERR_INIT;
	struct listed l;

	(void)state;
	for (size_t step = 1; step < sizeof(text); step++) {
		l = (struct listed){0};
		assert_ok(parse(INDEX_LINES, text, strlen(text), step, &l, &err));
		assert_int_equal(l.n, 2);
		assert_string_equal(l.keys, "a/b sp ace \xc3\xa9{}\"\n ");
		assert_int_equal(l.last.mtime_s, 1767225600);
		assert_false(l.last.is_bound);
	}
	l = (struct listed){.stop_after = 1};
	assert_ok(parse(INDEX_LINES, text, strlen(text), 4096, &l, &err));
	assert_int_equal(l.n, 1);
	assert_int_equal(l.last.size, 5);
	assert_int_equal(l.last.mtime_s, 1767323045);
	assert_int_equal(l.last.mtime_ns, 678000000);
	assert_string_equal(l.last.etag, "\"x\"");
	assert_true(l.last.is_bound);
}

static void nginx_listing_is_one_level(void **state)
{
	static const char text[] =
		"[\n{ \"name\":\"d\", \"type\":\"directory\", \"mtime\":\"Thu, 01 Jan 2026 "
		"00:00:00 GMT\" },\n"
		"{ \"name\":\"pipe\", \"type\":\"other\", \"mtime\":\"Thu, 01 Jan 2026 00:00:00 "
		"GMT\" },\n"
		"{ \"name\":\"f\", \"type\":\"file\", \"mtime\":\"Thu, 01 Jan 2026 00:00:00 GMT\", "
		"\"size\":7 }\n]\n";
	struct wd_err err = WD_ERR_INIT;
	struct listed l;

	(void)state;
	assert_ok(parse_text(INDEX_AUTOINDEX, text, &l, &err));
	assert_string_equal(l.keys, "d/ f ");
	assert_int_equal(l.last.size, 7);
	assert_int_equal(l.last.mtime_s, 1767225600);
	assert_ok(parse_text(INDEX_AUTOINDEX, "[\n]\n", &l, &err));
	assert_int_equal(l.n, 0);
}

static void names_that_are_no_utf8_keep_their_bytes(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct listed l;

	(void)state;
	assert_ok(parse_text(INDEX_AUTOINDEX,
		"[{\"name\":\"bad\xff\xfe\xc3\",\"type\":\"file\",\"size\":1}]", &l, &err));
	assert_string_equal(l.keys, "bad\xff\xfe\xc3 ");
}

static void names_that_no_key_can_be_are_left_out(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct listed l;
	char text[2048], key[1200];

	(void)state;
	assert_ok(parse_text(INDEX_LINES,
		"{\"key\":\"a\\u0000b\",\"size\":1}{\"key\":\"\",\"size\":1}", &l, &err));
	assert_int_equal(l.n, 0);
	assert_ok(parse_text(
		INDEX_AUTOINDEX, "[{\"name\":\"a/b\",\"type\":\"file\",\"size\":1}]", &l, &err));
	assert_int_equal(l.n, 0);
	memset(key, 'k', sizeof(key));
	key[ORIGIN_KEY_MAX + 1] = 0;
	snprintf(text, sizeof(text), "{\"key\":\"%s\",\"size\":1}", key);
	assert_ok(parse_text(INDEX_LINES, text, &l, &err));
	assert_int_equal(l.n, 0);
	key[ORIGIN_KEY_MAX] = 0;
	snprintf(text, sizeof(text), "{\"key\":\"%s\",\"size\":1}", key);
	assert_ok(parse_text(INDEX_LINES, text, &l, &err));
	assert_int_equal(l.n, 1);
}

static void errors_say_which_object_is_wrong(void **state)
{
	static const struct {
		enum index_form form;
		const char *text, *says;
	} bad[] = {
		{INDEX_LINES, "{\"key\":\"a\",\"size\":1}\nhello", "after object 1"},
		{INDEX_LINES, "{\"key\":\"a\",\"size\":1}\n{\"size\":1}",
			"object 2: there is no string \"key\""},
		{INDEX_LINES, "{\"key\":\"a\"}", "\"size\""},
		{INDEX_LINES, "{\"key\":\"a\",\"size\":-1}", "\"size\""},
		{INDEX_LINES, "{\"key\":\"a\",\"size\":1.5}", "\"size\""},
		{INDEX_LINES, "{\"key\":\"a\",\"size\":1,\"mtime\":\"yesterday\"}", "\"mtime\""},
		{INDEX_LINES, "{\"key\":\"a\",\"size\":1,\"etag\":5}", "\"etag\""},
		{INDEX_LINES, "{key:1}", "object 1 is not JSON"},
		{INDEX_LINES, "{\"key\":\"a\",\"si", "ends in the middle"},
		{INDEX_LINES, "[{\"key\":\"a\",\"size\":1}]", "not a JSON object"},
		{INDEX_AUTOINDEX, "[{\"name\":\"a\",\"type\":\"file\",\"size\":1},",
			"ends in the middle"},
		{INDEX_AUTOINDEX, "{\"name\":\"a\"}", "not a JSON array"},
		{INDEX_AUTOINDEX, "<html>", "not a JSON object"},
		{INDEX_AUTOINDEX, "", "ends in the middle"},
	};
	struct wd_err err = WD_ERR_INIT;
	struct listed l;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(parse_text(bad[i].form, bad[i].text, &l, &err), -EPROTO);
		assert_says(err, bad[i].says);
	}
}

static void an_endless_object_is_refused(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	size_t len = INDEX_OBJECT_MAX * 2;
	char *text = malloc(len);
	struct listed l = {0};

	(void)state;
	memset(text, '{', len);
	assert_int_equal(parse(INDEX_LINES, text, len, len, &l, &err), -EPROTO);
	assert_says(err, "longer than");
	free(text);
}

static void times_are_read_with_their_zone(void **state)
{
	static const char *const bad[] = {"", "2026", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00",
		"2026-01-01T00:00:00.Z", "2026-01-01T00:00:00Zx", "2026-01-01T00:00:00+1:00"};
	uint32_t ns;
	int64_t s;

	(void)state;
	assert_true(index_parse_rfc3339("1970-01-01T00:00:00Z", &s, &ns));
	assert_int_equal(s, 0);
	assert_true(index_parse_rfc3339("2026-01-01T02:30:00.000000001+02:30", &s, &ns));
	assert_int_equal(s, 1767225600);
	assert_int_equal(ns, 1);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(index_parse_rfc3339(bad[i], &s, &ns));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(index_lines_are_entries),
		cmocka_unit_test(nginx_listing_is_one_level),
		cmocka_unit_test(names_that_are_no_utf8_keep_their_bytes),
		cmocka_unit_test(names_that_no_key_can_be_are_left_out),
		cmocka_unit_test(errors_say_which_object_is_wrong),
		cmocka_unit_test(an_endless_object_is_refused),
		cmocka_unit_test(times_are_read_with_their_zone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
