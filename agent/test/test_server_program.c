/* SPDX-License-Identifier: Apache-2.0 */
/* The server program: its forms, and that it runs from them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/server_program.h"
#include "common/fault.h"

static char dir[] = "/tmp/wd-program-XXXXXX";

static struct server_program *load(const char *path)
{
	struct settings s = {.run_dir = dir, .server_program = (char *)path};
	struct wd_err err = WD_ERR_INIT;
	struct server_program *p;

	if (server_program_load(&s, &p, &err) < 0)
		fail_msg("%s", err.msg);
	return p;
}

/* The exit status of the program, run from its descriptor. */
static int run(int fd)
{
	static char *const argv[] = {"program", NULL};
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		syscall(SYS_execveat, fd, "", argv, environ, 0x1000 /* AT_EMPTY_PATH */);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void it_is_a_sealed_memfd_that_runs(void **state)
{
	struct server_program *p = load("/bin/true"), *q = load("/bin/false");
	int fd = server_program_fd(p);

	assert_false(server_program_is_file(p));
	assert_int_equal(write(fd, "x", 1), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(run(fd), 0);
	assert_int_equal(run(server_program_fd(q)), 1);
	assert_int_equal(strlen(server_program_id(p)), 64);
	assert_string_not_equal(server_program_id(p), server_program_id(q));
	server_program_free(q);
	server_program_free(p);
}

#ifdef WD_FAULTS

static void where_memfds_cannot_be_executed_it_is_a_file_without_a_name(void **state)
{
	struct server_program *p, *q;
	struct stat st;

	q = load("/bin/true");
	wd_fault_arm("server-program.memfd=1");
	p = load("/bin/true");
	wd_fault_arm(NULL);
	assert_true(server_program_is_file(p));
	assert_int_equal(fstat(server_program_fd(p), &st), 0);
	assert_int_equal(st.st_nlink, 0);
	assert_int_equal(fcntl(server_program_fd(p), F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_string_equal(server_program_id(p), server_program_id(q));
	assert_int_equal(run(server_program_fd(p)), 0);
	server_program_free(p);
	server_program_free(q);
	assert_int_equal(rmdir(dir), 0); /* nothing was left there */
	assert_int_equal(mkdir(dir, 0700), 0);
}

#endif

static void none_is_brought_where_there_is_none(void **state)
{
	struct settings s = {.run_dir = dir, .server_program = "/nonexistent/warpdrive-fuse"};
	struct wd_err err = WD_ERR_INIT;
	struct server_program *p;

	assert_null(load("none"));
	assert_null(load("")); /* no warpdrive-fuse beside this test */
	server_program_offer(NULL, NULL);
	assert_int_equal(server_program_load(&s, &p, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "/nonexistent/warpdrive-fuse"));
	assert_null(p);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_a_sealed_memfd_that_runs),
#ifdef WD_FAULTS
		cmocka_unit_test(where_memfds_cannot_be_executed_it_is_a_file_without_a_name),
#endif
		cmocka_unit_test(none_is_brought_where_there_is_none),
	};
	int rc;

	if (!mkdtemp(dir))
		return 1;
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return rc;
}
