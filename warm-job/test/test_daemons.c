/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting private daemons, with shell scripts in PATH in their place: the test's own directory has
 * no warpdrive-agent beside it.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "warm-job/ctl_daemons.h"

static char dir[] = "/tmp/wd-daemons-XXXXXX";
static char run_dir[64];

static void write_script(const char *name, const char *body)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);

	FILE *out = fopen(path, "we");

	assert_non_null(out);
	fprintf(out, "#!/bin/sh\n%s\n", body);
	fclose(out);
	assert_int_equal(chmod(path, 0755), 0);
}

static int setup(void **state)
{
	char path[256];

	if (!mkdtemp(dir))
		return -1;
	snprintf(run_dir, sizeof(run_dir), "%s/run/deep", dir);
	snprintf(path, sizeof(path), "%s:%s", dir, getenv("PATH"));
	return setenv("PATH", path, 1);
}

static int teardown(void **state)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

/* As `mount` does: on failure nothing started here stays. */
static int start(struct ctl_daemons *d, struct wd_err *err)
{
	int r = ctl_daemons_lock(d, err);

	if (r == 0)
		r = ctl_daemons_start(d, err);
	if (r < 0)
		ctl_daemons_done(d, true);
	return r;
}

static void a_daemon_that_dies_is_quoted(void **state)
{
	struct ctl_daemons d = {.run_dir = run_dir};
	struct wd_err err = WD_ERR_INIT;

	write_script("warpdrive-agent",
		"echo '{\"level\":\"error\",\"msg\":\"cache /x: no space\"}' >&2\n"
		"echo '{\"level\":\"info\",\"msg\":\"bye\"}' >&2; exit 1");
	assert_int_equal(start(&d, &err), -ECHILD);
	assert_non_null(strstr(err.msg, "warpdrive-agent did not start: cache /x: no space"));
	assert_int_equal(d.lock_fd, -1);
}

static void a_daemon_that_dies_in_silence_is_told_by_its_exit_code(void **state)
{
	struct ctl_daemons d = {.run_dir = run_dir};
	struct wd_err err = WD_ERR_INIT;

	write_script("warpdrive-agent", "exit 7");
	assert_int_equal(start(&d, &err), -ECHILD);
	assert_non_null(strstr(err.msg, "exit code 7"));
	assert_non_null(strstr(err.msg, "agent.log"));
}

static void daemons_get_their_arguments_and_are_ended_on_request(void **state)
{
	struct ctl_daemons d = {.run_dir = run_dir,
		.agent_args = {"--cache-dir", "/somewhere else"},
		.keeper_args = {NULL}};
	struct wd_err err = WD_ERR_INIT;
	char path[128], line[512];

	write_script("warpdrive-agent",
		"echo \"$*\" >\"$2/args\"; echo >&3; exec 3>&-; exec sleep 1000");
	write_script("warpdrive-keeper", "echo >&3; exec 3>&-; exec sleep 1000");
	assert_int_equal(start(&d, &err), 0);
	assert_true(d.agent_pid > 0 && d.keeper_pid > 0);
	assert_int_equal(getsid(d.agent_pid), d.agent_pid);

	snprintf(path, sizeof(path), "%s/args", run_dir);

	FILE *in = fopen(path, "re");

	assert_non_null(in);
	assert_non_null(fgets(line, sizeof(line), in));
	fclose(in);
	assert_non_null(strstr(line, run_dir));
	assert_non_null(strstr(line, "--exit-when-idle --ready-fd 3 --cache-dir /somewhere else"));

	pid_t agent = d.agent_pid, keeper = d.keeper_pid;

	ctl_daemons_done(&d, true);
	assert_int_equal(kill(agent, 0), -1);
	assert_int_equal(kill(keeper, 0), -1);
}

static void when_the_keeper_fails_the_agent_is_not_left_behind(void **state)
{
	struct ctl_daemons d = {.run_dir = run_dir};
	struct wd_err err = WD_ERR_INIT;
	char path[128];
	int pid = 0;

	write_script(
		"warpdrive-agent", "echo $$ >\"$2/pid\"; echo >&3; exec 3>&-; exec sleep 1000");
	write_script("warpdrive-keeper", "echo 'not allowed here' >&2; exit 1");
	assert_int_equal(start(&d, &err), -ECHILD);
	assert_non_null(strstr(err.msg, "warpdrive-keeper did not start: not allowed here"));
	snprintf(path, sizeof(path), "%s/pid", run_dir);

	FILE *in = fopen(path, "re");

	assert_non_null(in);
	assert_int_equal(fscanf(in, "%d", &pid), 1);
	fclose(in);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_daemon_that_dies_is_quoted),
		cmocka_unit_test(a_daemon_that_dies_in_silence_is_told_by_its_exit_code),
		cmocka_unit_test(daemons_get_their_arguments_and_are_ended_on_request),
		cmocka_unit_test(when_the_keeper_fails_the_agent_is_not_left_behind),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
