/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/mountinfo.h"

static void a_line_tells_device_target_and_type(void **state)
{
	struct mountinfo info;
	char target[PATH_MAX];

	assert_true(
		mountinfo_parse("36 35 98:7 /mnt1 /mnt/with\\040space\\134x rw,noatime shared:2 "
				"master:1 - ext3 /dev/root rw,errors=continue\n",
			&info, target));
	assert_int_equal(info.major, 98);
	assert_int_equal(info.minor, 7);
	assert_string_equal(info.type, "ext3");
	assert_string_equal(target, "/mnt/with space\\x");
	assert_int_equal(info.id, 36);
	assert_string_equal(info.root, "/mnt1");
	assert_true(
		mountinfo_parse("1 2 0:50 / /a ro - fuse.warpdrive s3://b/k rw", &info, target));
	assert_string_equal(info.type, "fuse.warpdrive");
}

static void a_line_tells_what_is_mounted(void **state)
{
	char source[PATH_MAX];

	assert_true(mountinfo_source("1 2 0:50 / /a ro shared:1 - fuse.warpdrive s3://b/a\\040b ro\n", source));
	assert_string_equal(source, "s3://b/a b");
	assert_false(mountinfo_source("1 2 0:50 / /a ro - fuse.warpdrive", source));
	assert_false(mountinfo_source("", source));
}

static void broken_lines_are_refused(void **state)
{
	static const char good[] = "36 35 98:7 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw\n";
	struct mountinfo info;
	char target[PATH_MAX], line[sizeof(good)];
	char *longer = malloc(3 * PATH_MAX);

	for (size_t len = 0; len < strlen("36 35 98:7 /mnt1 /mnt2 rw,noatime -"); len++) {
		memcpy(line, good, len);
		line[len] = '\0';
		assert_false(mountinfo_parse(line, &info, target));
	}
	strcpy(longer, "1 2 0:50 / /");
	memset(longer + 12, 'a', 2 * PATH_MAX);
	strcpy(longer + 12 + 2 * PATH_MAX, " rw - ext4 x rw");
	assert_false(mountinfo_parse(longer, &info, target));
	free(longer);
	assert_false(mountinfo_parse("", &info, target));
	assert_false(mountinfo_parse("a b c d e f - g", &info, target));
}

static void the_kernels_own_list_is_read(void **state)
{
	struct mountinfo info;

	assert_int_equal(mountinfo_find("/proc", &info, NULL), 1);
	assert_string_equal(info.type, "proc");
	assert_int_equal(mountinfo_find("/no such mount", &info, NULL), 0);
}

static void a_mount_is_found_by_its_id_and_by_its_device(void **state)
{
	struct mountinfo proc, info;
	char target[PATH_MAX];

	assert_int_equal(mountinfo_find("/proc", &proc, NULL), 1);
	assert_int_equal(mountinfo_find_id(proc.id, &info, target, NULL), 1);
	assert_string_equal(target, "/proc");
	assert_int_equal(mountinfo_find_id(UINT32_MAX, &info, target, NULL), 0);
	assert_int_equal(mountinfo_find_whole(proc.major, proc.minor, &info, target, NULL), 1);
	assert_string_equal(info.root, "/");
	assert_string_equal(info.type, "proc");
	assert_int_equal(mountinfo_find_whole(proc.major, UINT32_MAX, &info, target, NULL), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_tells_device_target_and_type),
		cmocka_unit_test(a_line_tells_what_is_mounted),
		cmocka_unit_test(broken_lines_are_refused),
		cmocka_unit_test(the_kernels_own_list_is_read),
		cmocka_unit_test(a_mount_is_found_by_its_id_and_by_its_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
