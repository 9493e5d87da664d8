/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See hold_client.h. inotify tells of a new socket; a slow retry is the belt, for instance when the
 * keeper's queue was full. All times share one timerfd.
 */
#include "common/hold_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"

#define SOCKET_NAME "keeper.sock"
#define GREETING_NS 10000000000LL
#define RETRY_NS 1000000000LL

static int send_to_keeper(void *arg, struct wd_msg *m)
{
	const struct wd_hold_client *c = arg;

	return wd_msg_send(c->sock, m, MSG_DONTWAIT);
}

static int watch(const struct wd_hold_client *c, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void lose(struct wd_hold_client *c)
{
	if (c->sock >= 0)
		close(c->sock);
	c->sock = -1;
	if (c->state == WD_HOLD_UP)
		wd_hold_lost(&c->hold, wd_now_ns());
	c->state = WD_HOLD_AWAY;
	c->retry_at_ns = wd_now_ns() + RETRY_NS;
}

static void try_connect(struct wd_hold_client *c)
{
	wd_autoclose int sock =
		socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	c->retry_at_ns = wd_now_ns() + RETRY_NS;
	memcpy(addr.sun_path, c->path, strlen(c->path) + 1);
	if (sock < 0 || connect(sock, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
		return;
	wd_msg_start(c->in, WD_MSG_HELLO, 1);
	wd_put_u32(c->in, WD_PROTO_VERSION);
	wd_put_u32(c->in, c->role);
	wd_put_str(c->in, WD_VERSION);
	if (wd_msg_send(sock, c->in, MSG_DONTWAIT) < 0 || watch(c, sock) < 0)
		return;
	c->sock = wd_steal_fd(&sock);
	c->state = WD_HOLD_GREETING;
	c->greeting_until_ns = wd_now_ns() + GREETING_NS;
	c->retry_at_ns = 0;
}

/* A keeper of an older release has no use for holders: it is asked again when another comes. */
static bool on_hello(struct wd_hold_client *c)
{
	struct wd_rd r = wd_rd_start(c->in);
	uint32_t version = wd_rd_u32(&r);

	if (c->in->type != (WD_MSG_HELLO | WD_MSG_REPLY) || c->in->status < 0 ||
		version < WD_PROTO_HOLDERS)
		return false;
	c->state = WD_HOLD_UP;
	wd_hold_begin(&c->hold);
	return true;
}

static void receive(struct wd_hold_client *c)
{
	while (c->sock >= 0) {
		int rc = wd_msg_recv(c->sock, c->in, MSG_DONTWAIT);
		bool is_good = false;

		if (rc == -EAGAIN)
			return;
		if (rc > 0) {
			if (c->state == WD_HOLD_GREETING)
				is_good = on_hello(c);
			else
				is_good = wd_hold_takes(c->in->type) &&
					  wd_hold_message(&c->hold, c->in);
			wd_msg_close_fds(c->in);
		}
		if (!is_good)
			lose(c);
	}
}

static bool has_appeared(const struct wd_hold_client *c)
{
	_Alignas(struct inotify_event) char buf[4096];
	bool is_there = false;
	ssize_t n;

	while ((n = read(c->inotify, buf, sizeof(buf))) > 0) {
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const struct inotify_event *)(buf + at);

			is_there |= e->len > 0 && strcmp(e->name, SOCKET_NAME) == 0;
			at += (ssize_t)(sizeof(*e) + e->len);
		}
	}
	return is_there;
}

static void arm(struct wd_hold_client *c, int64_t at_ns)
{
	struct itimerspec spec = {0};

	if (c->state == WD_HOLD_AWAY && c->retry_at_ns < at_ns)
		at_ns = c->retry_at_ns;
	if (c->state == WD_HOLD_GREETING && c->greeting_until_ns < at_ns)
		at_ns = c->greeting_until_ns;
	if (at_ns != INT64_MAX) {
		spec.it_value.tv_sec = at_ns / 1000000000;
		spec.it_value.tv_nsec = at_ns % 1000000000;
	}
	timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

void wd_hold_client_run(struct wd_hold_client *c)
{
	bool is_there = has_appeared(c);
	uint64_t count;

	if (read(c->timer, &count, sizeof(count)) < 0 && errno != EAGAIN)
		wd_error("read a timer: %s", strerror(errno));
	receive(c);
	if (c->state == WD_HOLD_GREETING && wd_now_ns() >= c->greeting_until_ns) {
		wd_error("the keeper does not answer; dropping the connection");
		lose(c);
	}
	if (c->state == WD_HOLD_AWAY && (is_there || wd_now_ns() >= c->retry_at_ns)) {
		try_connect(c);
		receive(c);
	}
	arm(c, wd_hold_tick(&c->hold, wd_now_ns()));
}

int wd_hold_client_start(struct wd_hold_client *c, const char *run_dir, enum wd_role role,
	struct wd_err *err)
{
	c->epoll = c->sock = c->inotify = c->timer = -1;
	c->role = role;
	c->state = WD_HOLD_AWAY;
	c->hold.send = send_to_keeper;
	c->hold.send_arg = c;
	if (snprintf(c->path, sizeof(c->path), "%s/" SOCKET_NAME, run_dir) >= (int)sizeof(c->path))
		return wd_err_sys(err, ENAMETOOLONG, "run directory '%s'", run_dir);
	c->in = calloc(1, sizeof(*c->in));
	if (!c->in || wd_hold_init(&c->hold) < 0)
		return wd_err_set(err, ENOMEM, "out of memory");
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (c->epoll < 0 || c->inotify < 0 || c->timer < 0 ||
		inotify_add_watch(c->inotify, run_dir, IN_CREATE | IN_MOVED_TO) < 0 ||
		watch(c, c->inotify) < 0 || watch(c, c->timer) < 0)
		return wd_err_sys(err, errno, "watch the run directory '%s'", run_dir);
	wd_hold_client_run(c);
	return 0;
}

void wd_hold_client_stop(struct wd_hold_client *c)
{
	int fds[] = {c->sock, c->inotify, c->timer, c->epoll};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	wd_hold_done(&c->hold);
	free(c->in);
	c->in = NULL;
}

int wd_hold_client_fd(const struct wd_hold_client *c)
{
	return c->epoll;
}
