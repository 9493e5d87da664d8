/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's side of it, over a real connection: what a server gets rid of while nobody reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/http_sockets.h"
#include "agent/receive_window.h"

#ifndef SOCK_RCVBUF_LOCK
#define SOCK_RCVBUF_LOCK 2
#endif

struct pair {
	int listener, reader;
	int port; /* local, of reader */
	pthread_t writer;
};

/* Sends until the other side has gone. */
static void *write_main(void *arg)
{
	static const char bytes[65536];
	int fd = accept(*(int *)arg, NULL, NULL);

	while (send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		;
	close(fd);
	return NULL;
}

static void begin(struct pair *p)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);

	p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	p->reader = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(p->listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(p->listener, 1), 0);
	assert_int_equal(getsockname(p->listener, (struct sockaddr *)&a, &len), 0);
	pthread_create(&p->writer, NULL, write_main, &p->listener);
	assert_int_equal(connect(p->reader, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(p->reader, (struct sockaddr *)&a, &len), 0);
	p->port = ntohs(a.sin_port);
}

static void end(struct pair *p)
{
	shutdown(p->reader, SHUT_RDWR);
	close(p->reader);
	pthread_join(p->writer, NULL);
	close(p->listener);
}

static void take(const struct pair *p, size_t bytes)
{
	static char buffer[1 << 19];

	while (bytes > 0) {
		ssize_t n = recv(p->reader, buffer, bytes < sizeof(buffer) ? bytes : sizeof(buffer), 0);

		assert_true(n > 0);
		bytes -= (size_t)n;
	}
}

static int lies(const struct pair *p)
{
	int n;

	assert_int_equal(ioctl(p->reader, FIONREAD, &n), 0);
	return n;
}

/* Nobody reads; what is there once no more came for a while. */
static int comes_to_lie(const struct pair *p)
{
	int n = 0, before = -1;

	while (n != before) {
		before = n;
		poll(NULL, 0, 50);
		n = lies(p);
	}
	return n;
}

/* Does the size of the receive buffer stay as it was set? */
static bool is_fixed(const struct pair *p)
{
	int lock = 0;
	socklen_t len = sizeof(lock);

	assert_int_equal(getsockopt(p->reader, SOL_SOCKET, SO_BUF_LOCK, &lock, &len), 0);
	return lock & SOCK_RCVBUF_LOCK;
}

#define BOUND (256 << 10) /* every machine allows that, and it is enough for the loopback's segments of 64 KiB */

static void a_bounded_window_lets_no_more_come(void **state)
{
	struct pair p;

	(void)state;
	begin(&p);
	receive_window_set(p.reader, BOUND);
	take(&p, 64 << 20);
	assert_in_range(comes_to_lie(&p), 1, BOUND);
	/* also where the kernel had its way before */
	receive_window_set(p.reader, RECEIVE_WINDOW_ANY);
	take(&p, 64 << 20);
	receive_window_set(p.reader, BOUND);
	take(&p, 64 << 20);
	assert_in_range(comes_to_lie(&p), 1, BOUND);
	end(&p);
}

static void the_kernel_gets_its_way_back(void **state)
{
	struct pair p;

	(void)state;
	begin(&p);
	assert_false(is_fixed(&p));
	receive_window_set(p.reader, BOUND);
	take(&p, 16 << 20);
	assert_true(is_fixed(&p));
	/* how far it goes then is the kernel's to say */
	receive_window_set(p.reader, RECEIVE_WINDOW_ANY);
	assert_false(is_fixed(&p));
	take(&p, 16 << 20);
	end(&p);
}

static void a_window_of_less_than_a_segment_does_not_stop_the_server(void **state)
{
	struct pair p;

	(void)state;
	begin(&p);
	receive_window_set(p.reader, 1);
	take(&p, 64 << 20); /* by the timer it would be an hour */
	end(&p);
}

static void a_round_trip_is_told(void **state)
{
	struct pair p;
	int local[2];

	(void)state;
	begin(&p);
	assert_int_equal(send(p.reader, "x", 1, 0), 1);
	take(&p, 1 << 20);
	assert_in_range(receive_window_rtt_ns(p.reader), 1, 1000000000);
	end(&p);
	/* what is no TCP is left alone */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, local), 0);
	receive_window_set(local[0], 1 << 16);
	assert_int_equal(receive_window_rtt_ns(local[0]), 0);
	close(local[0]);
	close(local[1]);
}

static void sockets_are_found_by_their_port(void **state)
{
	struct http_sockets s = {0};
	struct pair p;
	int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	begin(&p);
	assert_int_equal(http_sockets_find(&s, p.port), -1);
	http_sockets_add(&s, other);
	http_sockets_add(&s, p.reader);
	assert_int_equal(http_sockets_find(&s, p.port), p.reader);
	/* two that cannot be told apart */
	s.all[0].port = p.port;
	assert_int_equal(http_sockets_find(&s, p.port), -1);
	assert_int_equal(http_sockets_close(&s, other), 0);
	assert_int_equal(http_sockets_find(&s, p.port), p.reader);
	for (int i = 0; i < 20; i++)
		http_sockets_add(&s, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	assert_int_equal(http_sockets_find(&s, p.port), p.reader);
	while (s.n > 0 && s.all[s.n - 1].fd != p.reader)
		http_sockets_close(&s, s.all[s.n - 1].fd);
	assert_int_equal(s.n, 1);
	end(&p);
	http_sockets_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bounded_window_lets_no_more_come),
		cmocka_unit_test(the_kernel_gets_its_way_back),
		cmocka_unit_test(a_window_of_less_than_a_segment_does_not_stop_the_server),
		cmocka_unit_test(a_round_trip_is_told),
		cmocka_unit_test(sockets_are_found_by_their_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
