/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of keys: defaults, pairs, YAML, what is refused and in which words, and printing. */
#include "common/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct values {
	bool is_on;
	int64_t count, size, timeout_ms;
	char *dir, *allowed, *unset;
};

static const struct wd_config_key keys[] = {
	{"is-on", WD_CONFIG_BOOL, offsetof(struct values, is_on), 0, 0, "true", "Whether."},
	{"count", WD_CONFIG_INT, offsetof(struct values, count), -5, 64, "8", "How many."},
	{"cache-size", WD_CONFIG_SIZE, offsetof(struct values, size), 1 << 20, 1ll << 50, "100GiB",
		"Bytes to keep.\nTwo lines."},
	{"timeout", WD_CONFIG_DURATION, offsetof(struct values, timeout_ms), 0, 0, "1500ms", NULL},
	{"dir", WD_CONFIG_STRING, offsetof(struct values, dir), 0, 0, "/var/cache", "Where."},
	{"allowed", WD_CONFIG_LIST, offsetof(struct values, allowed), 0, 0, "s3://*,file:///a b",
		"Which."},
	{"unset", WD_CONFIG_STRING, offsetof(struct values, unset), 0, 0, NULL, "Nothing."},
	{.name = NULL},
};

static struct values v;
static struct wd_err err;

static int set_up(void **state)
{
	memset(&v, 0x5a, sizeof(v)); /* defaults must not depend on what was there */
	err = WD_ERR_INIT;
	return wd_config_defaults(keys, &v, &err);
}

static int tear_down(void **state)
{
	wd_config_free(keys, &v);
	return v.dir || v.allowed;
}

static int set(const char *name, const char *value)
{
	return wd_config_set(keys, &v, name, value, &err);
}

static int read_text(const char *text)
{
	return wd_config_read_text(keys, &v, "f.yaml", text, strlen(text), &err);
}

/* ---- values ---- */

static void defaults_fill_every_value(void **state)
{
	assert_true(v.is_on);
	assert_int_equal(v.count, 8);
	assert_int_equal(v.size, 100ll << 30);
	assert_int_equal(v.timeout_ms, 1500);
	assert_string_equal(v.dir, "/var/cache");
	assert_string_equal(v.allowed, "s3://*\nfile:///a b");
	assert_null(v.unset);
}

static void a_default_out_of_its_own_range_is_refused_and_can_be_freed(void **state)
{
	static const struct wd_config_key bad[] = {
		{"dir", WD_CONFIG_STRING, offsetof(struct values, dir), 0, 0, "x", NULL},
		{"count", WD_CONFIG_INT, offsetof(struct values, count), 1, 2, "3", NULL},
		{"allowed", WD_CONFIG_LIST, offsetof(struct values, allowed), 0, 0, "a", NULL},
		{.name = NULL},
	};
	struct values w;

	memset(&w, 0x5a, sizeof(w));
	assert_int_equal(wd_config_defaults(bad, &w, &err), -ERANGE);
	assert_null(w.allowed);
	wd_config_free(bad, &w);
}

static void pairs_set_values_of_every_type(void **state)
{
	assert_int_equal(set("is-on", "off"), 0);
	assert_false(v.is_on);
	assert_int_equal(set("is-on", "YES"), 0);
	assert_true(v.is_on);
	assert_int_equal(set("count", "-5"), 0);
	assert_int_equal(v.count, -5);
	assert_int_equal(set("cache-size", "1.5TiB"), 0);
	assert_int_equal(v.size, 3ll << 39);
	assert_int_equal(set("timeout", "2m"), 0);
	assert_int_equal(v.timeout_ms, 120000);
	assert_int_equal(set("dir", ""), 0);
	assert_string_equal(v.dir, "");
	assert_int_equal(set("allowed", " a ,, b c,"), 0);
	assert_string_equal(v.allowed, "a\nb c");
	assert_int_equal(set("allowed", ""), 0);
	assert_string_equal(v.allowed, "");
}

