/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to the agent. It is made when the first mount is asked for and again whenever
 * the agent comes back: its socket appears in the run directory (inotify), and a timer with backoff
 * is the belt. Nothing waits here: connect, hello and answers are events.
 *
 * Whenever a connection begins, the agent is told of every mount with a fresh pair of sockets, a
 * few at a time so that thousands of mounts cannot fill its queue; the server gets the other end.
 * What the agent sends is checked, and it can only reach mounts.
 */
#include "fuse/keeper.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"

#define SOCKET_NAME "agent.sock"
#define GREETING_NS 10000000000 /* an agent that does not answer hello for so long is dropped */
#define BACKOFF_MIN_NS 100000000
#define BACKOFF_MAX_NS 5000000000
#define REFUSED_RETRY_NS 5000000000
#define ADDS_AT_ONCE 16

static void agent_lost(struct keeper *k)
{
	bool was_connected = k->agent_state == AGENT_CONNECTED;

	source_close(k, &k->agent);
	k->agent_state = AGENT_AWAY;
	holder_gone(k, HOLDER_AGENT);
	k->adds_unanswered = 0;
	k->trial.request = 0;
	k->agent_backoff_ns = was_connected ? BACKOFF_MIN_NS : k->agent_backoff_ns * 2;
	if (k->agent_backoff_ns > BACKOFF_MAX_NS)
		k->agent_backoff_ns = BACKOFF_MAX_NS;
	k->agent_retry_at_ns = k->nmounts > 0 ? wd_now_ns() + k->agent_backoff_ns : 0;
	if (was_connected)
		wd_warn("the agent is away; mounts go on with what is present");
	for (struct mount *m = k->mounts, *next; m; m = next) {
		struct wd_err err = WD_ERR_INIT;

		next = m->next;
		m->link = LINK_NONE;
		m->retry_at_ns = 0;
		renew_lost(k, m);
		if (m->state != MOUNT_ASKED)
			continue;
		wd_err_set(&err, ECONNRESET, "mount on '%s': the agent went away", m->target);
		mount_fail(k, m, &err);
	}
}

int agent_send(struct keeper *k)
{
	int rc = wd_msg_send(k->agent.fd, &k->out, MSG_DONTWAIT);

	if (rc == -EAGAIN)
		wd_error("the agent does not read what it is sent; dropping the connection");
	if (rc == -EAGAIN || rc == -EPIPE)
		shutdown(k->agent.fd, SHUT_RDWR); /* the end of file is handled where it is read */
	return rc;
}

/* ---- telling the agent of mounts ---- */

static int send_add(struct keeper *k, struct mount *m, struct wd_err *err)
{
	wd_autofree unsigned char *description = NULL;
	wd_autoclose int theirs = -1;
	bool is_again = m->state != MOUNT_ASKED;
	int pair[2], rc;
	size_t len;

	rc = wd_description_read(m->description_fd, &description, &len, err);
	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return wd_err_sys(err, errno, "make a socket pair for '%s'", m->target);
	theirs = pair[0];
	m->link_id = ++k->next_id;
	wd_msg_start(&k->out, WD_MSG_MOUNT_ADD, m->link_id);
	wd_put_u64(&k->out, m->id);
	wd_put_bytes(&k->out, description, len);
	wd_put_str(&k->out, m->target);
	wd_put_u32(&k->out, is_again ? WD_MOUNT_ADD_AGAIN : 0);
	wd_put_fd(&k->out, theirs);
	wd_put_fd(&k->out, m->tables_fd);
	rc = agent_send(k);
	explicit_bzero(description, len);
	explicit_bzero(wd_msg_body(&k->out), k->out.len);
	if (rc < 0) {
		close(pair[1]);
		return wd_err_sys(err, -rc, "tell the agent of the mount on '%s'", m->target);
	}
	m->link = LINK_ADDING;
	m->is_end_stale = false;
	k->adds_unanswered++;
	if (is_again) {
		server_send_agent_sock(k, m, pair[1]);
		m->is_end_stale = m->pid == 0; /* the next server finds no end: it gets its own */
	} else {
		m->first_end = pair[1];
	}
	return 0;
}

