/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `warm`: what is taken, and that every mistake is told with exit code 2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "warm-job/ctl_warm_args.h"

static const struct ctl_command command = {.name = "warm", .arguments = "", .summary = "", .help = ""};

static bool parse(char **argv, struct warm_args *a, enum ctl_exit *ret_code)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return warm_args_parse(&command, argc, argv, a, ret_code);
}

#define PARSE(a, code, ...) parse((char *[]){"warm", __VA_ARGS__, NULL}, a, code)

static void options_may_stand_anywhere_and_paths_keep_their_order(void **state)
{
	struct warm_args a;
	enum ctl_exit code;

	assert_true(PARSE(&a, &code, "x", "--max-size", "1GiB", "y", "--bandwidth=2MiB", "--exclude=a", "--exclude=b",
		"--timeout=2m", "--run-dir=/r", "--progress=json", "--", "--z"));
	assert_int_equal(a.nplaces, 3);
	assert_string_equal(a.places[0], "x");
	assert_string_equal(a.places[1], "y");
	assert_string_equal(a.places[2], "--z");
	assert_int_equal(a.max_size, 1 << 30);
	assert_int_equal(a.bandwidth, 2 << 20);
	assert_int_equal(a.nexcludes, 2);
	assert_int_equal(a.timeout_ms, 120000);
	assert_string_equal(a.run_dir, "/r");
	assert_int_equal(a.progress, WARM_JSON);
	warm_args_done(&a);
}

static void the_last_of_wait_and_detach_counts(void **state)
{
	struct warm_args a;
	enum ctl_exit code;

	assert_true(PARSE(&a, &code, "x", "--detach", "--wait"));
	assert_false(a.detach);
	warm_args_done(&a);
	assert_true(PARSE(&a, &code, "x", "--wait", "--detach"));
	assert_true(a.detach);
	warm_args_done(&a);
}

static void a_list_and_a_task_need_no_path(void **state)
{
	struct warm_args a;
	enum ctl_exit code;

	assert_true(PARSE(&a, &code, "--list"));
	warm_args_done(&a);
	assert_true(PARSE(&a, &code, "--cancel", "7"));
	assert_int_equal(a.cancel, 7);
	warm_args_done(&a);
	assert_true(PARSE(&a, &code, "--cancel=18446744073709551615", "/data"));
	warm_args_done(&a);
	assert_true(PARSE(&a, &code, "--from-file", "-"));
	warm_args_done(&a);
}

static void mistakes_are_usage(void **state)
{
	static char *rows[][4] = {{NULL}, {"x", "--workers=0"}, {"x", "--workers=-1"}, {"x", "--workers=1025"},
		{"x", "--workers=7x"}, {"x", "--max-size=big"}, {"x", "--max-size=0"}, {"x", "--bandwidth=/s"},
		{"x", "--progress=loud"}, {"x", "--timeout=0"}, {"x", "--timeout=soon"}, {"--cancel=0"}, {"--cancel=x"},
		{"--list", "x", "y"}, {"--list", "--cancel=1"}, {"--cancel=1", "x", "y"}, {"--from-file=l", "x", "y"},
		{"x", "--nonsense"}, {"x", "--workers"}, {"x", "-q"}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct warm_args a;
		enum ctl_exit code;
		char *argv[] = {"warm", rows[i][0], rows[i][1], rows[i][2], NULL};

		assert_false(parse(argv, &a, &code));
		assert_int_equal(code, CTL_USAGE);
		warm_args_done(&a);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_may_stand_anywhere_and_paths_keep_their_order),
		cmocka_unit_test(the_last_of_wait_and_detach_counts),
		cmocka_unit_test(a_list_and_a_task_need_no_path),
		cmocka_unit_test(mistakes_are_usage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
