/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines by a table. */
#include "common/options.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

struct values {
	const char *text, *called;
	bool flag;
	int number, kept;
	int64_t size, span;
};

static int set_even(void *values, const char *text)
{
	((struct values *)values)->called = text;
	return strlen(text) % 2 ? -EINVAL : 0;
}

#define AT(field) offsetof(struct values, field)
static const struct wd_option options[] = {
	{"text", WD_OPTION_TEXT, AT(text), "DIR", NULL, "one line\nand another", NULL},
	{"flag", WD_OPTION_FLAG, AT(flag), NULL, NULL, "a flag", NULL},
	{"number", WD_OPTION_NUMBER, AT(number), "N", "7", "a number", NULL},
	{"kept", WD_OPTION_NUMBER, AT(kept), "N", NULL, "the struct's own", NULL},
	{"size", WD_OPTION_SIZE, AT(size), "SIZE", "4KiB", "a size", NULL},
	{"a-rather-long-option", WD_OPTION_SPAN, AT(span), "T", "2s", "a time", NULL},
	{"even", WD_OPTION_CALL, 0, "WORD", NULL, "a word", set_even},
	{0},
};
static const struct wd_command command = {"program", "[options]", "About it.\n", "More.\n", options};

/* What is printed meanwhile is in `printed`. */
static char printed[2048];

static int parse(struct values *v, const char *const *words)
{
	char *argv[16] = {(char *)"program"};
	int argc = 1, out = memfd_create("printed", MFD_CLOEXEC), saved[2] = {dup(1), dup(2)}, rc;
	ssize_t n;

	while (words[argc - 1]) {
		argv[argc] = (char *)words[argc - 1];
		argc++;
	}
	fflush(NULL);
	dup2(out, 1);
	dup2(out, 2);
	rc = wd_options_parse(&command, argc, argv, v);
	fflush(NULL);
	dup2(saved[0], 1);
	dup2(saved[1], 2);
	n = pread(out, printed, sizeof(printed) - 1, 0);
	printed[n > 0 ? n : 0] = '\0';
	close(saved[0]);
	close(saved[1]);
	close(out);
	return rc;
}

static void values_land_where_the_table_says(void **state)
{
	struct values v = {.kept = 5};

	assert_int_equal(parse(&v, (const char *const[]){NULL}), -1);
	assert_true(!v.text && !v.flag && v.number == 7 && v.kept == 5 && v.size == 4096 && v.span == 2000000000);
	assert_int_equal(parse(&v, (const char *const[]){"--text", "/a", "--flag", "--number=0", "--kept", "9", "--size",
					   "1MiB", "--a-rather-long-option", "50ms", "--even", "ab", NULL}),
		-1);
	assert_string_equal(v.text, "/a");
	assert_string_equal(v.called, "ab");
	assert_true(v.flag && v.number == 0 && v.kept == 9 && v.size == 1 << 20 && v.span == 50000000);
	assert_string_equal(printed, "");
}

static void a_mistake_is_named(void **state)
{
	static const struct {
		const char *words[4], *says;
	} rows[] = {
		{{"--number", "x"}, "--number takes a number, not 'x'"},
		{{"--number", "-1"}, "--number takes a number, not '-1'"},
		{{"--number", "99999999999"}, "--number takes a number"},
		{{"--number", ""}, "--number takes a number, not ''"},
		{{"--size", "much"}, "--size takes a size such as 4MiB, not 'much'"},
		{{"--a-rather-long-option", "soon"}, "takes a time such as 30s, not 'soon'"},
		{{"--even", "abc"}, "--even takes WORD, not 'abc'"},
		{{"--unknown"}, "unrecognized option"},
		{{"--text"}, "requires an argument"},
		{{"--flag=1"}, "doesn't allow an argument"},
		{{"--flag", "more"}, "unexpected argument 'more'"},
	};
	struct values v;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		memset(&v, 0, sizeof(v));
		assert_int_equal(parse(&v, rows[i].words), 2);
		if (!strstr(printed, rows[i].says))
			fail_msg("row %zu: %s", i, printed);
	}
}

static void help_is_the_table(void **state)
{
	struct values v = {0};

	assert_int_equal(parse(&v, (const char *const[]){"--flag", "--help", "--number", "x", NULL}), 0);
	assert_string_equal(printed,
		"usage: program [options]\n\nAbout it.\n\n"
		"  --text DIR          one line\n"
		"                      and another\n"
		"  --flag              a flag\n"
		"  --number N          a number (default 7)\n"
		"  --kept N            the struct's own\n"
		"  --size SIZE         a size (default 4KiB)\n"
		"  --a-rather-long-option T a time (default 2s)\n"
		"  --even WORD         a word\n"
		"  --help, --version\n\nMore.\n");
	assert_int_equal(parse(&v, (const char *const[]){"--version", NULL}), 0);
	assert_string_equal(printed, "program " WD_VERSION "\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(values_land_where_the_table_says),
		cmocka_unit_test(a_mistake_is_named),
		cmocka_unit_test(help_is_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
