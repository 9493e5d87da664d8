/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include "agent/http_client.h"
#include "agent/test/http_origin.h"

struct setup {
	struct http_origin *server;
	struct origin *origin;
};

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct wd_err err = WD_ERR_INIT;

	s->server = http_origin_start();
	*state = s;
	return origins_start(1, 4, &err);
}

static int end(void **state)
{
	struct setup *s = *state;

	origin_close(s->origin);
	origins_stop();
	http_origin_stop(s->server);
	free(s);
	return 0;
}

static void open_for(struct setup *s, const char *path, const char *index, int64_t deadline_ms)
{
	struct origin_options options = {.index = index, .deadline_ms = deadline_ms};
	struct wd_err err = WD_ERR_INIT;
	char url[200];

	snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", s->server->port, path);
	assert_ok(origin_open(url, &options, &s->origin, &err));
}

static void open_at(struct setup *s, const char *path, const char *index)
{
	open_for(s, path, index, 30000);
}

#define JSON "application/json"
#define DATE "\"mtime\":\"Thu, 01 Jan 2026 00:00:00 GMT\""

static void server_listing_gives_one_level(void **state)
{
	struct setup *s = *state;
	struct listed l = {0};
	struct wd_err err = WD_ERR_INIT;
	bool is_complete = false;

	http_origin_text(s->server, "/data/a%20%23/",
		"[{\"name\":\"x y\",\"type\":\"file\"," DATE ",\"size\":3},"
		"{\"name\":\"d\",\"type\":\"directory\"," DATE "}]",
		JSON);
	open_at(s, "/data", NULL);
	assert_ok(origin_list(s->origin, "a #/", false, 0, listed_add, &l, &is_complete, &err));
	assert_string_equal(l.keys, "a #/x y a #/d/ ");
	assert_true(is_complete);
	l = (struct listed){.stop_after = 1};
	assert_ok(origin_list(s->origin, "a #/", false, 0, listed_add, &l, &is_complete, &err));
	assert_false(is_complete);
	assert_int_equal(l.last.mtime_s, 1767225600);
	assert_false(l.last.is_bound);
	assert_false(origin_lists_recursively(s->origin));
	assert_int_equal(
		origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err), -EOPNOTSUPP);
}

static void html_listing_names_the_remedy(void **state)
{
	struct setup *s = *state;
	struct listed l = {0};
	struct wd_err err = WD_ERR_INIT;

	http_origin_text(s->server, "/d/", "<html></html>", "text/html; charset=utf-8");
	open_at(s, "/d/", NULL);
	assert_int_equal(origin_list(s->origin, "", false, 0, listed_add, &l, NULL, &err), -EIO);
	assert_says(err, "autoindex_format json");
	assert_says(err, "-o index=FILE");
	assert_int_equal(origin_check(s->origin, &err), -EIO);
	assert_says(err, "autoindex_format json");
}

static void listing_that_breaks_off_is_read_again_whole(void **state)
{
	struct setup *s = *state;
	struct listed l = {0};
	struct wd_err err = WD_ERR_INIT;

	http_origin_text(
		s->server, "/d/", "[{\"name\":\"a\",\"type\":\"file\"," DATE ",\"size\":3}]", JSON);
	http_origin_fail(s->server, FAULT_SHORT_BODY, 0, NULL);
	http_origin_fail(s->server, FAULT_STATUS, 503, "");
	open_at(s, "/d", NULL);
	assert_ok(origin_list(s->origin, "", false, 0, listed_add, &l, NULL, &err));
	assert_string_equal(l.keys, "a ");
	assert_int_equal(http_origin_requests(s->server), 3);
}

static void broken_listing_is_an_error(void **state)
{
	struct setup *s = *state;
	struct listed l = {0};
	struct wd_err err = WD_ERR_INIT;

	http_origin_text(
		s->server, "/d/", "[{\"name\":\"a\",\"type\":\"file\"," DATE ",\"size\":3},", JSON);
	open_for(s, "/d", NULL, 2000); /* it is tried again for so long */
	assert_int_equal(origin_list(s->origin, "", false, 0, listed_add, &l, NULL, &err), -EIO);
	assert_says(err, "ends in the middle");
	assert_int_equal(
		origin_list(s->origin, "no/", false, 0, listed_add, &l, NULL, &err), -ENOENT);
}