void agent_pump(struct keeper *k)
{
	if (k->agent_state != AGENT_CONNECTED)
		return;
	for (struct mount *m = k->mounts, *next; m && k->adds_unanswered < ADDS_AT_ONCE; m = next) {
		struct wd_err err = WD_ERR_INIT;

		next = m->next;
		if (m->link != LINK_NONE || m->state == MOUNT_ENDING || m->state == MOUNT_LOST)
			continue;
		if (send_add(k, m, &err) == 0)
			continue;
		if (m->state == MOUNT_ASKED)
			mount_fail(k, m, &err);
		else
			wd_error("%s", err.msg);
		return; /* the connection is going down, or descriptors are short: later again */
	}
}

void agent_replace_server(struct keeper *k, struct mount *m, int end)
{
	if (m->link == LINK_ADDED) {
		m->link_id = ++k->next_id;
		wd_msg_start(&k->out, WD_MSG_MOUNT_SERVER, m->link_id);
		wd_put_u64(&k->out, m->id);
		wd_put_fd(&k->out, end);
		agent_send(k);
	} else if (m->link == LINK_ADDING) {
		m->is_end_stale = true;
	}
	close(end);
}

static void refresh_end(struct keeper *k, struct mount *m)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		wd_error("make a socket pair for '%s': %s", m->target, strerror(errno));
		return;
	}
	m->is_end_stale = false;
	agent_replace_server(k, m, pair[0]);
	server_send_agent_sock(k, m, pair[1]);
}

void agent_mount_gone(struct keeper *k, struct mount *m)
{
	if (k->agent_state != AGENT_CONNECTED || m->link == LINK_NONE)
		return;
	if (m->link == LINK_ADDING)
		k->adds_unanswered--;
	m->link = LINK_NONE;
	wd_msg_start(&k->out, WD_MSG_MOUNT_DEL, ++k->next_id);
	wd_put_u64(&k->out, m->id);
	agent_send(k);
}

void agent_send_stats(struct keeper *k)
{
	if (k->agent_state != AGENT_CONNECTED || k->agent_version < 2 || !k->is_stats_news)
		return;
	k->is_stats_news = false;
	wd_msg_start(&k->out, WD_MSG_KEEPER_STATS, ++k->next_id);
	wd_put_u32(&k->out, WD_KEEPER_STATS_COUNT);
	for (int i = 0; i < WD_KEEPER_STATS_COUNT; i++)
		wd_put_u64(&k->out, k->stats[i]);
	agent_send(k);
}

/* ---- what the agent sends ---- */

void agent_take_reason(const struct wd_msg *in, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(in);
	size_t len;
	const char *text = wd_rd_bytes(&r, &len);

	if (wd_rd_done(&r) && len > 0)
		wd_err_set(err, -in->status, "%.*s", (int)len, text);
	else
		wd_err_sys(err, -in->status, "the agent refuses the mount");
}

static void on_refused(struct keeper *k, struct mount *m)
{
	struct wd_err err = WD_ERR_INIT;

	agent_take_reason(&k->in, &err);
	m->link = LINK_REFUSED;
	m->retry_at_ns = wd_now_ns() + REFUSED_RETRY_NS;
	if (m->state == MOUNT_ASKED)
		mount_fail(k, m, &err);
	else
		wd_error("the agent does not take the mount on '%s': %s", m->target, err.msg);
}

static void on_added(struct keeper *k, struct mount *m)
{
	char dataset[WD_DATASET_MAX];
	struct wd_rd r = wd_rd_start(&k->in);
	uint32_t flags = wd_rd_u32(&r);

	wd_rd_str(&r, dataset, sizeof(dataset));
	if (!wd_rd_done(&r)) {
		k->in.status = -EPROTO;
		k->in.len = 0;
		on_refused(k, m);
		return;
	}
	m->link = LINK_ADDED;
	if (m->state == MOUNT_ASKED) {
		m->flags = flags;
		m->dataset = strdup(dataset[0] ? dataset : "warpdrive");
		mount_agreed(k, m);
	} else if (m->is_end_stale) {
		refresh_end(k, m);
	}
}

/* The connection was lost, but the agent is the same: all that it needs is the server's new end. */
static void on_known(struct keeper *k, struct mount *m)
{
	m->link = LINK_ADDED;
	refresh_end(k, m);
}

