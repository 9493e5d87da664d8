/* SPDX-License-Identifier: Apache-2.0 */
/* Which objects the setting `pinned` means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/pins.h"
#include "common/fault.h"

static struct pins *make(const char *list)
{
	struct wd_err err = WD_ERR_INIT;
	struct pins *p;

	if (pins_new(list, &p, &err) < 0)
		fail_msg("%s", err.msg);
	return p;
}

static bool is_pinned(const char *list, const char *url, const char *key)
{
	struct pins *p = make(list);
	bool is = pins_match(p, url, key) != STORE_UNPINNED;

	pins_free(p);
	return is;
}

static void a_url_stands_for_itself_and_all_below_it(void **state)
{
	assert_true(is_pinned("s3://b", "s3://b", "any/key"));
	assert_true(is_pinned("s3://b/models", "s3://b", "models/a"));
	assert_true(is_pinned("s3://b/models/", "s3://b/", "models/a"));
	assert_true(is_pinned("s3://b/models", "s3://b/models", "a"));
	assert_true(is_pinned("s3://b/models", "s3://b/models/deep/", "a"));
	assert_true(is_pinned("s3://b/models/a", "s3://b/models", "a"));
	assert_true(is_pinned("s3://b/models/a", "s3://b/models", "a/b"));
	assert_true(is_pinned("s3://c, s3://d\n s3://b/models", "s3://b", "models/a/b"));
}

static void and_for_nothing_else(void **state)
{
	assert_false(is_pinned("", "s3://b", "a"));
	assert_false(is_pinned("s3://b/models", "s3://b", "models2/a"));
	assert_false(is_pinned("s3://b/models", "s3://b", "model"));
	assert_false(is_pinned("s3://b/models", "s3://b/models2", "a"));
	assert_false(is_pinned("s3://b/models", "s3://bb", "models/a"));
	assert_false(is_pinned("s3://bb", "s3://b", "b"));
	assert_false(is_pinned("s3://b/models/a", "s3://b/models", "ab"));
	assert_false(is_pinned("s3://b/models/a/b", "s3://b/models", "a"));
	assert_int_equal(pins_match(NULL, "s3://b", "a"), STORE_UNPINNED);
}

static void lists_are_told_apart(void **state)
{
	struct pins *a = make("s3://a"), *b = make("s3://b"), *none = make(" ,\n");

	assert_int_not_equal(pins_tag(a, STORE_PIN_SETTING), 0);
	assert_int_not_equal(pins_tag(a, STORE_PIN_SETTING), pins_tag(b, STORE_PIN_SETTING));
	assert_int_equal(pins_tag(none, STORE_PIN_SETTING), 0);
	assert_int_equal(pins_tag(NULL, STORE_PIN_SETTING), 0);
	pins_free(a);
	pins_free(b);
	pins_free(none);
}

static void what_is_no_url_is_refused_by_name(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct pins *p = NULL;

	assert_int_equal(pins_new("s3://a, models", &p, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "'models'"));
	assert_null(p);
}

/* ---- what is asked for ---- */

static char dir[] = "/tmp/wd-pins-XXXXXX";

static struct pins *open_in_dir(const char *setting)
{
	struct wd_err err = WD_ERR_INIT;
	struct pins *p = make(setting);

	if (pins_open(p, dir, &err) < 0)
		fail_msg("%s", err.msg);
	return p;
}

static void write_pins(const char *text)
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/pins", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int make_dir(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	char path[64];

	snprintf(path, sizeof(path), "%s/pins", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/pins.new", dir);
	unlink(path);
	return rmdir(dir);
}

