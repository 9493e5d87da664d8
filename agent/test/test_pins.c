/* SPDX-License-Identifier: Apache-2.0 */
/* Which objects the setting `pinned` means. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "agent/pins.h"

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
	bool is = pins_match(p, url, key);

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
	assert_false(pins_match(NULL, "s3://b", "a"));
}

static void lists_are_told_apart(void **state)
{
	struct pins *a = make("s3://a"), *b = make("s3://b"), *none = make(" ,\n");

	assert_int_not_equal(pins_tag(a), 0);
	assert_int_not_equal(pins_tag(a), pins_tag(b));
	assert_int_equal(pins_tag(none), 0);
	assert_int_equal(pins_tag(NULL), 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_url_stands_for_itself_and_all_below_it),
		cmocka_unit_test(and_for_nothing_else),
		cmocka_unit_test(lists_are_told_apart),
		cmocka_unit_test(what_is_no_url_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
