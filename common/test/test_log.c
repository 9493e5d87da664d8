/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines as a reader of stderr gets them, through a pipe. */
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char got[1 << 16];
static int pipe_fds[2], real_stderr;

static void capture(const char *format)
{
	setenv("WARPDRIVE_LOG_FORMAT", format, 1);
	wd_log_init("agent");
	wd_log_set_level(WD_LOG_INFO);
	assert_int_equal(pipe(pipe_fds), 0);
	real_stderr = dup(STDERR_FILENO);
	assert_int_equal(dup2(pipe_fds[1], STDERR_FILENO), STDERR_FILENO);
	close(pipe_fds[1]);
}

/* Ends the capture; the lines are in got. */
static void captured(void)
{
	size_t len = 0;
	ssize_t n;

	dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	while ((n = read(pipe_fds[0], got + len, sizeof(got) - 1 - len)) > 0)
		len += (size_t)n;
	got[len] = '\0';
	close(pipe_fds[0]);
}

static void json_lines_have_time_level_component_and_text(void **state)
{
	const char *rest;

	capture("json");
	wd_warn("disk %d is %s", 3, "full");
	captured();
	assert_memory_equal(got, "{\"time\":\"20", 11);
	rest = strstr(got, "Z\",");
	assert_non_null(rest);
	assert_int_equal(rest - got, strlen("{\"time\":\"2026-01-02T03:04:05.678"));
	assert_string_equal(rest,
		"Z\",\"level\":\"warn\",\"component\":\"agent\",\"msg\":\"disk 3 is full\"}\n");
}

static void text_lines_are_for_people(void **state)
{
	capture("text");
	wd_info("ready");
	captured();
	assert_non_null(strstr(got, "Z info  agent: ready\n"));
}

static void what_could_break_json_is_escaped(void **state)
{
	capture("json");
	wd_info("a\"b\\c\n1\t2\x1b[2J\x7f");
	captured();
	assert_non_null(strstr(got, "\"msg\":\"a\\\"b\\\\c\\u000a1\\u00092\\u001b[2J\\u007f\"}\n"));
	assert_null(strchr(got, 0x1b));
}

static void what_a_terminal_would_obey_is_escaped(void **state)
{
	capture("text");
	wd_info("x\n\x1b]0;y\xc2\x9bz");
	captured();
	assert_non_null(strstr(got, "agent: x\\x0a\\x1b]0;y\\xc2\\x9bz\n"));
}

static void utf8_passes_and_broken_utf8_does_not(void **state)
{
	capture("json");
	wd_info("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80");
	wd_info("\xff|\xc3|\xc0\x80|\xed\xa0\x80|\xe2\x82|\xf4\x90\x80\x80|\x80");
	captured();
	assert_non_null(strstr(got, "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\"}\n"));
	assert_non_null(
		strstr(got, "\"msg\":\"\\\\xff|\\\\xc3|\\\\xc0\\\\x80|\\\\xed\\\\xa0\\\\x80|"
			    "\\\\xe2\\\\x82|\\\\xf4\\\\x90\\\\x80\\\\x80|\\\\x80\"}\n"));
}

static void the_level_decides_what_is_written(void **state)
{
	capture("text");
	wd_debug("no %d", 1);
	wd_log_set_level(WD_LOG_DEBUG);
	wd_debug("yes");
	wd_log_set_level(WD_LOG_ERROR);
	wd_warn("no 2");
	wd_error("also");
	captured();
	assert_null(strstr(got, "no "));
	assert_non_null(strstr(got, "yes\n"));
	assert_non_null(strstr(got, "error agent: also\n"));
}

static void the_environment_sets_the_level(void **state)
{
	setenv("WARPDRIVE_LOG", "error", 1);
	wd_log_init("agent");
	assert_false(wd_log_enabled(WD_LOG_WARN));
	assert_true(wd_log_enabled(WD_LOG_ERROR));
	setenv("WARPDRIVE_LOG", "nonsense", 1);
	wd_log_init("agent");
	assert_false(wd_log_enabled(WD_LOG_WARN));
	unsetenv("WARPDRIVE_LOG");
}

static void errno_survives_a_log_line_that_cannot_be_written(void **state)
{
	int unwritable = open("/dev/null", O_RDONLY | O_CLOEXEC);

	capture("json");
	assert_int_equal(dup2(unwritable, STDERR_FILENO), STDERR_FILENO);
	errno = ENOTTY;
	wd_info("x");
	assert_int_equal(errno, ENOTTY);
	captured();
	close(unwritable);
}

static void a_long_line_is_cut_but_stays_one_valid_line(void **state)
{
	char longer[8000];
	size_t len;

	memset(longer, '\x01', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	capture("json");
	wd_info("%s", longer);
	captured();
	len = strlen(got);
	assert_true(len > 1000 && len <= PIPE_BUF);
	assert_string_equal(got + len - 3, "\"}\n");
	assert_string_equal(got + len - 9, "\\u0001\"}\n");
}

enum { WRITERS = 4, LINES_EACH = 20 };

static void *write_lines(void *arg)
{
	for (int i = 0; i < LINES_EACH; i++)
		wd_info("[%0400d]", i);
	return NULL;
}

static void lines_of_threads_do_not_mix(void **state)
{
	pthread_t threads[WRITERS];
	int lines = 0;

	capture("text");
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines, NULL), 0);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	captured();
	for (char *p = got, *end; *p; p = end + 1, lines++) {
		end = strchr(p, '\n');
		assert_non_null(end);
		assert_int_equal(end[-1], ']');
		assert_int_equal(*strchr(p, '['), end[-402]);
	}
	assert_int_equal(lines, WRITERS * LINES_EACH);
}

static void last_warnings_are_kept_the_newest_first(void **state)
{
	static struct wd_log_line lines[WD_LOG_KEPT];
	char text[2000];

	capture("json");
	wd_warn("before");
	assert_int_equal(wd_log_recent(lines), 0);
	wd_log_keep();
	for (int i = 0; i < 100; i++) {
		wd_info("info %d", i);
		wd_log(i % 2 ? WD_LOG_WARN : WD_LOG_ERROR, "line %d", i);
	}
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	wd_error("%s", text);
	captured();
	assert_int_equal(wd_log_recent(lines), WD_LOG_KEPT);
	assert_int_equal(strlen(lines[0].text), sizeof(lines[0].text) - 1);
	assert_string_equal(lines[1].text, "line 99");
	assert_int_equal(lines[1].level, WD_LOG_WARN);
	assert_string_equal(lines[2].text, "line 98");
	assert_int_equal(lines[2].level, WD_LOG_ERROR);
	assert_true(lines[1].at_s > 1700000000);
	assert_string_equal(lines[WD_LOG_KEPT - 1].text, "line 69");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_lines_have_time_level_component_and_text),
		cmocka_unit_test(text_lines_are_for_people),
		cmocka_unit_test(what_could_break_json_is_escaped),
		cmocka_unit_test(what_a_terminal_would_obey_is_escaped),
		cmocka_unit_test(utf8_passes_and_broken_utf8_does_not),
		cmocka_unit_test(the_level_decides_what_is_written),
		cmocka_unit_test(the_environment_sets_the_level),
		cmocka_unit_test(errno_survives_a_log_line_that_cannot_be_written),
		cmocka_unit_test(a_long_line_is_cut_but_stays_one_valid_line),
		cmocka_unit_test(lines_of_threads_do_not_mix),
		cmocka_unit_test(last_warnings_are_kept_the_newest_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
