/* SPDX-License-Identifier: Apache-2.0 */
/* The S3 origin against a server that records what it is asked; signatures themselves are checked
 * against the published examples (test_retry) and by a real server (the end-to-end tests). */
#include "agent/test/origin_fixture.h"

#include "agent/test/http_origin.h"

struct setup {
	struct http_origin *server;
	struct origin *origin;
	char endpoint[64];
};

static int begin(void **state)
{
	struct setup *s = calloc(1, sizeof(*s));
	struct wd_err err = WD_ERR_INIT;

	s->server = http_origin_start();
	snprintf(s->endpoint, sizeof(s->endpoint), "http://127.0.0.1:%d", s->server->port);
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

static void open_at(struct setup *s, const char *url)
{
	struct origin_options options = {.endpoint = s->endpoint,
		.access_key = "AK",
		.secret_key = "SECRETKEY",
		.session_token = "TOKEN",
		.deadline_ms = 30000};
	struct wd_err err = WD_ERR_INIT;

	assert_ok(origin_open(url, &options, &s->origin, &err));
}

#define XML(inside)                                                                                \
	"<ListBucketResult><EncodingType>url</EncodingType>" inside "</ListBucketResult>"
#define CONTENT(key) "<Contents><Key>" key "</Key><ETag>\"e\"</ETag><Size>3</Size></Contents>"
#define PAGE "encoding-type=url&list-type=2&max-keys=1000&prefix="
#define ONE "encoding-type=url&list-type=2&max-keys=1&prefix="

static void pages_are_followed_to_the_end(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	bool is_complete = false;
	struct listed l = {0};

	http_origin_text(s->server, "/bkt/?delimiter=%2F&" PAGE "p%20q%2Fa%2F",
		XML("<IsTruncated>true</IsTruncated><NextContinuationToken>t/+=</"
		    "NextContinuationToken>" CONTENT("p+q%2Fa%2F") CONTENT("p+q%2Fa%2F1")),
		"application/xml");
	http_origin_text(s->server,
		"/bkt/?continuation-token=t%2F%2B%3D&delimiter=%2F&" PAGE "p%20q%2Fa%2F",
		XML(CONTENT("p+q%2Fa%2F2")
				CONTENT("elsewhere") "<CommonPrefixes><Prefix>p+q/a/d/</Prefix>"
						     "</CommonPrefixes>"),
		"application/xml");
	open_at(s, "s3://bkt/p q");
	assert_true(origin_lists_recursively(s->origin));
	assert_ok(origin_list(s->origin, "a/", false, 0, listed_add, &l, &is_complete, &err));
	/* the marker of the directory itself and what lies elsewhere are left out */
	assert_string_equal(l.keys, "a/1 a/2 a/d/ ");
	assert_true(is_complete);
	l = (struct listed){0};
	assert_ok(origin_list(s->origin, "a/", false, 1, listed_add, &l, &is_complete, &err));
	assert_string_equal(l.keys, "a/1 ");
	assert_false(is_complete);
}

static void page_that_breaks_off_gives_no_entry_twice(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};

	http_origin_text(s->server, "/bkt/?" PAGE, XML(CONTENT("a") CONTENT("b") CONTENT("m/")),
		"application/xml");
	http_origin_fail(s->server, FAULT_SHORT_BODY, 0, NULL);
	http_origin_fail(s->server, FAULT_STATUS, 503, "<Error><Code>SlowDown</Code></Error>");
	open_at(s, "s3://bkt");
	assert_ok(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err));
	assert_string_equal(l.keys, "a b m/ ");
	assert_true(l.last_is_prefix);
	assert_int_equal(http_origin_requests(s->server), 3);
}

static void listing_that_goes_in_circles_ends(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	static const char page[] = XML("<IsTruncated>true</IsTruncated>"
				       "<NextContinuationToken>x</NextContinuationToken>");

	http_origin_text(s->server, "/bkt/?" PAGE, page, "application/xml");
	http_origin_text(s->server, "/bkt/?continuation-token=x&" PAGE, page, "application/xml");
	open_at(s, "s3://bkt");
	assert_int_equal(origin_list(s->origin, "", true, 0, listed_add, &l, NULL, &err), -EIO);
	assert_says(err, "in circles");
}

