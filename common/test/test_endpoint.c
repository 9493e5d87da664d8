/* SPDX-License-Identifier: Apache-2.0 */
/* The client that calls and waits, and the listener's socket file. */
#include "common/proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "common/test/sockets.h"

static struct wd_msg msg;

/* ---- the client ---- */

/* Answers what comes with the replies that the test laid out. */
struct peer {
	int sock;
	pthread_t thread;
	void (*serve)(int sock, struct wd_msg *m);
};

static void *peer_main(void *arg)
{
	struct peer *p = arg;
	struct wd_msg *m = malloc(sizeof(*m));

	if (m)
		p->serve(p->sock, m);
	free(m);
	close(p->sock);
	return NULL;
}

static int start_peer(struct peer *p, void (*serve)(int, struct wd_msg *))
{
	int sv[2];

	make_pair(sv);
	p->sock = sv[1];
	p->serve = serve;
	assert_int_equal(pthread_create(&p->thread, NULL, peer_main, p), 0);
	return sv[0];
}

static void stop_peer(struct peer *p, int sock)
{
	close(sock);
	pthread_join(p->thread, NULL);
}

static void serve_echo(int sock, struct wd_msg *m)
{
	while (wd_msg_recv(sock, m, 0) == 1) {
		uint64_t id = m->id;
		uint16_t type = m->type;

		wd_msg_close_fds(m);
		wd_msg_start_reply(m, type, id - 1, 0); /* a late answer to something older */
		wd_put_fd(m, sock);
		wd_msg_send(sock, m, 0);
		wd_msg_start_reply(m, type, id, 0);
		wd_put_str(m, "pong");
		wd_put_fd(m, sock);
		wd_msg_send(sock, m, 0);
	}
}

static void a_call_returns_its_own_reply_with_descriptors(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int before = open_fds();
	struct peer p;
	char text[8];
	struct wd_rd r;
	int sock = start_peer(&p, serve_echo);

	wd_msg_start(&msg, WD_MSG_STATUS, 42);
	wd_put_fd(&msg, 0);
	assert_int_equal(wd_client_call(sock, &msg, 60000, &err), 0);
	assert_int_equal(msg.id, 42);
	assert_int_equal(msg.nfds, 1);
	r = wd_rd_start(&msg);
	assert_true(wd_rd_str(&r, text, sizeof(text)) && wd_rd_done(&r));
	assert_string_equal(text, "pong");
	wd_msg_close_fds(&msg);
	assert_true(fcntl(0, F_GETFD) >= 0); /* the request's fd was only borrowed */
	stop_peer(&p, sock);
	assert_int_equal(open_fds(), before);
}

static void serve_refusal(int sock, struct wd_msg *m)
{
	wd_msg_recv(sock, m, 0);
	wd_msg_start_reply(m, m->type, m->id, -EACCES);
	wd_put_str(m, "bucket 'b' is not allowed here");
	wd_put_fd(m, sock);
	wd_msg_send(sock, m, 0);
	wd_msg_recv(sock, m, 0);
	wd_msg_start_reply(m, m->type, m->id, -ENOENT);
	wd_put_u32(m, 5000); /* the one refusal whose body is no text */
	wd_msg_send(sock, m, 0);
}

static void a_refusal_carries_its_code_and_reason(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int before = open_fds();
	struct peer p;
	int sock = start_peer(&p, serve_refusal);

	wd_msg_start(&msg, WD_MSG_MOUNT, 1);
	assert_int_equal(wd_client_call(sock, &msg, -1, &err), -EACCES);
	assert_int_equal(err.code, EACCES);
	assert_string_equal(err.msg, "bucket 'b' is not allowed here");
	wd_msg_start(&msg, WD_MSG_LOOKUP, 2);
	assert_int_equal(wd_client_call(sock, &msg, -1, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "No such file"));
	stop_peer(&p, sock);
	assert_int_equal(open_fds(), before);
}

static void serve_nothing(int sock, struct wd_msg *m)
{
	wd_msg_recv(sock, m, 0);
	wd_msg_close_fds(m);
	wd_msg_recv(sock, m, 0); /* until the test closes its end */
}