static void probe_tells_objects_from_directories(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	enum origin_kind kind;
	struct version v;
	char to[100];

	open_at(s, "/d", NULL);
	http_origin_text(s->server, "/d/a%2Bb", "hello", NULL);
	assert_ok(origin_probe(s->origin, "a+b", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_OBJECT);
	assert_int_equal(v.size, 5);
	assert_string_equal(v.etag, "\"t\"");
	assert_true(v.is_bound);
	snprintf(to, sizeof(to), "http://127.0.0.1:%d/d/%%61%%62/", s->server->port);
	http_origin_fail(s->server, FAULT_REDIRECT, 301, to);
	assert_ok(origin_probe(s->origin, "ab", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "none", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
	assert_ok(origin_probe(s->origin, "", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_int_equal(origin_stat(s->origin, "none", &v, &err), -ENOENT);
}

static void dots_and_empty_segments_are_never_asked_for(void **state)
{
	static const char *const keys[] = {"..", "a/../b", "./a", "a//b", "/a", "a/"};
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct version v;

	open_at(s, "/d", NULL);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		assert_int_equal(origin_stat(s->origin, keys[i], &v, &err), -ENOENT);
	assert_int_equal(http_origin_requests(s->server), 0);
}

static const char index_text[] = "{\"key\":\"a/b/c\",\"size\":1,\"mtime\":5,\"etag\":\"e1\"}\n"
				 "{\"key\":\"a/b/d\",\"size\":2,\"mtime\":5}\n"
				 "{\"key\":\"ab\",\"size\":3,\"mtime\":5}\n"
				 "{\"key\":\"a/x\",\"size\":4,\"mtime\":5}\n"
				 "{\"key\":\"a/b/e\",\"size\":5,\"mtime\":5}\n";

static void index_lists_everything_or_one_level(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	bool is_complete = false;
	struct listed l = {0};

	http_origin_text(s->server, "/d/in%20dex.jsonl", index_text, NULL);
	open_at(s, "/d", "in dex.jsonl");
	assert_true(origin_lists_recursively(s->origin));
	assert_ok(origin_check(s->origin, &err));
	assert_ok(origin_list(s->origin, "", true, 0, listed_add, &l, &is_complete, &err));
	assert_string_equal(l.keys, "a/b/c a/b/d ab a/x a/b/e ");
	assert_true(is_complete);
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "", false, 0, listed_add, &l, NULL, &err));
	assert_string_equal(l.keys, "a/ ab ");
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "a/", false, 0, listed_add, &l, NULL, &err));
	assert_string_equal(l.keys, "a/b/ a/x ");
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "a/b/", true, 0, listed_add, &l, NULL, &err));
	assert_string_equal(l.keys, "a/b/c a/b/d a/b/e ");
	/* an entry with an ETag is bound */
	l = (struct listed){.stop_after = 1};
	assert_ok(origin_list(s->origin, "", true, 0, listed_add, &l, &is_complete, &err));
	assert_true(l.last.is_bound);
	assert_string_equal(l.last.etag, "\"e1\"");
	assert_false(is_complete);
}

static void index_knows_directories_that_the_server_does_not(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	enum origin_kind kind;
	struct version v;

	http_origin_text(s->server, "/d/index", index_text, NULL);
	open_at(s, "/d", "index");
	assert_ok(origin_probe(s->origin, "a/b", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "b", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
}

static void index_that_breaks_off_goes_on_where_it_was(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	static char big[400000]; /* the server may still be sending it */
	size_t len = 0;
	struct listed l = {0};

	for (int i = 0; i < 2000; i++)
		len += (size_t)sprintf(
			big + len, "{\"key\":\"k%04d\",\"size\":%d,\"more\":\"%090d\"}\n", i, i, 0);
	http_origin_put(s->server, "/d/index", big, len, "\"i\"", NULL);
	http_origin_fail(s->server, FAULT_SHORT_BODY, 0, NULL);
	http_origin_fail(s->server, FAULT_RESET, 0, NULL);
	open_at(s, "/d", "index");
	assert_ok(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err));
	assert_int_equal(l.n, 2000);
	assert_int_equal(l.last.size, 1999);
	/* another index in the second try would repeat or lose entries */
	l = (struct listed){0};
	http_origin_fail(s->server, FAULT_SHORT_BODY, 0, NULL);
	http_origin_fail(s->server, FAULT_OTHER_ETAG, 0, NULL);
	assert_int_equal(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err), -ESTALE);
	assert_says(err, "changed while it was read");
}