static void a_refused_value_names_key_value_and_form_and_changes_nothing(void **state)
{
	static const char *const bad[][3] = {
		{"is-on", "maybe", "is-on: 'maybe' is not true or false"},
		{"count", "eight", "count: 'eight' is not a whole number"},
		{"count", "8x", "not a whole number"},
		{"count", " 8", "not a whole number"},
		{"count", "", "not a whole number"},
		{"count", "99999999999999999999", "not a whole number"},
		{"cache-size", "10 parsecs", "not a size such as"},
		{"cache-size", "-1", "not a size"},
		{"timeout", "5 fortnights", "not a duration such as"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(set(bad[i][0], bad[i][1]), -EINVAL);
		assert_non_null(strstr(err.msg, bad[i][2]));
	}
	assert_int_equal(set("allowed", "a\nb"), -EINVAL);
	defaults_fill_every_value(state);
}

static void a_value_out_of_range_names_the_range_in_its_unit(void **state)
{
	assert_int_equal(set("count", "65"), -ERANGE);
	assert_string_equal(err.msg, "count: '65' is not between -5 and 64");
	assert_int_equal(set("count", "-6"), -ERANGE);
	assert_int_equal(set("cache-size", "4096"), -ERANGE);
	assert_string_equal(err.msg, "cache-size: '4096' is not between 1MiB and 1024TiB");
	assert_int_equal(v.size, 100ll << 30);
}

static void an_unknown_key_is_refused_with_the_known_ones_listed(void **state)
{
	assert_int_equal(set("cache-siz", "1"), -EINVAL);
	assert_string_equal(err.msg,
		"unknown key 'cache-siz'; known keys: is-on, count, cache-size, "
		"timeout, dir, allowed, unset");
}

static void a_list_of_known_keys_that_is_too_long_is_cut(void **state)
{
	static struct wd_config_key many[101];
	static char names[100][32];
	int64_t number;

	for (int i = 0; i < 100; i++) {
		snprintf(names[i], sizeof(names[i]), "a-long-key-%d", i);
		many[i] = (struct wd_config_key){.name = names[i], .type = WD_CONFIG_INT};
	}
	assert_int_equal(wd_config_set(many, &number, "x", "1", &err), -EINVAL);
	assert_string_equal(err.msg + strlen(err.msg) - 3, "...");
}

/* ---- YAML ---- */

static void yaml_sets_values_of_every_type(void **state)
{
	assert_int_equal(read_text("# comment\n---\n"
				   "is-on: no\ncount: 3\ncache-size: 512MiB\ntimeout: 60s\n"
				   "dir: \"/mnt/a b\"\nallowed:\n- s3://x,y\n- 'https://*'\n...\n"),
		0);
	assert_false(v.is_on);
	assert_int_equal(v.count, 3);
	assert_int_equal(v.size, 512 << 20);
	assert_int_equal(v.timeout_ms, 60000);
	assert_string_equal(v.dir, "/mnt/a b");
	assert_string_equal(v.allowed, "s3://x,y\nhttps://*");
}

static void a_yaml_list_may_be_inline_or_comma_separated_or_empty(void **state)
{
	assert_int_equal(read_text("allowed: [a, b]"), 0);
	assert_string_equal(v.allowed, "a\nb");
	assert_int_equal(read_text("allowed: c,d"), 0);
	assert_string_equal(v.allowed, "c\nd");
	assert_int_equal(read_text("allowed: []"), 0);
	assert_string_equal(v.allowed, "");
}

static void a_text_that_says_nothing_changes_nothing(void **state)
{
	static const char *const nothing[] = {"", "\n\n", "# only\n", "---\n", "---\n...\n", "{}"};

	for (size_t i = 0; i < sizeof(nothing) / sizeof(*nothing); i++)
		assert_int_equal(read_text(nothing[i]), 0);
	defaults_fill_every_value(state);
}

static void an_error_names_file_line_key_and_value(void **state)
{
	assert_int_equal(read_text("is-on: true\n\ncache-size: 10XB\n"), -EINVAL);
	assert_string_equal(err.msg, "f.yaml:3: cache-size: '10XB' is not a size such as 512MiB, "
				     "10GB or 4096");
	assert_int_equal(read_text("\ncout: 1\n"), -EINVAL);
	assert_non_null(strstr(err.msg, "f.yaml:2: unknown key 'cout'; known keys: is-on, count"));
	assert_int_equal(read_text("count: 1\ncount: 65\n"), -EINVAL);
	assert_string_equal(err.msg, "f.yaml:2: count: given twice");
}

static void yaml_that_a_flat_table_cannot_mean_is_refused_by_line(void **state)
{
	static const char *const bad[][2] = {
		{"count", "f.yaml:1: lines of 'key: value'"},
		{"- count\n", "f.yaml:1: lines of"},
		{"count:\n", "f.yaml:1: a value is missing"},
		{"count: ~\n", "a value is missing"},
		{"dir: null\n", "a value is missing"},
		{"dir: {a: b}\n", "not a nested one"},
		{"dir: [a]\n", "f.yaml:1: dir: one value was expected, not a list"},
		{"allowed:\n- a\n- [b]\n", "f.yaml:3: a plain value was expected"},
		{"allowed: ['']\n", "must not be empty"},
		{"allowed: [\"a\\nb\"]\n", "line break"},
		{"dir: \"a\\0b\"\n", "NUL"},
		{"dir: &x a\nunset: *x\n", "f.yaml:2: aliases"},
		{"? [a]\n: b\n", "a plain value was expected"},
		{"count: 1\n---\ncount: 2\n", "f.yaml:2: a second document"},
		{"dir: 'a\n", "not YAML"},
		{"dir: a\n\tcount: 1\n", "not YAML"},
		{"dir: \xff\n", "byte 5"},
		{"allowed: [a\n", "not YAML"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		err = WD_ERR_INIT;
		assert_true(read_text(bad[i][0]) < 0);
		if (!strstr(err.msg, bad[i][1]))
			fail_msg("'%s' gave '%s'", bad[i][0], err.msg);
		assert_int_equal(
			wd_config_read_text(keys, &v, "n", bad[i][0], strlen(bad[i][0]), NULL),
			-EINVAL);
	}
}

static void a_file_is_read_and_a_bad_one_is_named(void **state)
{
	char dir[] = "/tmp/wd-config-XXXXXX", path[64];
	FILE *f;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/a.yaml", dir);
	assert_int_equal(wd_config_read_file(keys, &v, path, &err), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	f = fopen(path, "we");
	assert_non_null(f);
	fputs("count: 7\n", f);
	fclose(f);
	assert_int_equal(wd_config_read_file(keys, &v, path, &err), 0);
	assert_int_equal(v.count, 7);
	assert_int_equal(wd_config_read_file(keys, &v, dir, &err), -EISDIR);
	assert_int_equal(truncate(path, (1 << 20) + 1), 0);
	assert_int_equal(wd_config_read_file(keys, &v, path, &err), -EFBIG);
	unlink(path);
	rmdir(dir);
}

/* ---- printing ---- */

static char *print(const struct values *values)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	wd_config_print(keys, values, out);
	fclose(out);
	return text;
}

static void printing_shows_values_with_their_help(void **state)
{
	char *text = print(&v);

	assert_string_equal(text, "# Whether.\nis-on: true\n"
				  "\n# How many.\n# (-5 to 64)\ncount: 8\n"
				  "\n# Bytes to keep.\n# Two lines.\n# (1MiB to 1024TiB)\n"
				  "cache-size: 100GiB\n"
				  "\ntimeout: 1500ms\n"
				  "\n# Where.\ndir: \"/var/cache\"\n"
				  "\n# Which.\nallowed: [\"s3://*\", \"file:///a b\"]\n"
				  "\n# Nothing.\n# unset: \"\"\n");
	free(text);
}

static void what_is_printed_reads_back_the_same(void **state)
{
	struct values w;
	char *text, *again;

	assert_int_equal(set("dir", "q\"\\\n\x01\xc3\xa4 \xe2\x80\xa8\xc2\x85 # : end "), 0);
	assert_int_equal(set("cache-size", "1048577"), 0);
	assert_int_equal(set("timeout", "0"), 0);
	assert_int_equal(set("allowed", "it's,[x],\"y\""), 0);
	text = print(&v);
	assert_int_equal(wd_config_defaults(keys, &w, &err), 0);
	assert_int_equal(wd_config_read_text(keys, &w, "p", text, strlen(text), &err), 0);
	again = print(&w);
	assert_string_equal(again, text);
	assert_string_equal(w.dir, v.dir);
	assert_string_equal(w.allowed, v.allowed);
	assert_int_equal(w.size, 1048577);
	assert_int_equal(w.timeout_ms, 0);
	wd_config_free(keys, &w);
	free(text);
	free(again);
}

/* ---- units ---- */

static void sizes_are_parsed_exactly(void **state)
{
	static const struct {
		const char *text;
		int64_t bytes; /* -1: refused */
	} cases[] = {
		{"0", 0},
		{"4096", 4096},
		{"1B", 1},
		{"1k", 1000},
		{"1KiB", 1024},
		{"1Ki", 1024},
		{"10MB", 10000000},
		{"10mb", 10000000},
		{"1.5GiB", 3ll << 29},
		{"1.5 KiB", 1536},
		{"0.1KB", 100},
		{"0.3KiB", 307},
		{"8191PiB", 8191ll << 50},
		{"9223372036854775807", INT64_MAX},
		{"1.0000000000000000000000000GiB", 1 << 30},
		{"", -1},
		{" 1", -1},
		{"1 ", 1},
		{"-1", -1},
		{"+1", -1},
		{".5GiB", -1},
		{"1.GiB", -1},
		{"1.5", -1},
		{"1.5B", -1},
		{"1..5K", -1},
		{"GiB", -1},
		{"1XiB", -1},
		{"1KiBs", -1},
		{"0x10", -1},
		{"1e3", -1},
		{"inf", -1},
		{"9223372036854775808", -1},
		{"8192PiB", -1},
		{"99999999999999999999999999999999999999999999999", -1},
	};
	int64_t bytes;

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int rc = wd_parse_size(cases[i].text, &bytes);

		if (rc != (cases[i].bytes < 0 ? -EINVAL : 0) ||
			(rc == 0 && bytes != cases[i].bytes))
			fail_msg("'%s' gave %d, %lld", cases[i].text, rc, (long long)bytes);
	}
}

static void durations_are_parsed_exactly(void **state)
{
	int64_t ms;

	assert_int_equal(wd_parse_duration("500ms", &ms), 0);
	assert_int_equal(ms, 500);
	assert_int_equal(wd_parse_duration("60", &ms), 0);
	assert_int_equal(ms, 60000);
	assert_int_equal(wd_parse_duration("1.25", &ms), 0);
	assert_int_equal(ms, 1250);
	assert_int_equal(wd_parse_duration("5m", &ms), 0);
	assert_int_equal(ms, 300000);
	assert_int_equal(wd_parse_duration("1h", &ms), 0);
	assert_int_equal(ms, 3600000);
	assert_int_equal(wd_parse_duration("2d", &ms), 0);
	assert_int_equal(ms, 172800000);
	assert_int_equal(wd_parse_duration("0.5ms", &ms), -EINVAL);
	assert_int_equal(wd_parse_duration("-1s", &ms), -EINVAL);
	assert_int_equal(wd_parse_duration("9223372036854775807", &ms), -EINVAL);
}

static void sizes_are_formatted_for_people(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1536, "1.5 KiB"},
		{1075, "1 KiB"},
		{1076, "1.1 KiB"},
		{(1 << 20) - 1, "1 MiB"},
		{1047552, "1023 KiB"},
		{100ull << 30, "100 GiB"},
		{UINT64_MAX, "16 EiB"},
		{INT64_MAX, "8 EiB"},
	};
	char out[16];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_string_equal(
			wd_format_size(cases[i].bytes, out, sizeof(out)), cases[i].text);
}