static void a_call_gives_up_after_its_timeout(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct peer p;
	int sock = start_peer(&p, serve_nothing);

	wd_msg_start(&msg, WD_MSG_STATUS, 1);
	wd_put_fd(&msg, 0);
	assert_int_equal(wd_client_call(sock, &msg, 30, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.msg, "30 ms"));
	assert_int_equal(msg.nfds, 0); /* wd_msg_close_fds would close the caller's */
	stop_peer(&p, sock);
}

static void a_call_to_a_peer_that_does_not_read_gives_up_too(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int sv[2];

	make_pair(sv);
	wd_msg_start(&msg, WD_MSG_STATUS, 1);
	while (wd_msg_send(sv[0], &msg, MSG_DONTWAIT) == 0)
		;
	wd_put_fd(&msg, STDIN_FILENO);
	assert_int_equal(wd_client_call(sv[0], &msg, 20, &err), -ETIMEDOUT);
	assert_int_equal(msg.nfds, 0);
	close_pair(sv);
}

static void serve_hangup(int sock, struct wd_msg *m)
{
	wd_msg_recv(sock, m, 0);
}

static void a_call_that_is_hung_up_on_says_so(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct peer p;
	int sock = start_peer(&p, serve_hangup);

	wd_msg_start(&msg, WD_MSG_STATUS, 1);
	assert_int_equal(wd_client_call(sock, &msg, -1, &err), -ECONNRESET);
	assert_non_null(strstr(err.msg, "closed the connection"));
	stop_peer(&p, sock);
}

/* ---- the listener ---- */

static char dir[64], path[96];

static int make_dir(void **state)
{
	snprintf(dir, sizeof(dir), "/tmp/wd-proto-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/agent.sock", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir); /* fails when a private name was left behind */
}

struct host {
	int listener;
	uint32_t version;
	int hellos, refusals; /* that are awaited; the first of them that are refused */
	pthread_t thread;
};

static void host_one(struct host *h)
{
	wd_autoclose int sock = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
	wd_autofree struct wd_msg *m = malloc(sizeof(*m));
	bool is_refusing = h->refusals-- > 0;

	if (sock < 0 || !m || wd_msg_recv(sock, m, 0) != 1 || m->type != WD_MSG_HELLO)
		return;
	wd_msg_start_reply(m, WD_MSG_HELLO, m->id, is_refusing ? -EPROTO : 0);
	if (!is_refusing)
		wd_put_u32(m, h->version);
	wd_put_str(m, is_refusing ? "too new" : "9.9.9");
	wd_msg_send(sock, m, 0);
}

static void *host_main(void *arg)
{
	struct host *h = arg;

	for (int i = h->hellos; i > 0; i--)
		host_one(h);
	return NULL;
}

static int connect_to_refusing(uint32_t version, int hellos, int refusals, struct wd_err *err)
{
	struct host h = {.listener = wd_listen(path, err),
		.version = version,
		.hellos = hellos,
		.refusals = refusals};
	int sock;

	assert_true(h.listener >= 0);
	assert_int_equal(pthread_create(&h.thread, NULL, host_main, &h), 0);
	sock = wd_client_connect(path, WD_ROLE_CTL, err);
	pthread_join(h.thread, NULL);
	close(h.listener);
	return sock;
}

static int connect_to_version(uint32_t version, struct wd_err *err)
{
	return connect_to_refusing(version, 1, 0, err);
}

static void a_client_connects_and_says_hello(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int sock = connect_to_version(WD_PROTO_VERSION, &err);

	assert_true(sock >= 0);
	assert_int_equal(fcntl(sock, F_GETFD), FD_CLOEXEC);
	close(sock);
}

static void another_protocol_version_is_refused_with_both_named(void **state)
{
	struct wd_err err = WD_ERR_INIT;

	assert_int_equal(connect_to_version(WD_PROTO_VERSION + 1, &err), -EPROTONOSUPPORT);
	assert_non_null(strstr(err.msg, "9.9.9"));
	assert_non_null(strstr(err.msg, WD_VERSION));
	assert_non_null(strstr(err.msg, path));
}

