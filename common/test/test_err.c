/* SPDX-License-Identifier: Apache-2.0 */
/* The error on its way up: codes, texts, wrapping, and what happens without room. */
#include "common/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

static void a_set_error_has_code_and_text_and_returns_the_code(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(err.code, 0);
	assert_int_equal(wd_err_set(&err, ENOSPC, "store '%s'", "x"), -ENOSPC);
	assert_int_equal(err.code, ENOSPC);
	assert_string_equal(err.msg, "store 'x'");
}

static void a_system_error_ends_with_the_systems_words(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(wd_err_sys(&err, ENOENT, "open '%s'", "f"), -ENOENT);
	assert_string_equal(err.msg, "open 'f': No such file or directory");
}

static void wrapping_puts_the_meaning_before_the_cause(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	wd_err_set(&err, EIO, "HTTP 503");
	assert_int_equal(wd_err_wrap(&err, "fetch '%s'", "k"), -EIO);
	assert_int_equal(wd_err_wrap(&err, "mount"), -EIO);
	assert_string_equal(err.msg, "mount: fetch 'k': HTTP 503");
}

static void without_an_err_only_the_code_travels(void **state)
{
	assert_int_equal(wd_err_set(NULL, EPERM, "x"), -EPERM);
	assert_int_equal(wd_err_sys(NULL, EPERM, "x"), -EPERM);
	assert_true(wd_err_wrap(NULL, "x") < 0);
}

static void a_text_that_does_not_fit_is_cut_with_a_terminator(void **state)
{
	struct {
		struct wd_err err;
		char canary[8];
	} s = {.canary = "canary"};
	char longer[1000];

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	wd_err_set(&s.err, EIO, "%s", longer);
	assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
	wd_err_wrap(&s.err, "%s", longer);
	wd_err_sys(&s.err, EIO, "%s", longer);
	assert_int_equal(strlen(s.err.msg), sizeof(s.err.msg) - 1);
	wd_err_wrap(&s.err, "short");
	assert_memory_equal(s.err.msg, "short: xxx", 10);
	assert_string_equal(s.canary, "canary");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set_error_has_code_and_text_and_returns_the_code),
		cmocka_unit_test(a_system_error_ends_with_the_systems_words),
		cmocka_unit_test(wrapping_puts_the_meaning_before_the_cause),
		cmocka_unit_test(without_an_err_only_the_code_travels),
		cmocka_unit_test(a_text_that_does_not_fit_is_cut_with_a_terminator),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
