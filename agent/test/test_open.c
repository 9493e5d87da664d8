/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open files of a real agent: the test is its keeper and its FUSE server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mountmem.h"
#include "common/proto.h"

#define MOUNT 4711
#define SECONDS 120 /* against hanging for ever */

extern char **environ;

static struct {
	char dir[64];
	pid_t agent;
	int keeper, server, tables;
	struct wd_mm mm;
} f;

static struct wd_msg msg;

static void start_agent(void)
{
	char program[PATH_MAX], run[80], cache[80], path[96], byte;
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 64);
	char *const argv[] = {program, "--run-dir", run, "--cache-dir", cache, "--set", "http-listen=",
		"--ready-fd", "3", NULL};
	posix_spawn_file_actions_t actions;
	struct wd_err err = WD_ERR_INIT;
	int ready[2];

	assert_true(n > 0);
	program[n] = '\0';
	strcpy(strrchr(program, '/'), "/../bin/warpdrive-agent");
	snprintf(run, sizeof(run), "%s/run", f.dir);
	snprintf(cache, sizeof(cache), "%s/cache", f.dir);
	mkdir(run, 0755);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, ready[1], 3);
	assert_int_equal(posix_spawn(&f.agent, program, &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	snprintf(path, sizeof(path), "%s/agent.sock", run);
	f.keeper = wd_client_connect(path, WD_ROLE_KEEPER, &err);
	if (f.keeper < 0)
		fail_msg("%s", err.msg);
}

static void kill_agent(void)
{
	kill(f.agent, SIGKILL);
	waitpid(f.agent, NULL, 0);
	close(f.keeper);
	close(f.server);
}

/* The next message of this type; others mean nothing to this test. */
static void expect(int sock, unsigned type)
{
	do {
		wd_msg_close_fds(&msg);
		assert_true(wd_msg_recv(sock, &msg, 0) > 0);
	} while (msg.type != type);
}

static void add_mount(uint32_t flags)
{
	char description[200];
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	f.server = pair[0];
	snprintf(description, sizeof(description), "{\"url\":\"file://%s/data\",\"target\":\"/x\",\"options\":{}}",
		f.dir);
	wd_msg_start(&msg, WD_MSG_MOUNT_ADD, 1);
	wd_put_u64(&msg, MOUNT);
	wd_put_bytes(&msg, description, strlen(description));
	wd_put_str(&msg, "/x");
	wd_put_u32(&msg, flags);
	wd_put_fd(&msg, pair[1]);
	wd_put_fd(&msg, f.tables);
	assert_int_equal(wd_msg_send(f.keeper, &msg, 0), 0);
	msg.nfds = 0; /* lent, not given */
	close(pair[1]);
}

static void expect_mounted(void)
{
	expect(f.keeper, WD_MSG_MOUNT_ADD | WD_MSG_REPLY);
	assert_int_equal(msg.status, 0);
}

static int setup(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char path[96];
	int fd;

	alarm(SECONDS);
	strcpy(f.dir, "/tmp/wd-open-XXXXXX");
	assert_non_null(mkdtemp(f.dir));
	snprintf(path, sizeof(path), "%s/data", f.dir);
	mkdir(path, 0755);
	snprintf(path, sizeof(path), "%s/data/small", f.dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	assert_int_equal(write(fd, "0123456789", 10), 10);
	close(fd);
	f.tables = wd_mm_create(&err);
	assert_true(f.tables >= 0);
	assert_int_equal(wd_mm_map(f.tables, &f.mm, &err), 0);
	start_agent();
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	kill_agent();
	wd_msg_close_fds(&msg);
	wd_mm_unmap(&f.mm);
	close(f.tables);
	snprintf(command, sizeof(command), "rm -rf %s", f.dir);
	return system(command);
}

static uint64_t lookup_small(void)
{
	struct wd_attr attr;
	struct wd_rd r;

	wd_msg_start(&msg, WD_MSG_LOOKUP, 100);
	wd_put_u64(&msg, 1);
	wd_put_str(&msg, "small");
	assert_int_equal(wd_msg_send(f.server, &msg, 0), 0);
	expect(f.server, WD_MSG_LOOKUP | WD_MSG_REPLY);
	assert_int_equal(msg.status, 0);
	r = wd_rd_start(&msg);
	wd_rd_attr(&r, &attr);
	assert_true(wd_rd_done(&r));
	return attr.node;
}

static void send_node(unsigned type, uint64_t node, bool has_flags)
{
	wd_msg_start(&msg, (uint16_t)type, 200);
	wd_put_u64(&msg, node);
	if (has_flags)
		wd_put_u32(&msg, 0);
	assert_int_equal(wd_msg_send(f.server, &msg, 0), 0);
}

/* What was sent to the agent before this has been looked at. */
static void round_trip(void)
{
	wd_msg_start(&msg, WD_MSG_STATFS, 300);
	assert_int_equal(wd_msg_send(f.server, &msg, 0), 0);
	expect(f.server, WD_MSG_STATFS | WD_MSG_REPLY);
}

static void expect_closed(uint32_t id)
{
	struct wd_rd r;

	expect(f.keeper, WD_MSG_BACKING_CLOSE);
	r = wd_rd_start(&msg);
	assert_int_equal(wd_rd_u64(&r), MOUNT);
	assert_int_equal(wd_rd_u32(&r), id);
}

static void an_id_that_a_dead_agent_was_taking_back_is_closed_by_the_next(void **state)
{
	struct wd_mm_inode *inode;
	bool is_new;

	add_mount(0);
	expect_mounted();
	inode = wd_mm_claim(&f.mm, 1234, &is_new);
	assert_non_null(inode);
	atomic_store(&inode->backing_id, 77);
	kill_agent();
	atomic_store(&inode->state, WD_INO_RECLAIM); /* its last deed */
	start_agent();
	add_mount(WD_MOUNT_ADD_AGAIN);
	expect_closed(77);
	expect_mounted();
	assert_int_equal(atomic_load(&inode->state), WD_INO_GONE);
}

static void a_release_is_not_lost_while_the_file_is_being_opened(void **state)
{
	uint64_t node, request;

	add_mount(0);
	expect_mounted();
	node = lookup_small();
	send_node(WD_MSG_OPEN, node, true);
	expect(f.keeper, WD_MSG_BACKING_OPEN); /* it is small, so it was fetched whole */
	request = msg.id;
	send_node(WD_MSG_RELEASE, node, false);
	round_trip();
	wd_msg_start_reply(&msg, WD_MSG_BACKING_OPEN, request, 0);
	wd_put_u32(&msg, 99);
	assert_int_equal(wd_msg_send(f.keeper, &msg, 0), 0);
	expect(f.server, WD_MSG_OPEN | WD_MSG_REPLY);
	assert_int_equal(msg.status, 0);
	expect_closed(99);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			an_id_that_a_dead_agent_was_taking_back_is_closed_by_the_next, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_release_is_not_lost_while_the_file_is_being_opened, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
