/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/test/origin_fixture.h"

#include <sys/mman.h>
#include <unistd.h>

#include "agent/s3_xml.h"

#define HEAD                                                                                       \
	"<?xml version=\"1.0\"?><ListBucketResult "                                                \
	"xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
#define TAIL "</ListBucketResult>"
#define CONTENT(key) "<Contents><Key>" key "</Key><Size>3</Size></Contents>"

static int parse(const char *xml, struct s3_page *page, struct listed *l, struct wd_err *err)
{
	*l = (struct listed){.stop_after = l->stop_after};
	*page = (struct s3_page){.cb = listed_add, .arg = l};
	return s3_parse_page(xml, strlen(xml), page, err);
}

static void page_gives_objects_and_prefixes(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	struct s3_page page;

	(void)state;
	assert_ok(parse(HEAD
		"<Name>b</Name><Prefix>p%2F</Prefix><EncodingType>url</EncodingType>"
		"<IsTruncated>true</IsTruncated>"
		"<NextContinuationToken>1/a+b=&amp;</NextContinuationToken>"
		"<Contents><Key>p/a+b%2Bc%0A%25</Key><LastModified>2026-01-02T03:04:05.678Z"
		"</LastModified><ETag>&quot;0cc1-7&quot;</ETag><Size>1099511627776</Size>"
		"<Owner><ID>x</ID></Owner></Contents>"
		"<CommonPrefixes><Prefix>p%2Fd%2F</Prefix></CommonPrefixes>" TAIL,
		&page, &l, &err));
	assert_string_equal(l.keys, "p/a b+c\n% p/d/ ");
	assert_true(page.is_truncated);
	assert_string_equal(page.token, "1/a+b=&");
	l.stop_after = 1;
	assert_ok(parse(HEAD "<Contents><Key>a+b%41</Key><Size>1099511627776</Size>"
			     "<ETag>&quot;0cc1-7&quot;</ETag><LastModified>2026-01-02T03:04:05.678Z"
			     "</LastModified></Contents>" CONTENT("second") TAIL,
		&page, &l, &err));
	assert_true(page.is_ended);
	assert_string_equal(l.keys, "a+b%41 "); /* not encoded unless it says so */
	assert_int_equal(l.last.size, 1099511627776);
	assert_string_equal(l.last.etag, "\"0cc1-7\"");
	assert_true(l.last.is_bound);
	assert_int_equal(l.last.mtime_s, 1767323045);
	assert_int_equal(l.last.mtime_ns, 678000000);
}

/* A listing has no terminator: here, nothing behind it can be read. Looking at a character reference once did. */
static void nothing_is_read_behind_the_listing(void **state)
{
	static const char xml[] = HEAD CONTENT("a") TAIL "<!-- &#9; -->";
	size_t page_size = (size_t)sysconf(_SC_PAGESIZE), len = sizeof(xml) - 1;
	char *map = mmap(NULL, 2 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct listed l = {0};
	struct s3_page page = {.cb = listed_add, .arg = &l};
	struct wd_err err = WD_ERR_INIT;

	(void)state;
	assert_true(map != MAP_FAILED);
	assert_ok(mprotect(map + page_size, page_size, PROT_NONE));
	memcpy(map + page_size - len, xml, len);
	assert_ok(s3_parse_page(map + page_size - len, len, &page, &err));
	assert_string_equal(l.keys, "a ");
	munmap(map, 2 * page_size);
}

static void encoding_may_be_declared_after_the_entries(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	struct s3_page page;

	(void)state;
	assert_ok(parse(
		HEAD CONTENT("a%20b") "<EncodingType>url</EncodingType>" TAIL, &page, &l, &err));
	assert_string_equal(l.keys, "a b ");
}

static void control_characters_in_a_token_survive(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	struct s3_page page;

	(void)state;
	assert_ok(parse(
		HEAD CONTENT("k&#1;") "<IsTruncated>true</IsTruncated><NextContinuationToken>ds/"
				      "&#x01;&#x1f;&#10;end</NextContinuationToken>" TAIL,
		&page, &l, &err));
	assert_string_equal(page.token, "ds/\x01\x1f\nend");
	assert_string_equal(l.keys, "k\x01 ");
}

static void keys_that_cannot_be_are_left_out(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	struct s3_page page;
	char xml[12000], key[9000];

	(void)state;
	memset(key, 'k', sizeof(key));
	key[sizeof(key) - 1] = 0;
	snprintf(xml, sizeof(xml),
		HEAD "<EncodingType>url</EncodingType>"
		     "<Contents><Key>%s</Key><Size>1</Size></Contents>" CONTENT("a%%00b")
			     CONTENT("ok") TAIL,
		key);
	assert_ok(parse(xml, &page, &l, &err));
	assert_string_equal(l.keys, "ok ");
	assert_int_equal(page.nleft_out, 2);
}

static void what_is_no_listing_is_an_error(void **state)
{
	static const struct {
		const char *xml, *says;
	} bad[] = {
		{"", "not XML"},
		{"<html></html>", "<html>"},
		{HEAD, "not XML"},
		{HEAD CONTENT("a") "</Wrong>", "not XML"},
		{HEAD "<Contents><Size>1</Size></Contents>" TAIL, "without key"},
		{HEAD "<Contents><Key>a</Key></Contents>" TAIL, "without key or size"},
		{HEAD "<Contents><Key>a</Key><Size>-1</Size></Contents>" TAIL, "<Size>"},
		{HEAD "<Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>" TAIL,
			"<Size>"},
		{HEAD "<IsTruncated>true</IsTruncated>" TAIL, "NextContinuationToken"},
		{"<!DOCTYPE a [<!ENTITY x \"y\">]><ListBucketResult>&x;" TAIL, "document type"},
	};
	struct wd_err err = WD_ERR_INIT;
	struct listed l = {0};
	struct s3_page page;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(parse(bad[i].xml, &page, &l, &err), -EPROTO);
		assert_says(err, bad[i].says);
	}
}

static void errors_are_read_even_when_cut_off(void **state)
{
	struct s3_error e;
	static const char cut[] =
		"<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please";

	(void)state;
	assert_true(s3_parse_error(cut, strlen(cut), &e));
	assert_string_equal(e.code, "SlowDown");
	assert_string_equal(e.message, "");
	assert_false(s3_parse_error("<html><Code>x</Code></html>", 27, &e));
	assert_string_equal(e.code, "");
	assert_false(s3_parse_error("nonsense", 8, &e));
}

static void url_decoding_leaves_what_is_no_escape(void **state)
{
	char text[] = "a%2Fb+c%zz%4%41%";

	(void)state;
	text[s3_url_decode(text, strlen(text))] = 0;
	assert_string_equal(text, "a/b c%zz%4A%");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(page_gives_objects_and_prefixes),
		cmocka_unit_test(nothing_is_read_behind_the_listing),
		cmocka_unit_test(encoding_may_be_declared_after_the_entries),
		cmocka_unit_test(control_characters_in_a_token_survive),
		cmocka_unit_test(keys_that_cannot_be_are_left_out),
		cmocka_unit_test(what_is_no_listing_is_an_error),
		cmocka_unit_test(errors_are_read_even_when_cut_off),
		cmocka_unit_test(url_decoding_leaves_what_is_no_escape),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