static void broken_index_says_where(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};

	http_origin_text(s->server, "/d/index", "{\"key\":\"a\",\"size\":1}\noops\n", NULL);
	open_at(s, "/d", "index");
	assert_int_equal(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err), -EIO);
	assert_says(err, "read the index 'http://127.0.0.1:");
	assert_says(err, "after object 1");
}

static void check_fails_fast(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct origin *none = NULL;
	struct origin_options options = {0};

	open_at(s, "/d", NULL);
	http_origin_fail_always(s->server, FAULT_STATUS, 503, "");
	assert_int_equal(origin_check(s->origin, &err), -EIO);
	assert_int_equal(http_origin_requests(s->server), 2);
	assert_ok(origin_open("http://no-such-host.invalid/", &options, &none, &err));
	assert_int_equal(origin_check(none, &err), -ENOENT);
	assert_says(err, "no-such-host.invalid");
	origin_close(none);
}

static void bad_urls_and_options_are_named(void **state)
{
	static const struct {
		const char *url;
		struct origin_options options;
		const char *says;
	} bad[] = {
		{"gs://bucket/x", {0}, "known are file://, http://, https://, s3://"},
		{"nonsense", {0}, "unknown kind of URL"},
		{"http:///path", {0}, "no host"},
		{"http://h/p?token=1", {0}, "'?'"},
		{"http://h/", {.index = "../x"}, "index"},
		{"http://h/", {.endpoint = "http://x"}, "'endpoint'"},
		{"file:///d", {.index = "x"}, "'index'"},
		{"file://host/d", {0}, "file:///absolute/path"},
		{"https://h/", {.ca_cert = "/no/such/file"}, "'/no/such/file'"},
		{"http://h/", {.deadline_ms = -1}, "deadline"},
	};
	struct wd_err err = WD_ERR_INIT;
	struct origin *o = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int rc = origin_open(bad[i].url, &bad[i].options, &o, &err);

		assert_true(rc < 0 && rc == -err.code);
		assert_says(err, bad[i].says);
		assert_says(err, "open '");
	}
	assert_int_equal(origin_open("nope://user:secret@h/", NULL, &o, &err), -EINVAL);
	assert_null(strstr(err.msg, "secret"));
}

static void an_answer_tells_how_far_the_clocks_are_apart(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	int64_t skew_s = 1, expected_s;

	http_origin_text(s->server, "/data/", "[]", JSON);
	open_at(s, "/data", NULL);
	assert_false(origin_clock_skew(s->origin, &skew_s));
	assert_ok(origin_check(s->origin, &err));
	assert_true(origin_clock_skew(s->origin, &skew_s));
	expected_s = 1767398400 - (int64_t)time(NULL); /* the server's fixed Date */
	assert_true(skew_s >= expected_s && skew_s <= expected_s + 600);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(server_listing_gives_one_level),
		TEST(html_listing_names_the_remedy),
		TEST(listing_that_breaks_off_is_read_again_whole),
		TEST(broken_listing_is_an_error),
		TEST(probe_tells_objects_from_directories),
		TEST(dots_and_empty_segments_are_never_asked_for),
		TEST(index_lists_everything_or_one_level),
		TEST(index_knows_directories_that_the_server_does_not),
		TEST(index_that_breaks_off_goes_on_where_it_was),
		TEST(broken_index_says_where),
		TEST(check_fails_fast),
		TEST(an_answer_tells_how_far_the_clocks_are_apart),
		TEST(bad_urls_and_options_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
