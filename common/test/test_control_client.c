/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client says where there is no volume; with one: fuse/test/test_control.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/control_client.h"

static void what_is_on_no_volume_has_no_control_file(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char below[PATH_MAX] = "untouched";

	assert_int_equal(wd_control_open("/proc/self/status", below, &err), -ENODEV);
	assert_non_null(strstr(err.msg, "is not on a volume of WarpDrive"));
	assert_int_equal(wd_control_open("/", below, &err), -ENODEV);
	assert_int_equal(wd_control_open("/proc/no such file", below, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "'/proc/no such file'"));
	assert_int_equal(wd_control_open("", below, &err), -ENOENT);
	assert_string_equal(below, "untouched");
}

static void another_file_takes_no_calls(void **state)
{
	static uint8_t data[WD_CONTROL_DATA_MAX + 1];
	struct wd_err err = WD_ERR_INIT;
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	size_t len = 42;

	assert_int_equal(wd_control_call(fd, "GetStatus", NULL, 0, data, &len, &err), -EOPNOTSUPP);
	assert_int_equal(wd_control_call(fd, "GetStatus", data, sizeof(data), data, &len, &err), -E2BIG);
	assert_int_equal(
		wd_control_call(fd, "GetStatusOfEverythingInThisWorld", data, 0, data, &len, &err), -E2BIG);
	close(fd);
	assert_int_equal(wd_control_call(fd, "GetStatus", NULL, 0, data, &len, &err), -EBADF);
	assert_int_equal(len, 42);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_on_no_volume_has_no_control_file),
		cmocka_unit_test(another_file_takes_no_calls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
