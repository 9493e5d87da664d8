/* SPDX-License-Identifier: Apache-2.0 */
/* Where the S3 keys come from. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "warm-job/ctl_credentials.h"

static char path[] = "/tmp/wd-credentials-XXXXXX";

static const char text[] = "# a comment\n"
			   "[default]\n"
			   "aws_access_key_id = AK1\n"
			   "  aws_secret_access_key=S/1+=\n"
			   "[ other ]\r\n"
			   "aws_access_key_id = AK2\r\n"
			   "aws_secret_access_key = S2\r\n"
			   "aws_session_token = T2\r\n"
			   "region = somewhere\n"
			   "[half]\n"
			   "aws_access_key_id = AK3\n";

static int setup(void **state)
{
	int fd = mkstemp(path);

	if (fd < 0 || write(fd, text, sizeof(text) - 1) != (ssize_t)sizeof(text) - 1)
		return -1;
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	return unlink(path);
}

static void clear_environment(void)
{
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	unsetenv("AWS_SESSION_TOKEN");
	unsetenv("AWS_PROFILE");
	setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
}

static void each_profile_has_its_own_keys(void **state)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_credentials_read(path, "default", &c, &err), 0);
	assert_string_equal(c.access_key, "AK1");
	assert_string_equal(c.secret_key, "S/1+=");
	assert_null(c.session_token);
	ctl_credentials_release(&c);

	assert_int_equal(ctl_credentials_read(path, "other", &c, &err), 0);
	assert_string_equal(c.access_key, "AK2");
	assert_string_equal(c.secret_key, "S2");
	assert_string_equal(c.session_token, "T2");
	ctl_credentials_release(&c);
}

static void a_missing_profile_and_half_a_profile_are_told_apart(void **state)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(ctl_credentials_read(path, "nobody", &c, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no profile 'nobody'"));
	assert_int_equal(ctl_credentials_read(path, "half", &c, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "aws_secret_access_key"));
	assert_null(strstr(err.msg, "AK3"));
}

static void the_environment_goes_before_the_file(void **state)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	struct wd_err err = WD_ERR_INIT;

	clear_environment();
	setenv("AWS_PROFILE", "other", 1);
	assert_int_equal(ctl_credentials_find(&c, &err), 0);
	assert_string_equal(c.access_key, "AK2");
	ctl_credentials_release(&c);

	setenv("AWS_ACCESS_KEY_ID", "AK-env", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "SE", 1);
	assert_int_equal(ctl_credentials_find(&c, &err), 0);
	assert_string_equal(c.access_key, "AK-env");
	assert_string_equal(c.secret_key, "SE");
	ctl_credentials_release(&c);
}

static void half_an_environment_is_an_error(void **state)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	struct wd_err err = WD_ERR_INIT;

	clear_environment();
	setenv("AWS_SECRET_ACCESS_KEY", "hush", 1);
	assert_int_equal(ctl_credentials_find(&c, &err), -ENOENT);
	assert_null(strstr(err.msg, "hush"));
}

static void having_none_says_how_to_give_some(void **state)
{
	struct ctl_credentials c = CTL_CREDENTIALS_INIT;
	struct wd_err err = WD_ERR_INIT;

	clear_environment();
	unsetenv("AWS_SHARED_CREDENTIALS_FILE");
	setenv("HOME", "/nonexistent", 1);
	assert_int_equal(ctl_credentials_find(&c, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "AWS_ACCESS_KEY_ID"));
	assert_non_null(strstr(err.msg, "anonymous"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_profile_has_its_own_keys),
		cmocka_unit_test(a_missing_profile_and_half_a_profile_are_told_apart),
		cmocka_unit_test(the_environment_goes_before_the_file),
		cmocka_unit_test(half_an_environment_is_an_error),
		cmocka_unit_test(having_none_says_how_to_give_some),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