static void requests_are_signed_and_name_the_key_exactly(void **state)
{
	static const struct {
		const char *key, *line;
	} keys[] = {
		{"a b", "HEAD /bkt/p/a%20b HTTP/1.1"},
		{"a+b%2F", "HEAD /bkt/p/a%2Bb%252F HTTP/1.1"},
		{"../x", "HEAD /bkt/p/../x HTTP/1.1"},
		{"/lead//d", "HEAD /bkt/p//lead//d HTTP/1.1"},
		{"n\nl\x01", "HEAD /bkt/p/n%0Al%01 HTTP/1.1"},
		{"\xc3\xa9?#", "HEAD /bkt/p/%C3%A9%3F%23 HTTP/1.1"},
		{"dir/", "HEAD /bkt/p/dir/ HTTP/1.1"},
	};
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct version v;
	char head[600];

	open_at(s, "s3://bkt/p/");
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		assert_int_equal(origin_stat(s->origin, keys[i].key, &v, &err), -ENOENT);
		assert_string_equal(s->server->lines[i], keys[i].line);
	}
	assert_true(http_origin_header(s->server->last, "Authorization", head, sizeof(head)));
	assert_non_null(strstr(head, "AWS4-HMAC-SHA256 Credential=AK/"));
	assert_non_null(strstr(head, "/us-east-1/s3/aws4_request,SignedHeaders=host;"
				     "x-amz-content-sha256;x-amz-date;x-amz-security-token,"));
	assert_true(
		http_origin_header(s->server->last, "x-amz-content-sha256", head, sizeof(head)));
	assert_string_equal(head, "UNSIGNED-PAYLOAD");
	assert_true(
		http_origin_header(s->server->last, "x-amz-security-token", head, sizeof(head)));
	assert_string_equal(head, "TOKEN");
	assert_null(strstr(s->server->last, "SECRETKEY"));
}

static void anonymous_requests_carry_no_signature(void **state)
{
	struct setup *s = *state;
	struct origin_options options = {.endpoint = s->endpoint,
		.is_anonymous = true,
		.access_key = "AK",
		.secret_key = "SK"};
	struct wd_err err = WD_ERR_INIT;
	struct version v;

	assert_ok(origin_open("s3://bkt", &options, &s->origin, &err));
	http_origin_text(s->server, "/bkt/k", "abc", NULL);
	assert_ok(origin_stat(s->origin, "k", &v, &err));
	assert_int_equal(v.size, 3);
	assert_null(strcasestr(s->server->last, "authorization"));
	assert_null(strcasestr(s->server->last, "x-amz"));
}

static void bucket_stands_before_the_host_where_it_can(void **state)
{
	struct setup *s = *state;
	struct origin_options options = {.is_anonymous = true};
	struct wd_err err = WD_ERR_INIT;
	struct version v;
	char host[200], want[200];

	snprintf(s->endpoint, sizeof(s->endpoint), "http://s3.localhost:%d/", s->server->port);
	options.endpoint = s->endpoint;
	assert_ok(origin_open("s3://bkt/x", &options, &s->origin, &err));
	assert_int_equal(origin_stat(s->origin, "k", &v, &err), -ENOENT);
	assert_string_equal(s->server->lines[0], "HEAD /x/k HTTP/1.1");
	assert_true(http_origin_header(s->server->last, "Host", host, sizeof(host)));
	snprintf(want, sizeof(want), "bkt.s3.localhost:%d", s->server->port);
	assert_string_equal(host, want);
	/* not when the name has dots, nor when it is asked for */
	origin_close(s->origin);
	assert_ok(origin_open("s3://b.k.t", &options, &s->origin, &err));
	assert_int_equal(origin_stat(s->origin, "k", &v, &err), -ENOENT);
	assert_string_equal(s->server->lines[1], "HEAD /b.k.t/k HTTP/1.1");
	options.is_path_style = true;
	origin_close(s->origin);
	assert_ok(origin_open("s3://bkt", &options, &s->origin, &err));
	assert_int_equal(origin_stat(s->origin, "k", &v, &err), -ENOENT);
	assert_string_equal(s->server->lines[2], "HEAD /bkt/k HTTP/1.1");
}

static void ranges_are_read_with_if_match(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	struct version v;
	struct fetch f;

	open_at(s, "s3://bkt/p");
	http_origin_text(s->server, "/bkt/p/k%20", "0123456789", NULL);
	assert_ok(origin_stat(s->origin, "k ", &v, &err));
	assert_true(v.is_bound);
	fetch_init(&f, "k ", &v, 2, 5);
	http_origin_fail(s->server, FAULT_STATUS, 503, "<Error><Code>SlowDown</Code></Error>");
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), 0);
	assert_memory_equal(f.data, "23456", 5);
	fetch_free(&f);
	http_origin_put(s->server, "/bkt/p/k%20", "0123456789", 10, "\"new\"", NULL);
	fetch_init(&f, "k ", &v, 2, 5);
	origin_get(s->origin, &f.get);
	assert_int_equal(fetch_wait(&f), -ESTALE);
	fetch_free(&f);
}

