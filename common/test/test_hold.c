/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The holder's table alone: a keeper of few words is played by the test, which keeps what was sent.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/hold.h"

#define SENT_MAX 64

static struct {
	struct wd_hold hold;
	struct {
		uint16_t type;
		uint64_t id;
		int32_t status;
	} sent[SENT_MAX];
	int nsent, ended[3];
	bool is_broken;
} t;

static struct wd_msg msg;

static int keep(void *arg, struct wd_msg *m)
{
	if (t.is_broken)
		return -EPIPE;
	assert_true(t.nsent < SENT_MAX);
	t.sent[t.nsent].type = m->type;
	t.sent[t.nsent].id = m->id;
	t.sent[t.nsent++].status = m->status;
	return 0;
}

static void on_end(void *arg, const struct wd_deposit *d, enum wd_hold_end why)
{
	t.ended[why]++;
}

static int setup(void **state)
{
	memset(&t, 0, sizeof(t));
	t.hold = (struct wd_hold){.send = keep, .on_end = on_end, .give_up_ns = 1000};
	return wd_hold_init(&t.hold);
}

static int teardown(void **state)
{
	wd_hold_done(&t.hold);
	return 0;
}

static int memfd(void)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
	return fd;
}

static void hold(uint64_t mount)
{
	struct wd_deposit d = {.mount = mount, .target = (char *)"/t", .dataset = (char *)"s"};
	int before = t.nsent;

	for (int i = 0; i < WD_DEPOSIT_FDS; i++)
		d.fds[i] = memfd();
	wd_deposit_write(&msg, WD_MSG_HOLD, &d); /* the table takes the fds */
	assert_true(wd_hold_message(&t.hold, &msg));
	wd_msg_close_fds(&msg);
	for (int i = before; i < t.nsent; i++)
		if (t.sent[i].type == (WD_MSG_HOLD | WD_MSG_REPLY) && t.sent[i].status == 0)
			return;
	fail_msg("a deposit was not confirmed");
}

static void reply(uint16_t type, uint64_t id, int status)
{
	wd_msg_start_reply(&msg, type, id, status);
	assert_true(wd_hold_message(&t.hold, &msg));
}

static int count_sent(uint16_t type)
{
	int n = 0;

	for (int i = 0; i < t.nsent; i++)
		n += t.sent[i].type == type;
	return n;
}

/* Connects anew, with 20 deposits. */
static void begin_with_20(void)
{
	wd_hold_begin(&t.hold);
	for (uint64_t i = 1; i <= 20; i++)
		hold(i);
	wd_hold_lost(&t.hold, 1);
	t.nsent = 0;
	wd_hold_begin(&t.hold);
}

static void offers_come_a_few_at_a_time_and_offered_last(void **state)
{
	begin_with_20();
	assert_true(t.nsent > 0 && t.nsent < 20);
	for (int i = 0; i < t.nsent; i++)
		if (t.sent[i].type == WD_MSG_OFFER)
			reply(WD_MSG_OFFER, t.sent[i].id, t.sent[i].id == 7 ? -ENOENT : 0);
	assert_int_equal(count_sent(WD_MSG_OFFER), 20);
	assert_int_equal(count_sent(WD_MSG_OFFERED), 1);
	assert_int_equal(t.sent[t.nsent - 1].type, WD_MSG_OFFERED);
	assert_int_equal(t.hold.count, 19);
	assert_int_equal(t.ended[WD_HOLD_GONE], 1);
	assert_false(wd_hold_has(&t.hold, 7));
}

/* While offers are unanswered the keeper deposits one of them, and ends another. */
static void offers_that_cross_the_keepers_words_are_settled(void **state)
{
	int before;

	begin_with_20();
	hold(t.sent[0].id);
	wd_msg_start(&msg, WD_MSG_UNHOLD, 0);
	wd_put_u64(&msg, t.sent[1].id);
	assert_true(wd_hold_message(&t.hold, &msg));
	before = t.hold.count;
	for (int i = 0; i < t.nsent; i++)
		if (t.sent[i].type == WD_MSG_OFFER)
			reply(WD_MSG_OFFER, t.sent[i].id, 0);
	assert_int_equal(before, 19);
	assert_int_equal(t.hold.count, 19);
	assert_int_equal(t.ended[WD_HOLD_UNHELD], 1);
	assert_int_equal(count_sent(WD_MSG_OFFERED), 1);
}

