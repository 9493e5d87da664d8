/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starting private daemons: the real supervisor, copied to a directory where shell scripts lie beside
 * it in the daemons' place. The directory is in PATH, and the test's own has no warpdrive-ctl.
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
	char path[256], self[512], command[1024];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0 || !mkdtemp(dir))
		return -1;
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(command, sizeof(command), "cp %s/../bin/warpdrive-ctl %s/", self, dir);
	if (system(command) != 0)
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

/* A keeper that ends as an idle one does, when it is asked to; its pid is there when it can be. */
#define PATIENT                                                                                    \
	"trap 'exit 0' TERM; echo $$ >\"$2/$(basename $0).pid\"; echo >&3; exec 3>&-;\n"            \
	"while :; do sleep 0.02; done"

static int read_pid(const char *name, int other_than)
{
	char path[128];
	int pid = 0;

	snprintf(path, sizeof(path), "%s/%s.pid", run_dir, name);
	do {
		FILE *in = fopen(path, "re");

		if (!in || fscanf(in, "%d", &pid) != 1)
			pid = 0;
		if (in)
			fclose(in);
		if (pid == 0 || pid == other_than)
			usleep(2000);
	} while (pid == 0 || pid == other_than);
	return pid;
}

static void daemons_get_their_arguments_and_end_together(void **state)
{
	struct ctl_daemons d = {.run_dir = run_dir,
		.agent_args = {"--cache-dir", "/somewhere else"},
		.keeper_args = {NULL}};
	struct wd_err err = WD_ERR_INIT;
	char path[128], line[512];

	setenv("AWS_SECRET_ACCESS_KEY", "hush", 1);
	write_script("warpdrive-agent", "echo \"$*\" \"<$AWS_SECRET_ACCESS_KEY>\" >\"$2/args\"\n" PATIENT);
	write_script("warpdrive-keeper", PATIENT);
	assert_int_equal(start(&d, &err), 0);
	unsetenv("AWS_SECRET_ACCESS_KEY");
	assert_true(d.supervisor_pid > 0);

	int agent = read_pid("warpdrive-agent", 0), keeper = read_pid("warpdrive-keeper", 0);

	assert_int_equal(getsid(agent), agent);
	snprintf(path, sizeof(path), "%s/args", run_dir);

	FILE *in = fopen(path, "re");

	assert_non_null(in);
	assert_non_null(fgets(line, sizeof(line), in));
	fclose(in);
	assert_non_null(strstr(line, run_dir));
	assert_non_null(strstr(line, "--exit-when-idle --cache-dir /somewhere else --ready-fd 3"));
	assert_non_null(strstr(line, "<>"));
	kill(keeper, SIGTERM);
	ctl_daemons_done(&d, true); /* waits for the supervisor, which ends the agent */
	assert_int_equal(kill(agent, 0), -1);
	assert_int_equal(kill(keeper, 0), -1);
	snprintf(path, sizeof(path), "%s/supervisor.sock", run_dir);
	assert_int_equal(access(path, F_OK), -1);
}

static void what_is_killed_is_started_again(void **state)
{
	struct ctl_daemons d = {.run_dir = run_dir};
	struct wd_err err = WD_ERR_INIT;
	int agent, keeper;

	write_script("warpdrive-agent", PATIENT);
	write_script("warpdrive-keeper", PATIENT);
	assert_int_equal(start(&d, &err), 0);
	agent = read_pid("warpdrive-agent", 0);
	keeper = read_pid("warpdrive-keeper", 0);
	for (int i = 0; i < 5; i++) {
		kill(agent, SIGKILL);
		agent = read_pid("warpdrive-agent", agent);
		kill(keeper, SIGKILL);
		keeper = read_pid("warpdrive-keeper", keeper);
	}
	kill(keeper, SIGTERM);
	ctl_daemons_done(&d, true);
	assert_int_equal(kill(agent, 0), -1);
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
		cmocka_unit_test(daemons_get_their_arguments_and_end_together),
		cmocka_unit_test(what_is_killed_is_started_again),
		cmocka_unit_test(when_the_keeper_fails_the_agent_is_not_left_behind),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
