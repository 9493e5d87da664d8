/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets: echo, many senders, hostile packets, a peer that does not read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/hub.h"

struct fixture {
	char dir[32], path[64];
	struct hub *hub;
	pthread_t thread;
	_Atomic int closed;
	struct conn *_Atomic last;
};

/* Sends back what came, as a reply. */
static bool echo(void *arg, struct conn *c, struct wd_msg *m)
{
	struct fixture *f = arg;
	struct wd_rd r = wd_rd_start(m);
	uint64_t value = wd_rd_u64(&r);
	struct wd_msg *reply = hub_scratch();

	if (!wd_rd_done(&r))
		return false;
	atomic_store(&f->last, c);
	wd_msg_start_reply(reply, m->type, m->id, 0);
	wd_put_u64(reply, value);
	conn_send(c, reply);
	return true;
}

static void closed(void *arg, struct conn *c)
{
	struct fixture *f = arg;

	atomic_fetch_add(&f->closed, 1);
}

static void *run(void *arg)
{
	hub_run(arg);
	return NULL;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct wd_err err = WD_ERR_INIT;
	struct hub_handlers handlers = {.on_message = echo, .on_close = closed, .arg = f};

	strcpy(f->dir, "/tmp/wd-hub-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/sock", f->dir);
	assert_int_equal(hub_new(f->path, false, &handlers, &f->hub, &err), 0);
	pthread_create(&f->thread, NULL, run, f->hub);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	hub_stop(f->hub);
	pthread_join(f->thread, NULL);
	hub_free(f->hub);
	assert_int_equal(access(f->path, F_OK), -1);
	rmdir(f->dir);
	free(f);
	return 0;
}

static int join_hub(struct fixture *f)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	conn_unref(hub_add(f->hub, pair[0], 0, NULL));
	return pair[1];
}

static void a_request_is_answered_to_its_sender(void **state)
{
	struct fixture *f = *state;
	struct wd_msg *m = malloc(sizeof(*m));
	int fds[16];

	for (int i = 0; i < 16; i++)
		fds[i] = join_hub(f);
	for (int i = 0; i < 16; i++) {
		wd_msg_start(m, WD_MSG_STATFS, (uint64_t)i);
		wd_put_u64(m, (uint64_t)i * 1000);
		assert_int_equal(wd_msg_send(fds[i], m, 0), 0);
	}
	for (int i = 15; i >= 0; i--) {
		struct wd_rd r;

		assert_int_equal(wd_msg_recv(fds[i], m, 0), 1);
		assert_int_equal(m->id, i);
		r = wd_rd_start(m);
		assert_int_equal(wd_rd_u64(&r), i * 1000);
		close(fds[i]);
	}
	free(m);
}

static void ask(int fd, struct wd_msg *m, uint64_t id)
{
	wd_msg_start(m, WD_MSG_STATFS, id);
	wd_put_u64(m, id);
	assert_int_equal(wd_msg_send(fd, m, 0), 0);
	assert_int_equal(wd_msg_recv(fd, m, 0), 1);
	assert_int_equal(m->id, id);
}

/* A copy of a descriptor keeps what it stands for alive, and with it what epoll watches. */
static void a_connection_whose_descriptor_has_a_copy_is_closed_once(void **state)
{
	struct fixture *f = *state;
	struct wd_msg *m = malloc(sizeof(*m));
	int other = join_hub(f), pair[2], copy;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	copy = dup(pair[0]);
	conn_unref(hub_add(f->hub, pair[0], 0, NULL));
	ask(pair[1], m, 1);
	close(pair[1]);
	for (uint64_t i = 2; i < 200; i++) /* turns of the loop; the copy still hangs up in each */
		ask(other, m, i);
	assert_int_equal(atomic_load(&f->closed), 1);
	close(copy);
	close(other);
	free(m);
}

static void a_malformed_packet_drops_only_its_sender(void **state)
{
	struct fixture *f = *state;
	struct wd_msg *m = malloc(sizeof(*m));
	int good = join_hub(f), bad = join_hub(f), worse = join_hub(f);

	assert_int_equal(send(bad, "garbage", 7, 0), 7);
	assert_int_equal(wd_msg_recv(bad, m, 0), 0);
	wd_msg_start(m, WD_MSG_STATFS, 1); /* a well-formed packet with a body that is not */
	wd_put_u8(m, 1);
	assert_int_equal(wd_msg_send(worse, m, 0), 0);
	assert_int_equal(wd_msg_recv(worse, m, 0), 0);
	wd_msg_start(m, WD_MSG_STATFS, 2);
	wd_put_u64(m, 7);
	assert_int_equal(wd_msg_send(good, m, 0), 0);
	assert_int_equal(wd_msg_recv(good, m, 0), 1);
	assert_int_equal(m->id, 2);
	close(good);
	close(bad);
	close(worse);
	free(m);
}

static void a_slow_reader_gets_everything_in_order(void **state)
{
	struct fixture *f = *state;
	struct wd_msg *m = malloc(sizeof(*m));
	int fd = join_hub(f);
	uint64_t sent = 0, got = 0;

	/* more than the socket holds, less than the queue's bound; answers pile up at the hub */
	while (sent < 2000) {
		wd_msg_start(m, WD_MSG_STATFS, sent);
		wd_put_u64(m, sent);
		assert_int_equal(wd_msg_send(fd, m, 0), 0);
		sent++;
	}
	while (got < sent) {
		assert_int_equal(wd_msg_recv(fd, m, 0), 1);
		assert_int_equal(m->id, got);
		got++;
	}
	close(fd);
	free(m);
}

static void a_peer_that_never_reads_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct wd_msg *m = malloc(sizeof(*m));
	int fd = join_hub(f), rc = 0;

	for (uint64_t i = 0; i < 100000 && rc == 0; i++) {
		wd_msg_start(m, WD_MSG_STATFS, i);
		wd_put_u64(m, i);
		rc = wd_msg_send(fd, m, 0);
	}
	assert_int_equal(rc, -EPIPE);
	close(fd);
	free(m);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_request_is_answered_to_its_sender),
		T(a_connection_whose_descriptor_has_a_copy_is_closed_once),
		T(a_malformed_packet_drops_only_its_sender),
		T(a_slow_reader_gets_everything_in_order),
		T(a_peer_that_never_reads_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
