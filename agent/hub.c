/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One epoll loop. conn->lock guards the queue of what the peer did not read yet; sends go straight to
 * the socket while it is empty. A connection is closed on the hub thread alone: others shut the
 * socket down, which the loop then sees as end of file.
 */
#include "agent/hub.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <utlist.h>

#include "agent/metrics.h"
#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"

#define MAX_QUEUED 4096
#define MAX_QUEUED_BYTES (16 * 1024 * 1024)
#define PER_TURN 64 /* messages read from one peer before the others get their turn */

struct packet {
	struct packet *next;
	struct wd_msg *m; /* cut to its length */
};

struct conn {
	struct hub *hub;
	int fd;
	_Atomic int refs;
	_Atomic int role;
	_Atomic uint32_t version;
	void *user;
	struct conn *prev, *next; /* hub thread, and hub->lock */

	struct wd_mutex lock;
	struct packet *queue; /* guarded by lock, as all below */
	unsigned queued;
	size_t queued_bytes;
	bool is_closed, is_dropped;
	unsigned under_way; /* requests */
	bool is_paused;	    /* not read from */
};

struct hub {
	int epoll, listener, stop, timer;
	char *path;
	struct hub_handlers handlers;
	struct wd_mutex lock;
	struct conn *conns; /* guarded by lock */
};

static _Thread_local struct wd_msg scratch;

struct wd_msg *hub_scratch(void)
{
	return &scratch;
}

int hub_new(const char *path, bool is_for_group, const struct hub_handlers *handlers, struct hub **ret_hub,
	struct wd_err *err)
{
	struct hub *h = calloc(1, sizeof(*h));
	struct epoll_event ev = {.events = EPOLLIN};
	int rc;

	if (!h)
		return wd_err_set(err, ENOMEM, "out of memory");
	wd_mutex_init(&h->lock);
	h->handlers = *handlers;
	h->path = strdup(path);
	h->listener = -1;
	h->epoll = epoll_create1(EPOLL_CLOEXEC);
	h->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	h->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	rc = h->epoll < 0 || h->stop < 0 || h->timer < 0 || !h->path ? -errno
	     : is_for_group							   ? wd_listen_for_group(path, err)
									   : wd_listen(path, err);
	if (rc < 0) {
		hub_free(h);
		return err && err->code ? rc : wd_err_sys(err, -rc, "listen on '%s'", path);
	}
	h->listener = rc;
	fcntl(h->listener, F_SETFL, O_NONBLOCK);
	ev.data.ptr = &h->listener;
	epoll_ctl(h->epoll, EPOLL_CTL_ADD, h->listener, &ev);
	ev.data.ptr = &h->stop;
	epoll_ctl(h->epoll, EPOLL_CTL_ADD, h->stop, &ev);
	ev.data.ptr = &h->timer;
	epoll_ctl(h->epoll, EPOLL_CTL_ADD, h->timer, &ev);
	*ret_hub = h;
	return 0;
}