static void rules_that_were_asked_for_outlive_the_agent(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct pins *p = open_in_dir("s3://set");
	uint16_t tag = pins_tag(p, STORE_PIN_ASKED);

	assert_int_equal(tag & 1, 0); /* those of settings are odd */
	assert_int_equal(pins_add(p, "s3://b/", "models/", &err), 0);
	assert_int_equal(pins_add(p, "s3://b", "models", &err), 0); /* the same */
	assert_int_equal(pins_add(p, "s3://b", "a b%\n/c", &err), 0);
	pins_free(p);
	p = open_in_dir("");
	assert_int_equal(pins_tag(p, STORE_PIN_ASKED), tag);
	assert_int_equal(pins_match(p, "s3://b/", "models/x"), STORE_PIN_ASKED);
	assert_int_equal(pins_match(p, "s3://b/", "a b%\n/c/d"), STORE_PIN_ASKED);
	assert_int_equal(pins_match(p, "s3://b/", "a b"), STORE_UNPINNED);
	assert_int_equal(pins_remove(p, "s3://b", "models", &err), 0);
	assert_int_equal(pins_tag(p, STORE_PIN_ASKED), tag); /* for the one that stays */
	assert_int_equal(pins_match(p, "s3://b/", "models/x"), STORE_UNPINNED);
	assert_int_equal(pins_remove(p, "s3://b", "a b%\n/c", &err), 0);
	assert_int_not_equal(pins_tag(p, STORE_PIN_ASKED), tag); /* no mark means anything any more */
	pins_free(p);
	p = open_in_dir("");
	assert_int_equal(pins_match(p, "s3://b/", "a b%\n/c"), STORE_UNPINNED);
	pins_free(p);
}

static void what_cannot_be_unpinned_is_said_why(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct pins *p = open_in_dir("s3://set/all");

	assert_int_equal(pins_remove(p, "s3://b", "x", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "not pinned"));
	assert_int_equal(pins_remove(p, "s3://set", "all/x", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "setting"));
	assert_int_equal(pins_add(p, "s3://b", "", &err), 0);
	assert_int_equal(pins_remove(p, "s3://b", "x", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "'s3://b'"));
	assert_int_equal(pins_remove(p, "s3://b", "", &err), 0);
	pins_free(p);
}

static void a_rule_that_cannot_be_kept_is_none(void **state)
{
#ifndef WD_FAULTS
	skip();
#endif
	struct wd_err err = WD_ERR_INIT;
	struct pins *p = open_in_dir("");

	wd_fault_arm("pins.write=1");
	assert_int_equal(pins_add(p, "s3://b", "x", &err), -EIO);
	wd_fault_arm(NULL);
	assert_int_equal(pins_match(p, "s3://b", "x"), STORE_UNPINNED);
	assert_int_equal(pins_add(p, "s3://b", "x", &err), 0);
	assert_int_equal(pins_remove(p, "s3://b", "x", &err), 0);
	pins_free(p);
}

static void rules_are_bounded_and_damaged_lines_left_out(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct pins *p;
	enum store_pin kind;

	write_pins("warpdrive-pins 1 20\ns3://a/x\nno url\ns3://b/%4\ns3://b/%41\ncut s3://c");
	p = open_in_dir("");
	assert_int_equal(pins_tag(p, STORE_PIN_ASKED), 20);
	assert_int_equal(pins_match(p, "s3://a", "x"), STORE_PIN_ASKED);
	assert_int_equal(pins_match(p, "s3://b", "A"), STORE_PIN_ASKED);
	assert_null(pins_rule(p, 2, &kind));
	pins_free(p);
	write_pins("something else\ns3://a/x\n");
	p = open_in_dir("");
	assert_null(pins_rule(p, 0, &kind));
	for (int i = 0; i < 3; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%d", i);
		assert_int_equal(pins_add(p, "s3://n", key, &err), 0);
	}
	pins_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_stands_for_itself_and_all_below_it),
		cmocka_unit_test(and_for_nothing_else),
		cmocka_unit_test(lists_are_told_apart),
		cmocka_unit_test(what_is_no_url_is_refused_by_name),
		cmocka_unit_test(rules_that_were_asked_for_outlive_the_agent),
		cmocka_unit_test(what_cannot_be_unpinned_is_said_why),
		cmocka_unit_test(a_rule_that_cannot_be_kept_is_none),
		cmocka_unit_test(rules_are_bounded_and_damaged_lines_left_out),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