static void on_reply(struct keeper *k)
{
	uint16_t type = k->in.type & ~WD_MSG_REPLY;
	struct mount *m = k->mounts;

	if (type == WD_MSG_MOUNT_RENEW) {
		renew_answered(k);
		return;
	}
	while (m && m->link_id != k->in.id)
		m = m->next;
	if (!m)
		return; /* of a mount that is gone, or MOUNT_DEL */
	if (type == WD_MSG_MOUNT_ADD && m->link == LINK_ADDING) {
		m->link_id = 0;
		k->adds_unanswered--;
		if (k->in.status == -EEXIST && m->state != MOUNT_ASKED)
			on_known(k, m);
		else if (k->in.status < 0)
			on_refused(k, m);
		else
			on_added(k, m);
		agent_pump(k);
	} else if (type == WD_MSG_MOUNT_SERVER) {
		m->link_id = 0;
		if (k->in.status < 0 && m->link == LINK_ADDED)
			on_refused(k, m); /* it knows nothing of the mount: told again later */
	}
}

void agent_send_error(struct keeper *k, uint16_t type, uint64_t id, const struct wd_err *err)
{
	wd_msg_start_reply(&k->out, type, id, -err->code);
	wd_put_str(&k->out, err->msg);
	agent_send(k);
}

/* For somebody who asks the agent, since keeper.sock is root's. */
static void on_status(struct keeper *k)
{
	struct wd_err err = WD_ERR_INIT;
	wd_autoclose int fd =
		k->in.len ? wd_err_set(&err, EPROTO, "malformed status request") : status_memfd(k, &err);

	if (fd < 0) {
		agent_send_error(k, WD_MSG_KEEPER_STATUS, k->in.id, &err);
		return;
	}
	wd_msg_start_reply(&k->out, WD_MSG_KEEPER_STATUS, k->in.id, 0);
	wd_put_fd(&k->out, fd);
	agent_send(k);
}

static int say_hello(struct keeper *k, int sock)
{
	wd_msg_start(&k->out, WD_MSG_HELLO, ++k->next_id);
	wd_put_u32(&k->out, k->agent_version);
	wd_put_u32(&k->out, WD_ROLE_KEEPER);
	wd_put_str(&k->out, WD_VERSION);
	return wd_msg_send(sock, &k->out, MSG_DONTWAIT);
}

static void on_hello_reply(struct keeper *k)
{
	struct wd_rd r = wd_rd_start(&k->in);
	uint32_t version = wd_rd_u32(&r);
	char build[64];

	if (wd_proto_is_too_new(k->agent_version, k->in.status)) {
		k->agent_version--;
		if (say_hello(k, k->agent.fd) < 0)
			agent_lost(k);
		return;
	}
	if (k->in.status < 0 || !wd_rd_str(&r, build, sizeof(build)) || !wd_rd_done(&r) ||
		version < WD_PROTO_OLDEST || version > k->agent_version) {
		wd_error("the agent speaks another protocol (version %u, here %d); use programs of "
			 "one "
			 "release",
			version, WD_PROTO_VERSION);
		agent_lost(k);
		return;
	}
	k->agent_version = version;
	k->agent_state = AGENT_OFFERING;
	k->greeting_until_ns = wd_now_ns() + GREETING_NS;
	k->agent_backoff_ns = 0;
	k->is_stats_news = true;
	wd_info("connected to the agent (%s)", build);
	if (version < WD_PROTO_HOLDERS) {
		agent_reconciled(k);
		return;
	}
	holder_begin(k, 0);
	wd_msg_start(&k->out, WD_MSG_HOLDINGS, ++k->next_id);
	agent_send(k);
}

void agent_reconciled(struct keeper *k)
{
	k->agent_state = AGENT_CONNECTED;
	agent_pump(k);
}

/* A message on a connection that was greeted. */
static void on_message(struct keeper *k)
{
	int rc = 0;

	if (holder_message(k, HOLDER_AGENT, &rc)) {
		if (k->agent_state == AGENT_OFFERING)
			k->greeting_until_ns = wd_now_ns() + GREETING_NS;
	} else if (k->in.type == (WD_MSG_HOLDINGS | WD_MSG_REPLY)) {
		holder_gone(k, HOLDER_AGENT); /* an agent that holds nothing, ever */
		agent_reconciled(k);
	} else if (k->in.type & WD_MSG_REPLY) {
		on_reply(k);
	} else if (k->in.type == WD_MSG_BACKING_OPEN) {
		backing_on_open(k);
	} else if (k->in.type == WD_MSG_BACKING_CLOSE) {
		backing_on_close(k);
	} else if (k->in.type == WD_MSG_SERVER_PROGRAM) {
		program_offered(k);
	} else if (k->in.type == WD_MSG_KEEPER_STATUS) {
		on_status(k);
	} else {
		wd_debug("the agent sent a message of type %u, which means nothing here",
			k->in.type);
	}
	if (rc < 0) {
		wd_error("the agent sent nonsense; dropping the connection");
		agent_lost(k);
	}
}

