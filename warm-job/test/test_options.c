/* SPDX-License-Identifier: Apache-2.0 */
/* The parser of `mount -o`. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "warm-job/ctl_options.h"

static const char *value(json_t *options, const char *key)
{
	return json_string_value(json_object_get(options, key));
}

static void keys_and_flags_become_strings(void **state)
{
	json_t *options = json_object();
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(
		ctl_options_parse("region=eu-1,path-style,anonymous=false", options, &err), 0);
	assert_string_equal(value(options, "region"), "eu-1");
	assert_string_equal(value(options, "path-style"), "true");
	assert_true(ctl_options_flag(options, "path-style"));
	assert_false(ctl_options_flag(options, "anonymous"));
	assert_false(ctl_options_flag(options, "ro"));
	json_decref(options);
}

static void a_later_word_wins_and_empty_items_are_nothing(void **state)
{
	json_t *options = json_object();
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_options_parse(",uid=1,,uid=2,", options, &err), 0);
	assert_int_equal(ctl_options_parse("", options, &err), 0);
	assert_string_equal(value(options, "uid"), "2");
	assert_int_equal(json_object_size(options), 1);
	json_decref(options);
}

static void an_escaped_comma_belongs_to_the_value(void **state)
{
	json_t *options = json_object();
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_options_parse("index=a\\,b=c\\d,ro", options, &err), 0);
	assert_string_equal(value(options, "index"), "a,b=c\\d");
	assert_true(ctl_options_flag(options, "ro"));
	json_decref(options);
}

static void an_unknown_key_is_refused_by_name_with_the_known_ones(void **state)
{
	json_t *options = json_object();
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_options_parse("regoin=x", options, &err), -EINVAL);
	assert_non_null(strstr(err.msg, "'regoin'"));
	assert_non_null(strstr(err.msg, "region"));
	assert_non_null(strstr(err.msg, "no-passthrough"));
	json_decref(options);
}

static void a_missing_value_and_a_flag_with_one_are_refused(void **state)
{
	json_t *options = json_object();
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_options_parse("endpoint", options, &err), -EINVAL);
	assert_int_equal(ctl_options_parse("endpoint=", options, &err), -EINVAL);
	assert_int_equal(ctl_options_parse("ro=maybe", options, &err), -EINVAL);
	assert_int_equal(ctl_options_parse("region=\xff", options, &err), -EINVAL);
	assert_int_equal(json_object_size(options), 0);
	json_decref(options);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_and_flags_become_strings),
		cmocka_unit_test(a_later_word_wins_and_empty_items_are_nothing),
		cmocka_unit_test(an_escaped_comma_belongs_to_the_value),
		cmocka_unit_test(an_unknown_key_is_refused_by_name_with_the_known_ones),
		cmocka_unit_test(a_missing_value_and_a_flag_with_one_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