/* A listener that knows only the version before refuses the first hello. */
static void the_version_before_is_spoken_with_who_knows_no_other(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int sock;

	if (WD_PROTO_VERSION == WD_PROTO_OLDEST)
		skip();
	sock = connect_to_refusing(WD_PROTO_VERSION - 1, 2, 1, &err);
	assert_true(sock >= 0);
	close(sock);
	sock = connect_to_version(WD_PROTO_OLDEST, &err); /* it may also answer with its own */
	assert_true(sock >= 0);
	close(sock);
	assert_int_equal(connect_to_refusing(WD_PROTO_VERSION - 1, 2, 2, &err), -EPROTO);
	assert_non_null(strstr(err.msg, "too new"));
}

static void the_lower_version_of_both_is_spoken(void **state)
{
	assert_int_equal(wd_proto_common(WD_PROTO_VERSION), WD_PROTO_VERSION);
	assert_int_equal(wd_proto_common(WD_PROTO_OLDEST), WD_PROTO_OLDEST);
	assert_int_equal(wd_proto_common(0), 0);
#ifndef WD_PREVIOUS_FORMATS
	assert_int_equal(wd_proto_common(WD_PROTO_VERSION + 1), WD_PROTO_VERSION);
#endif
}

static void connecting_to_nobody_names_the_path_and_the_remedy(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char other[128];

	assert_int_equal(wd_client_connect(path, WD_ROLE_CTL, &err), -ENOENT);
	assert_non_null(strstr(err.msg, path));
	assert_non_null(strstr(err.msg, "is warpdrive-agent running?"));
	snprintf(other, sizeof(other), "%s/keeper.sock", dir);
	assert_int_equal(wd_client_connect(other, WD_ROLE_CTL, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "is warpdrive-keeper running?"));
}

static void a_path_too_long_for_a_socket_is_refused(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char longer[256];

	snprintf(longer, sizeof(longer), "%s/%0150d", dir, 1);
	assert_int_equal(wd_listen(longer, &err), -ENAMETOOLONG);
	assert_int_equal(wd_client_connect(longer, WD_ROLE_CTL, &err), -ENAMETOOLONG);
	assert_int_equal(wd_listen("", &err), -EINVAL);
}

static void a_listener_is_for_its_owner_only_and_leaves_umask_alone(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	mode_t mask = umask(0);
	int sock = wd_listen(path, &err);
	struct stat st;

	assert_true(sock >= 0);
	assert_int_equal(umask(mask), 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	assert_int_equal(fcntl(sock, F_GETFD), FD_CLOEXEC);
	close(sock);
}

static void a_listener_for_its_group_too_says_so(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int sock = wd_listen_for_group(path, &err);
	struct stat st;

	assert_true(sock >= 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0660);
	close(sock);
}

static void a_stale_socket_is_replaced_and_a_live_one_is_not(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int first = wd_listen(path, &err), second;

	assert_true(first >= 0);
	assert_int_equal(wd_listen(path, &err), -EADDRINUSE);
	assert_non_null(strstr(err.msg, path));
	close(first);
	second = wd_listen(path, &err);
	assert_true(second >= 0);
	close(second);
}

static void a_live_listener_with_a_full_queue_is_still_alive(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	int listener = wd_listen(path, &err), clients[300], n = 0;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	assert_true(listener >= 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	for (; n < 300; n++) {
		clients[n] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(clients[n], (struct sockaddr *)&addr, sizeof(addr)) < 0)
			break;
	}
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(wd_listen(path, &err), -EADDRINUSE);
	for (int i = 0; i <= n; i++)
		close(clients[i]);
	close(listener);
}

static void what_is_no_socket_is_never_removed(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	char fresh[128];
	struct stat st;
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(wd_listen(path, &err), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	unlink(path);

	assert_int_equal(symlink("/nowhere", path), 0);
	assert_int_equal(wd_listen(path, &err), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	unlink(path);

	snprintf(fresh, sizeof(fresh), "%s.new", path);
	assert_int_equal(mkdir(fresh, 0700), 0);
	assert_int_equal(wd_listen(path, &err), -EADDRINUSE);
	assert_int_equal(rmdir(fresh), 0);
}

static void a_starter_killed_before_the_rename_does_not_stop_the_next(void **state)
{
	struct wd_err err = WD_ERR_INIT;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int dead = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), sock;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s.new", path);
	assert_int_equal(bind(dead, (struct sockaddr *)&addr, sizeof(addr)), 0);
	close(dead);
	sock = wd_listen(path, &err);
	assert_true(sock >= 0);
	close(sock);
}

static pthread_barrier_t all_here;

static void *listen_main(void *arg)
{
	pthread_barrier_wait(&all_here);
	return (void *)(intptr_t)wd_listen(path, NULL);
}

static void of_many_starters_exactly_one_listens(void **state)
{
	enum { STARTERS = 8, ROUNDS = 30 };
	pthread_t threads[STARTERS];

	pthread_barrier_init(&all_here, NULL, STARTERS);
	for (int round = 0; round < ROUNDS; round++) {
		int winners = 0, sock = -1;

		for (int i = 0; i < STARTERS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, listen_main, NULL), 0);
		for (int i = 0; i < STARTERS; i++) {
			void *fd;

			pthread_join(threads[i], &fd);
			if ((intptr_t)fd >= 0) {
				winners++;
				sock = (int)(intptr_t)fd;
			} else {
				assert_int_equal((intptr_t)fd, -EADDRINUSE);
			}
		}
		assert_int_equal(winners, 1);
		close(sock); /* stale now: the next round replaces it */
	}
	pthread_barrier_destroy(&all_here);
}

struct starter {
	pthread_t thread;
	atomic_bool is_done;
	int rc;
};

static void *start_listening(void *arg)
{
	struct starter *s = arg;

	s->rc = wd_listen(path, NULL);
	s->is_done = true;
	return NULL;
}

/* True when somebody waits for a lock on the file of that number. */
static bool has_waiter(ino_t ino)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256], want[32];
	bool found = false;

	assert_non_null(f);
	snprintf(want, sizeof(want), ":%ju ", (uintmax_t)ino);
	while (fgets(line, sizeof(line), f))
		found |= strstr(line, "-> FLOCK") && strstr(line, want);
	fclose(f);
	return found;
}

