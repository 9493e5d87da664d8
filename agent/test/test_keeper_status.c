/* SPDX-License-Identifier: Apache-2.0 */
/* KEEPER_STATUS asked of the agent: it is the keeper's answer that comes back, however it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agent/keeper_link.h"
#include "agent/test/agent_fixture.h"

#define SAID "{\"version\":\"7\",\"mounts\":[]}"

static struct rig rig;
static struct wd_msg msg;

static int start(void **state)
{
	rig_start(&rig, NULL);
	return 0;
}

static int stop(void **state)
{
	rig_stop(&rig);
	return 0;
}

static int connect_agent(void)
{
	struct wd_err err = WD_ERR_INIT;
	char path[128];
	int sock;

	snprintf(path, sizeof(path), "%s/run/agent.sock", rig.dir);
	sock = wd_client_connect(path, WD_ROLE_CTL, &err);
	assert_true(sock >= 0);
	return sock;
}

static void send_question(int sock, uint64_t id)
{
	wd_msg_start(&msg, WD_MSG_KEEPER_STATUS, id);
	assert_int_equal(wd_msg_send(sock, &msg, 0), 0);
}

/* The next answer; its text is in ret_text. */
static int take_answer(int sock, uint64_t id, char ret_text[300])
{
	struct wd_rd r;
	int fd, status;

	assert_int_equal(wd_msg_recv(sock, &msg, 0), 1);
	assert_int_equal(msg.type, WD_MSG_KEEPER_STATUS | WD_MSG_REPLY);
	assert_int_equal(msg.id, id);
	status = msg.status;
	r = wd_rd_start(&msg);
	fd = wd_msg_take_fd(&msg, 0);
	memset(ret_text, 0, 300);
	if (status < 0)
		assert_true(wd_rd_str(&r, ret_text, 300));
	else
		assert_true(pread(fd, ret_text, 299, 0) > 0);
	if (fd >= 0)
		close(fd);
	return status;
}

static void set_keeper(int mode)
{
	wd_lock(&rig.lock);
	rig.status_mode = mode;
	wd_unlock(&rig.lock);
}

static void the_keepers_answer_comes_back(void **state)
{
	int sock = connect_agent();
	char text[300];

	set_keeper(0);
	send_question(sock, 5);
	assert_int_equal(take_answer(sock, 5, text), 0);
	assert_string_equal(text, SAID);
	close(sock);
}

static void so_does_its_refusal(void **state)
{
	int sock = connect_agent();
	char text[300];

	set_keeper(-EIO);
	send_question(sock, 6);
	assert_int_equal(take_answer(sock, 6, text), -EIO);
	assert_string_equal(text, "not now");
	close(sock);
}

/* A keeper that is stopped: the agent remembers so many questions, and answers them when it goes. */
static void questions_that_a_keeper_leaves_unanswered_are_bounded(void **state)
{
	int sock = connect_agent();
	char text[300];

	set_keeper(1);
	for (uint64_t i = 1; i <= KEEPER_STATUS_MAX + 1; i++)
		send_question(sock, i);
	assert_int_equal(take_answer(sock, KEEPER_STATUS_MAX + 1, text), -EBUSY);
	assert_non_null(strstr(text, "does not answer"));
	shutdown(rig.keeper, SHUT_RDWR);
	for (uint64_t n = 0; n < KEEPER_STATUS_MAX; n++) {
		assert_int_equal(wd_msg_recv(sock, &msg, 0), 1);
		assert_int_equal(msg.status, -EAGAIN);
	}
	/* now there is none */
	send_question(sock, 99);
	assert_int_equal(take_answer(sock, 99, text), -EAGAIN);
	assert_non_null(strstr(text, "no keeper"));
	rig_reconnect_keeper(&rig);
	set_keeper(0);
	do { /* until the agent has heard its hello */
		send_question(sock, 100);
	} while (take_answer(sock, 100, text) == -EAGAIN);
	assert_string_equal(text, SAID);
	close(sock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_keepers_answer_comes_back),
		cmocka_unit_test(so_does_its_refusal),
		cmocka_unit_test(questions_that_a_keeper_leaves_unanswered_are_bounded),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
