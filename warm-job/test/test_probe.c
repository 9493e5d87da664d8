/* SPDX-License-Identifier: Apache-2.0 */
/* What stands behind a socket: nobody, a daemon, one that is ending. The daemons are child
 * processes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/proto.h"
#include "warm-job/ctl_probe.h"

static char dir[] = "/tmp/wd-probe-XXXXXX";
static char path[64];

static int setup(void **state)
{
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/agent.sock", dir);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static void answer_hello(int sock)
{
	static struct wd_msg m;

	if (wd_msg_recv(sock, &m, 0) != 1)
		return;
	wd_msg_start_reply(&m, WD_MSG_HELLO, m.id, 0);
	wd_put_u32(&m, WD_PROTO_VERSION);
	wd_put_str(&m, "test");
	wd_msg_send(sock, &m, 0);
}

/* A daemon that serves until it is killed; with `is_ending` it takes the first caller and leaves
 * instead. */
static pid_t start_daemon(bool is_ending)
{
	int ready[2];
	char byte;

	assert_int_equal(pipe(ready), 0);

	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		int listener = wd_listen(path, NULL);

		if (listener < 0 || write(ready[1], "1", 1) != 1)
			_exit(1);
		for (;;) {
			int sock = accept(listener, NULL, NULL);

			if (is_ending)
				_exit(0);
			answer_hello(sock);
			close(sock);
		}
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void nobody_is_there(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int pidfd = -1;

	assert_int_equal(ctl_probe(path, &pidfd, &err), 0);
	assert_int_equal(pidfd, -1);
}

static void a_daemon_answers_and_its_end_can_be_seen(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int pidfd = -1;
	pid_t pid = start_daemon(false);

	assert_int_equal(ctl_probe(path, &pidfd, &err), 1);
	if (pidfd >= 0) {
		siginfo_t info;

		kill(pid, SIGKILL);
		assert_int_equal(waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOWAIT), 0);
		close(pidfd);
	}
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void one_that_is_ending_is_waited_for(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int pidfd = -1;
	pid_t pid = start_daemon(true);

	assert_int_equal(ctl_probe(path, &pidfd, &err), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_is_there),
		cmocka_unit_test(a_daemon_answers_and_its_end_can_be_seen),
		cmocka_unit_test(one_that_is_ending_is_waited_for),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