static void probe_prefers_the_prefix(void **state)
{
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;
	enum origin_kind kind;
	struct version v;

	open_at(s, "s3://bkt/p");
	http_origin_text(s->server, "/bkt/p/both", "x", NULL);
	http_origin_text(s->server, "/bkt/p/file", "x", NULL);
	http_origin_text(s->server, "/bkt/?" ONE "p%2Fboth%2F", XML(CONTENT("p/both/child")),
		"application/xml");
	http_origin_text(
		s->server, "/bkt/?" ONE "p%2Fmark%2F", XML(CONTENT("p/mark/")), "application/xml");
	http_origin_text(s->server, "/bkt/?" ONE "p%2Ffile%2F", XML(""), "application/xml");
	http_origin_text(s->server, "/bkt/?" ONE "p%2Fnone%2F", XML(""), "application/xml");
	assert_ok(origin_probe(s->origin, "both", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "mark", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_PREFIX);
	assert_ok(origin_probe(s->origin, "file", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_OBJECT);
	assert_int_equal(v.size, 1);
	assert_ok(origin_probe(s->origin, "none", &kind, &v, &err));
	assert_int_equal(kind, ORIGIN_NONE);
}

static void check_says_what_is_wrong(void **state)
{
	static const struct {
		int status, rc;
		const char *body, *says;
	} cases[] = {
		{404, -ENOENT, "<Error><Code>NoSuchBucket</Code></Error>",
			"the bucket does not exist"},
		{403, -EACCES, "<Error><Code>InvalidAccessKeyId</Code></Error>",
			"does not know this access key"},
		{403, -EACCES, "<Error><Code>SignatureDoesNotMatch</Code></Error>",
			"secret key is wrong"},
		{403, -EACCES, "<Error><Code>AccessDenied</Code></Error>",
			"AccessDenied: these credentials"},
		{403, -EACCES, "<Error><Code>RequestTimeTooSkewed</Code></Error>", "clock"},
		{400, -EACCES, "<Error><Code>ExpiredToken</Code></Error>", "renew"},
		{301, -EIO, "<Error><Code>PermanentRedirect</Code></Error>", "another region"},
		{400, -EIO, "<Error><Code>Odd</Code><Message>strange thing</Message></Error>",
			"Odd: strange thing"},
		{403, -EACCES, "", "HTTP 403"},
		{200, -EIO, "<html/>", "<html>"},
	};
	struct setup *s = *state;
	struct wd_err err = WD_ERR_INIT;

	open_at(s, "s3://bkt/p");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		http_origin_fail(s->server, FAULT_STATUS, cases[i].status, cases[i].body);
		if (cases[i].status == 200) /* what is no listing is asked for once more */
			http_origin_fail(s->server, FAULT_STATUS, cases[i].status, cases[i].body);
		assert_int_equal(origin_check(s->origin, &err), cases[i].rc);
		assert_says(err, cases[i].says);
		assert_says(err, "list 's3://bkt/p/'");
		assert_null(strstr(err.msg, "SECRETKEY"));
	}
	/* an empty dataset is a dataset */
	http_origin_text(s->server, "/bkt/?" ONE "p%2F", XML(""), "application/xml");
	assert_ok(origin_check(s->origin, &err));
}

static void bad_options_are_named(void **state)
{
	static const struct {
		const char *url;
		struct origin_options o;
		const char *says;
	} bad[] = {
		{"s3://bkt", {0}, "no credentials"},
		{"s3://bkt", {.access_key = "a"}, "no credentials"},
		{"s3://bkt", {.access_key = "a", .secret_key = "b\n"}, "control"},
		{"s3://b/x", {.is_anonymous = true}, "'b' is no name of a bucket"},
		{"s3:///x", {.is_anonymous = true}, "bucket"},
		{"s3://bkt@h/x", {.is_anonymous = true}, "bucket"},
		{"s3://bkt", {.is_anonymous = true, .endpoint = "host:80"},
			"'endpoint' is 'host:80'"},
		{"s3://bkt", {.is_anonymous = true, .endpoint = "http://h/path"}, "'endpoint'"},
		{"s3://bkt", {.is_anonymous = true, .endpoint = "http://u:pw@h"},
			"'endpoint' is '(hidden)'"},
		{"s3://bkt", {.is_anonymous = true, .region = "a b"}, "'region'"},
		{"s3://bkt", {.is_anonymous = true, .index = "i"}, "'index'"},
	};
	struct wd_err err = WD_ERR_INIT;
	struct origin *o = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(origin_open(bad[i].url, &bad[i].o, &o, &err), -EINVAL);
		assert_says(err, bad[i].says);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(pages_are_followed_to_the_end),
		TEST(page_that_breaks_off_gives_no_entry_twice),
		TEST(listing_that_goes_in_circles_ends),
		TEST(requests_are_signed_and_name_the_key_exactly),
		TEST(anonymous_requests_carry_no_signature),
		TEST(bucket_stands_before_the_host_where_it_can),
		TEST(ranges_are_read_with_if_match),
		TEST(probe_prefers_the_prefix),
		TEST(check_says_what_is_wrong),
		TEST(bad_options_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
