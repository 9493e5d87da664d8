/* SPDX-License-Identifier: Apache-2.0 */
/* When `warm` shows something, and where: on a terminal, in a log, as JSON. The clock is the test's. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "warm-job/ctl_warm_show.h"

static const struct warm_sum some = {
	.files = 4, .files_done = 1, .files_failed = 1, .bytes = 400, .bytes_present = 100, .is_listed = true};

/* Shows progress every 100 ms for 10 s, a failure and the end; the texts are the caller's. */
static void play(enum warm_progress mode, char **ret_out, char **ret_log)
{
	size_t out_len, log_len;
	FILE *out = open_memstream(ret_out, &out_len), *log = open_memstream(ret_log, &log_len);
	struct warm_show s;

	warm_show_start(&s, mode, out, log, 0);
	for (int64_t now = 0; now <= 10000; now += 100)
		warm_show_progress(&s, &some, now);
	warm_show_failure(&s, "/data/x", EACCES, "HTTP 403");
	warm_show_failure(&s, "/data/x", EACCES, "HTTP 403"); /* as an agent tells again that was restarted */
	warm_show_end(&s, &some, WARM_END_PARTLY, 10000);
	fclose(out);
	fclose(log);
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	while ((text = strstr(text, what))) {
		n++;
		text++;
	}
	return n;
}

static void a_terminal_has_one_line_that_is_redrawn_and_taken_away(void **state)
{
	char *out, *log;

	setenv("COLUMNS", "80", 1);
	play(WARM_TTY, &out, &log);
	assert_int_equal(count(log, "\r["), 50);
	assert_int_equal(count(log, "\n"), 1); /* the failure's */
	assert_non_null(strstr(log, "\033[K\r\033[Kfailed: /data/x: HTTP 403\n"));
	assert_string_equal(out, "partly done: 1 of 4 files, 100 of 400 B are in the cache; 1 failed\n");
	free(out);
	free(log);
}

static void a_log_has_a_line_every_five_seconds(void **state)
{
	char *out, *log;

	play(WARM_PLAIN, &out, &log);
	assert_string_equal(log, "warm: 25%  1/4 files  100/400 B  1 failed\n"
				 "warm: 25%  1/4 files  100/400 B  1 failed\n"
				 "failed: /data/x: HTTP 403\n");
	assert_int_equal(count(out, "\n"), 1);
	free(out);
	free(log);
}

static void json_is_objects_and_nothing_else(void **state)
{
	char *out, *log, *save;
	size_t n = 0;

	play(WARM_JSON, &out, &log);
	assert_string_equal(log, "");
	for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save), n++) {
		json_t *object = json_loads(line, 0, NULL);

		assert_true(json_is_string(json_object_get(object, "event")));
		json_decref(object);
	}
	assert_int_equal(n, 10 + 2 + 1);
	free(out);
	free(log);
}

static void none_is_the_end_alone(void **state)
{
	char *out, *log;

	play(WARM_NONE, &out, &log);
	assert_string_equal(log, "failed: /data/x: HTTP 403\n");
	assert_int_equal(count(out, "\n"), 1);
	free(out);
	free(log);
}

static void what_is_no_terminal_gets_plain_lines(void **state)
{
	struct warm_show s;
	FILE *log = tmpfile();

	warm_show_start(&s, WARM_AUTO, log, log, 0);
	assert_int_equal(s.mode, WARM_PLAIN);
	fclose(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_terminal_has_one_line_that_is_redrawn_and_taken_away),
		cmocka_unit_test(a_log_has_a_line_every_five_seconds),
		cmocka_unit_test(json_is_objects_and_nothing_else),
		cmocka_unit_test(none_is_the_end_alone),
		cmocka_unit_test(what_is_no_terminal_gets_plain_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