#define ON_VALUES(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON_VALUES(defaults_fill_every_value),
		ON_VALUES(a_default_out_of_its_own_range_is_refused_and_can_be_freed),
		ON_VALUES(pairs_set_values_of_every_type),
		ON_VALUES(a_refused_value_names_key_value_and_form_and_changes_nothing),
		ON_VALUES(a_value_out_of_range_names_the_range_in_its_unit),
		ON_VALUES(an_unknown_key_is_refused_with_the_known_ones_listed),
		ON_VALUES(a_list_of_known_keys_that_is_too_long_is_cut),
		ON_VALUES(yaml_sets_values_of_every_type),
		ON_VALUES(a_yaml_list_may_be_inline_or_comma_separated_or_empty),
		ON_VALUES(a_text_that_says_nothing_changes_nothing),
		ON_VALUES(an_error_names_file_line_key_and_value),
		ON_VALUES(yaml_that_a_flat_table_cannot_mean_is_refused_by_line),
		ON_VALUES(a_file_is_read_and_a_bad_one_is_named),
		ON_VALUES(printing_shows_values_with_their_help),
		ON_VALUES(what_is_printed_reads_back_the_same),
		cmocka_unit_test(sizes_are_parsed_exactly),
		cmocka_unit_test(durations_are_parsed_exactly),
		cmocka_unit_test(sizes_are_formatted_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