static void a_starter_looks_again_after_it_waited_for_another(void **state)
{
	int held = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), sock;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct starter s = {.rc = 0};
	struct stat st;

	assert_true(held >= 0);
	assert_int_equal(fstat(held, &st), 0);
	assert_int_equal(flock(held, LOCK_EX), 0);
	assert_int_equal(pthread_create(&s.thread, NULL, start_listening, &s), 0);
	while (!s.is_done && !has_waiter(st.st_ino))
		sched_yield();
	assert_false(s.is_done);
	/* the one that holds the lock gets there first */
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(sock, 1), 0);
	close(held);
	pthread_join(s.thread, NULL);
	assert_int_equal(s.rc, -EADDRINUSE);
	close(sock);
}

#define WITH_DIR(f) cmocka_unit_test_setup_teardown(f, make_dir, remove_dir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_call_returns_its_own_reply_with_descriptors),
		cmocka_unit_test(a_refusal_carries_its_code_and_reason),
		cmocka_unit_test(a_call_gives_up_after_its_timeout),
		cmocka_unit_test(a_call_to_a_peer_that_does_not_read_gives_up_too),
		cmocka_unit_test(a_call_that_is_hung_up_on_says_so),
		WITH_DIR(a_client_connects_and_says_hello),
		WITH_DIR(another_protocol_version_is_refused_with_both_named),
		WITH_DIR(the_version_before_is_spoken_with_who_knows_no_other),
		WITH_DIR(the_lower_version_of_both_is_spoken),
		WITH_DIR(connecting_to_nobody_names_the_path_and_the_remedy),
		WITH_DIR(a_path_too_long_for_a_socket_is_refused),
		WITH_DIR(a_listener_is_for_its_owner_only_and_leaves_umask_alone),
		WITH_DIR(a_listener_for_its_group_too_says_so),
		WITH_DIR(a_stale_socket_is_replaced_and_a_live_one_is_not),
		WITH_DIR(a_live_listener_with_a_full_queue_is_still_alive),
		WITH_DIR(what_is_no_socket_is_never_removed),
		WITH_DIR(a_starter_killed_before_the_rename_does_not_stop_the_next),
		WITH_DIR(a_starter_looks_again_after_it_waited_for_another),
		WITH_DIR(of_many_starters_exactly_one_listens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