struct conn *conn_ref(struct conn *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

static void packet_free(struct packet *p)
{
	for (unsigned i = 0; i < p->m->nfds; i++)
		close(p->m->fds[i]);
	free(p->m);
	free(p);
}

void conn_unref(struct conn *c)
{
	struct packet *p, *tmp;

	if (!c || atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	LL_FOREACH_SAFE(c->queue, p, tmp)
		packet_free(p);
	wd_mutex_done(&c->lock);
	free(c);
}

int conn_role(const struct conn *c)
{
	return atomic_load(&((struct conn *)c)->role);
}

void conn_set_role(struct conn *c, int role)
{
	atomic_store(&c->role, role);
}

uint32_t conn_version(const struct conn *c)
{
	return atomic_load(&((struct conn *)c)->version);
}

void conn_set_version(struct conn *c, uint32_t version)
{
	atomic_store(&c->version, version);
}

void *conn_user(const struct conn *c)
{
	return c->user;
}

struct conn *hub_add(struct hub *h, int fd, int role, void *user)
{
	struct conn *c = calloc(1, sizeof(*c));
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

	if (!c) {
		close(fd);
		return NULL;
	}
	c->hub = h;
	c->fd = fd;
	c->refs = 2; /* the hub's and the caller's */
	c->role = role;
	c->user = user;
	wd_mutex_init(&c->lock);
	wd_lock(&h->lock);
	DL_APPEND(h->conns, c);
	wd_unlock(&h->lock);
	if (epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		wd_error("watch a socket: %s", strerror(errno));
	return c;
}

void conn_drop(struct conn *c)
{
	wd_lock(&c->lock);
	if (!c->is_closed && !c->is_dropped) {
		c->is_dropped = true;
		shutdown(c->fd, SHUT_RDWR);
	}
	wd_unlock(&c->lock);
}

bool conn_is_gone(struct conn *c)
{
	bool is_gone;

	wd_lock(&c->lock);
	is_gone = c->is_closed || c->is_dropped;
	wd_unlock(&c->lock);
	return is_gone;
}

/* Hub thread. */
static void conn_close(struct conn *c)
{
	struct hub *h = c->hub;

	h->handlers.on_close(h->handlers.arg, c);
	wd_lock(&h->lock);
	DL_DELETE(h->conns, c);
	wd_unlock(&h->lock);
	/* by hand: a copy of the descriptor elsewhere (a child of the keeper's that has not executed yet)
	 * would keep it registered, with a pointer to what is freed here */
	epoll_ctl(h->epoll, EPOLL_CTL_DEL, c->fd, NULL);
	wd_lock(&c->lock);
	c->is_closed = true;
	close(c->fd);
	c->fd = -1;
	wd_unlock(&c->lock);
	conn_unref(c);
}

/* ---- sending ---- */

static void watch_locked(struct conn *c)
{
	struct epoll_event ev = {
		.events = (c->is_paused ? 0 : EPOLLIN) | (c->queue ? EPOLLOUT : 0), .data.ptr = c};

	if (!c->is_closed)
		epoll_ctl(c->hub->epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

void conn_begin(struct conn *c)
{
	wd_lock(&c->lock);
	c->under_way++;
	wd_unlock(&c->lock);
}

void conn_end(struct conn *c)
{
	wd_lock(&c->lock);
	c->under_way--;
	if (c->is_paused && c->under_way <= CONN_REQUESTS_MAX / 2) {
		c->is_paused = false;
		watch_locked(c);
	}
	wd_unlock(&c->lock);
}

/* True when it has as much under way as it may have: it is heard again later. */
static bool pause_if_full(struct conn *c)
{
	bool is_full;

	wd_lock(&c->lock);
	is_full = c->under_way >= CONN_REQUESTS_MAX;
	if (is_full && !c->is_paused) {
		c->is_paused = true;
		watch_locked(c);
	}
	wd_unlock(&c->lock);
	return is_full;
}

static struct packet *packet_new(const struct wd_msg *m)
{
	struct packet *p = calloc(1, sizeof(*p));
	size_t size = offsetof(struct wd_msg, buf) + WD_MSG_HDR + m->len;

	if (!p)
		return NULL;
	p->m = malloc(size);
	if (!p->m) {
		free(p);
		return NULL;
	}
	memcpy(p->m, m, size);
	for (unsigned i = 0; i < m->nfds; i++)
		p->m->fds[i] = fcntl(m->fds[i], F_DUPFD_CLOEXEC, 3);
	return p;
}

static int enqueue_locked(struct conn *c, const struct wd_msg *m)
{
	struct packet *p;

	if (c->queued >= MAX_QUEUED || c->queued_bytes + m->len > MAX_QUEUED_BYTES) {
		c->is_dropped = true;
		shutdown(c->fd, SHUT_RDWR);
		return -ENOBUFS;
	}
	p = packet_new(m);
	if (!p) { /* an answer is lost: the server is replaced, and asks again */
		c->is_dropped = true;
		shutdown(c->fd, SHUT_RDWR);
		return -ENOMEM;
	}
	LL_APPEND(c->queue, p);
	if (c->queue == p)
		watch_locked(c);
	c->queued++;
	c->queued_bytes += m->len;
	return 0;
}

int conn_send(struct conn *c, struct wd_msg *m)
{
	int rc;

	wd_lock(&c->lock);
	if (c->is_closed || c->is_dropped)
		rc = -EPIPE;
	else if (c->queue)
		rc = enqueue_locked(c, m);
	else
		rc = wd_msg_send(c->fd, m, MSG_DONTWAIT);
	if (rc == -EAGAIN)
		rc = enqueue_locked(c, m);
	wd_unlock(&c->lock);
	return rc;
}

static void flush_queue(struct conn *c)
{
	wd_lock(&c->lock);
	while (c->queue) {
		struct packet *p = c->queue;

		if (wd_msg_send(c->fd, p->m, MSG_DONTWAIT) == -EAGAIN)
			break;
		LL_DELETE(c->queue, p);
		c->queued--;
		c->queued_bytes -= p->m->len;
		packet_free(p);
	}
	if (!c->queue)
		watch_locked(c);
	wd_unlock(&c->lock);
}

void conn_reply_empty(struct conn *c, uint16_t type, uint64_t id)
{
	struct wd_msg *m = hub_scratch();

	wd_msg_start_reply(m, type, id, 0);
	conn_send(c, m);
}

void conn_reply_error(struct conn *c, uint16_t type, uint64_t id, int status, const char *text)
{
	struct wd_msg *m = hub_scratch();

	wd_msg_start_reply(m, type, id, status);
	wd_put_str(m, text ? text : "");
	conn_send(c, m);
}

/* ---- receiving ---- */

static void receive(struct hub *h, struct conn *c, struct wd_msg *m)
{
	for (int i = 0; i < PER_TURN; i++) {
		bool is_good;
		int rc;

		if (pause_if_full(c))
			return;
		rc = wd_msg_recv(c->fd, m, MSG_DONTWAIT);

		if (rc == -EAGAIN)
			return;
		if (rc <= 0) {
			if (rc < 0 && rc != -ECONNRESET) {
				metric_inc(METRIC_BAD_MESSAGES);
				wd_warn("dropped a peer that sent a malformed message");
			}
			conn_close(c);
			return;
		}
		is_good = h->handlers.on_message(h->handlers.arg, c, m);
		wd_msg_close_fds(m);
		if (!is_good) {
			metric_inc(METRIC_BAD_MESSAGES);
			conn_close(c);
			return;
		}
	}
}

static void accept_all(struct hub *h)
{
	int fd;

	while ((fd = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		conn_unref(hub_add(h, fd, 0, NULL));
}

void hub_wake_at(struct hub *h, int64_t at_ns)
{
	struct itimerspec spec = {0};

	if (at_ns != INT64_MAX) {
		spec.it_value.tv_sec = at_ns / 1000000000;
		spec.it_value.tv_nsec = at_ns % 1000000000;
	}
	timerfd_settime(h->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void on_timer(struct hub *h)
{
	uint64_t count;

	if (read(h->timer, &count, sizeof(count)) == sizeof(count) && h->handlers.on_timer)
		h->handlers.on_timer(h->handlers.arg);
}

void hub_run(struct hub *h)
{
	wd_autofree struct wd_msg *m = malloc(sizeof(*m));
	struct epoll_event events[64];

	while (m) {
		int n = epoll_wait(h->epoll, events, 64, -1);

		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (events[i].data.ptr == &h->stop)
				return;
			if (events[i].data.ptr == &h->listener) {
				accept_all(h);
				continue;
			}
			if (events[i].data.ptr == &h->timer) {
				on_timer(h);
				continue;
			}
			if (events[i].events & EPOLLOUT)
				flush_queue(c);
			if (events[i].events & (EPOLLHUP | EPOLLERR) && pause_if_full(c))
				conn_close(c); /* what it still had to say is void */
			else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				receive(h, c, m);
		}
	}
}

void hub_stop(struct hub *h)
{
	uint64_t one = 1;

	if (write(h->stop, &one, sizeof(one)) < 0)
		return; /* already asked */
}

void hub_free(struct hub *h)
{
	if (!h)
		return;
	while (h->conns)
		conn_close(h->conns);
	if (h->listener >= 0) {
		close(h->listener);
		unlink(h->path);
	}
	if (h->epoll >= 0)
		close(h->epoll);
	if (h->stop >= 0)
		close(h->stop);
	if (h->timer >= 0)
		close(h->timer);
	wd_mutex_done(&h->lock);
	free(h->path);
	free(h);
}