static void on_agent(struct keeper *k, struct source *source)
{
	int rc = wd_msg_recv(source->fd, &k->in, MSG_DONTWAIT);

	if (rc == -EAGAIN)
		return;
	if (rc <= 0) {
		if (rc < 0)
			wd_error("the agent sent nonsense; dropping the connection");
		agent_lost(k);
		return;
	}
	if (k->agent_state == AGENT_GREETING && k->in.type == (WD_MSG_HELLO | WD_MSG_REPLY))
		on_hello_reply(k);
	else if (k->agent_state != AGENT_GREETING)
		on_message(k);
	wd_msg_close_fds(&k->in);
}

/* ---- connecting ---- */

int agent_connect(struct keeper *k, struct wd_err *err)
{
	wd_autoclose int fd = -1;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int rc;

	if (k->agent_state != AGENT_AWAY)
		return 0;
	k->agent_retry_at_ns = 0;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/%s", k->run_dir, SOCKET_NAME);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return wd_err_sys(err, errno, "make a socket");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return wd_err_set(err, errno == ENOENT ? ECONNREFUSED : errno,
			"connect to '%s': %s; is warpdrive-agent running?",
			addr.sun_path, strerror(errno));
	k->agent_version = WD_PROTO_VERSION;
	rc = say_hello(k, fd);
	if (rc < 0)
		return wd_err_sys(err, -rc, "say hello to '%s'", addr.sun_path);
	rc = source_watch(k, &k->agent, fd, on_agent, err);
	if (rc < 0)
		return rc;
	wd_steal_fd(&fd);
	k->agent_state = AGENT_GREETING;
	k->greeting_until_ns = wd_now_ns() + GREETING_NS;
	return 0;
}

static void reconnect(struct keeper *k)
{
	if (agent_connect(k, NULL) == 0)
		return;
	k->agent_backoff_ns = k->agent_backoff_ns ? k->agent_backoff_ns * 2 : BACKOFF_MIN_NS;
	if (k->agent_backoff_ns > BACKOFF_MAX_NS)
		k->agent_backoff_ns = BACKOFF_MAX_NS;
	k->agent_retry_at_ns = wd_now_ns() + k->agent_backoff_ns;
}

void agent_on_inotify(struct keeper *k, struct source *source)
{
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n = read(source->fd, buf, sizeof(buf));
	bool is_there = false;

	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *event = (const struct inotify_event *)(buf + at);

		if (event->len > 0 && strcmp(event->name, SOCKET_NAME) == 0)
			is_there = true;
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	if (is_there)
		reconnect(k); /* also without a mount: it may hold some */
}

void agent_timers(struct keeper *k, int64_t now_ns, int64_t *ret_next)
{
	bool is_begun = k->agent_state == AGENT_GREETING || k->agent_state == AGENT_OFFERING;

	if (is_begun && now_ns >= k->greeting_until_ns) {
		wd_error("the agent does not answer; dropping the connection");
		agent_lost(k);
	}
	if (k->agent_state == AGENT_AWAY && k->agent_retry_at_ns && now_ns >= k->agent_retry_at_ns)
		reconnect(k);
	for (struct mount *m = k->mounts; m; m = m->next) {
		if (m->link != LINK_REFUSED || !m->retry_at_ns)
			continue;
		if (now_ns >= m->retry_at_ns) {
			m->link = LINK_NONE;
			m->retry_at_ns = 0;
			agent_pump(k);
		} else if (m->retry_at_ns < *ret_next) {
			*ret_next = m->retry_at_ns;
		}
	}
	if (is_begun && k->greeting_until_ns < *ret_next)
		*ret_next = k->greeting_until_ns;
	if (k->agent_state == AGENT_AWAY && k->agent_retry_at_ns &&
		k->agent_retry_at_ns < *ret_next)
		*ret_next = k->agent_retry_at_ns;
}