static void leave_is_asked_only_when_the_keeper_has_everything(void **state)
{
	assert_true(wd_hold_may_leave(&t.hold));
	wd_hold_begin(&t.hold);
	hold(1);
	assert_false(wd_hold_may_leave(&t.hold));
	wd_hold_leave(&t.hold);
	assert_int_equal(count_sent(WD_MSG_LEAVE), 0); /* not reconciled */
	reply(WD_MSG_OFFERED, 1, 0);
	assert_int_equal(count_sent(WD_MSG_LEAVE), 1);
	reply(WD_MSG_LEAVE, 1, -EBUSY);
	assert_false(wd_hold_may_leave(&t.hold));

	/* the next keeper does not take the mount: no leave from that one */
	wd_hold_lost(&t.hold, 1);
	wd_hold_begin(&t.hold);
	reply(WD_MSG_OFFER, 1, -ENOSPC);
	reply(WD_MSG_OFFERED, 1, 0);
	assert_int_equal(count_sent(WD_MSG_LEAVE), 1);

	wd_hold_lost(&t.hold, 1);
	wd_hold_begin(&t.hold);
	reply(WD_MSG_OFFER, 1, 0);
	reply(WD_MSG_OFFERED, 1, 0);
	assert_int_equal(count_sent(WD_MSG_LEAVE), 2);
	reply(WD_MSG_LEAVE, 1, 0);
	assert_true(wd_hold_may_leave(&t.hold));

	/* it is on its way out: a keeper that asks now must not count on it */
	wd_msg_start(&msg, WD_MSG_LEAVE, 9);
	assert_true(wd_hold_message(&t.hold, &msg));
	assert_int_equal(t.sent[t.nsent - 1].type, WD_MSG_LEAVE | WD_MSG_REPLY);
	assert_int_equal(t.sent[t.nsent - 1].status, -EBUSY);
}

static void malformed_messages_are_refused_and_leak_nothing(void **state)
{
	int fd = memfd();

	wd_hold_begin(&t.hold);
	wd_msg_start(&msg, WD_MSG_HOLD, 1);
	wd_put_u64(&msg, 1);
	wd_put_fd(&msg, fd);
	assert_false(wd_hold_message(&t.hold, &msg));
	wd_msg_close_fds(&msg);
	assert_int_equal(close(fd), -1); /* it stayed in the message */
	wd_msg_start(&msg, WD_MSG_UNHOLD, 1);
	assert_false(wd_hold_message(&t.hold, &msg));
	wd_msg_start(&msg, WD_MSG_LEAVE, 1);
	wd_put_u32(&msg, 1);
	assert_false(wd_hold_message(&t.hold, &msg));
	reply(WD_MSG_OFFER, 77, 0); /* of a mount that is not there */
	assert_int_equal(t.hold.count, 0);
}

static void a_mount_is_given_up_in_time_and_not_while_it_is_served(void **state)
{
	struct wd_deposit d = {.mount = 1, .target = (char *)"/t", .dataset = (char *)"s"};
	int up[2], status;
	pid_t pid;
	char c;

	assert_int_equal(pipe(up), 0);
	wd_hold_begin(&t.hold);
	for (int i = 0; i < WD_DEPOSIT_FDS; i++)
		d.fds[i] = memfd();
	wd_deposit_write(&msg, WD_MSG_HOLD, &d);
	assert_true(wd_hold_message(&t.hold, &msg));
	pid = fork();
	if (pid == 0) {
		c = wd_deposit_serve(d.fds[WD_DEPOSIT_TABLES]) == 0 ? 'y' : 'n';
		if (write(up[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(up[0], &c, 1), 1);
	assert_int_equal(c, 'y');
	assert_int_equal(wd_deposit_server(d.fds[WD_DEPOSIT_TABLES]), pid);
	assert_int_equal(wd_deposit_serve(d.fds[WD_DEPOSIT_TABLES]), -EAGAIN);
	assert_true(wd_hold_tick(&t.hold, INT64_MAX - 1) == INT64_MAX); /* connected */
	wd_hold_lost(&t.hold, 5000);
	assert_int_equal(wd_hold_tick(&t.hold, 5500), 6000);
	assert_true(wd_hold_tick(&t.hold, 6000) > 6000); /* a server has it */
	assert_int_equal(t.hold.count, 1);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(wd_hold_tick(&t.hold, 7000) == INT64_MAX);
	assert_int_equal(t.ended[WD_HOLD_GIVEN_UP], 1);
	assert_int_equal(close(d.fds[WD_DEPOSIT_FUSE]), -1);
	close(up[0]);
	close(up[1]);
}

static void a_description_is_believed_only_when_it_is_sealed(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	unsigned char *data = NULL;
	size_t len = 0;
	int fd = wd_description_make("secret", 6, &err), plain = memfd();

	assert_true(fd >= 0);
	assert_int_equal(wd_description_read(fd, &data, &len, &err), 0);
	assert_int_equal(len, 6);
	assert_string_equal((char *)data, "secret");
	free(data);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(wd_description_read(plain, &data, &len, &err), -EPROTO);
	close(fd);
	close(plain);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(offers_come_a_few_at_a_time_and_offered_last),
		TEST(offers_that_cross_the_keepers_words_are_settled),
		TEST(leave_is_asked_only_when_the_keeper_has_everything),
		TEST(malformed_messages_are_refused_and_leak_nothing),
		TEST(a_mount_is_given_up_in_time_and_not_while_it_is_served),
		TEST(a_description_is_believed_only_when_it_is_sealed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
