/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ctl_control.h. Both ways carry a method's name and packed messages; what differs is the envelope, and how
 * large it is.
 */
#include "warm-job/ctl_control.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/control_client.h"
#include "common/lock.h"
#include "common/proto.h"
#include "warm-job/ctl.h"

/* An agent that counts what is there of a large dataset answers late. */
#define CALL_TIMEOUT_MS 60000
#define MESSAGE_ROOM 256 /* of WD_MSG_MAX, for header and method */

struct ctl_control {
	bool is_mount;
	int fd;
	uint64_t next_id;
	char path[PATH_MAX];
	union {
		struct wd_msg message;
		uint8_t data[WD_CONTROL_DATA_MAX];
	};
};

int ctl_control_reopen(struct ctl_control *c, struct wd_err *err)
{
	char inside[PATH_MAX];
	int fd = c->is_mount ? wd_control_open(c->path, inside, err) : wd_client_connect(c->path, WD_ROLE_CTL, err);

	if (fd < 0)
		return fd;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = fd;
	return 0;
}

static int open_control(struct ctl_control *c, struct ctl_control **ret_control, struct wd_err *err)
{
	int r = ctl_control_reopen(c, err);

	if (r < 0) {
		ctl_control_free(c);
		return r;
	}
	*ret_control = c;
	return 0;
}

int ctl_control_open_agent(const char *run_dir, struct ctl_control **ret_control, struct wd_err *err)
{
	struct ctl_control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return wd_err_sys(err, ENOMEM, "connect to the agent");
	c->fd = -1;
	r = ctl_run_path(run_dir, "agent.sock", c->path, err);
	if (r < 0) {
		ctl_control_free(c);
		return r;
	}
	return open_control(c, ret_control, err);
}

int ctl_control_open_mount(const char *mountpoint, struct ctl_control **ret_control, struct wd_err *err)
{
	struct ctl_control *c = calloc(1, sizeof(*c));

	if (!c)
		return wd_err_sys(err, ENOMEM, "open the mount's control file");
	c->fd = -1;
	c->is_mount = true;
	if (snprintf(c->path, sizeof(c->path), "%s", mountpoint) >= (int)sizeof(c->path)) {
		ctl_control_free(c);
		return wd_err_sys(err, ENAMETOOLONG, "open the control file of '%s'", mountpoint);
	}
	return open_control(c, ret_control, err);
}

void ctl_control_free(struct ctl_control *c)
{
	if (!c)
		return;
	if (c->fd >= 0)
		close(c->fd);
	free(c);
}

bool ctl_control_is_mount(const struct ctl_control *c)
{
	return c->is_mount;
}

size_t ctl_control_max(const struct ctl_control *c)
{
	return c->is_mount ? WD_CONTROL_DATA_MAX : WD_MSG_MAX - MESSAGE_ROOM;
}

static int unpack(const ProtobufCMessageDescriptor *type, size_t len, const void *data, const char *method,
	ProtobufCMessage **ret_reply, struct wd_err *err)
{
	ProtobufCMessage *reply = protobuf_c_message_unpack(type, NULL, len, data);

	if (!reply)
		return wd_err_set(err, EPROTO, "%s: the agent's answer makes no sense", method);
	*ret_reply = reply;
	return 0;
}

/* Waits for the answer to the request with that id; a late one to a request before is dropped. */
static int await_reply(int fd, struct wd_msg *m, uint64_t id, int64_t deadline_ms, struct wd_err *err)
{
	for (;;) {
		int64_t left_ms = deadline_ms - wd_now_ns() / 1000000;
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		int n = poll(&pfd, 1, left_ms > 0 ? (int)left_ms : 0);

		if (n < 0 && errno == EINTR)
			return wd_err_sys(err, EINTR, "wait for the agent");
		if (n == 0)
			return wd_err_set(err, ETIMEDOUT, "no answer from the agent within %d s", CALL_TIMEOUT_MS / 1000);
		n = wd_msg_recv(fd, m, MSG_DONTWAIT);
		if (n == -EAGAIN)
			continue;
		if (n <= 0)
			return wd_err_set(err, n < 0 ? -n : ECONNRESET, "the agent closed the connection unanswered");
		if (m->type == (WD_MSG_CONTROL | WD_MSG_REPLY) && m->id == id)
			return 0;
		wd_msg_close_fds(m);
	}
}

static int refusal(const struct wd_msg *m, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(m);
	size_t len;
	const char *reason = wd_rd_bytes(&r, &len);

	if (m->status == -ENOSYS)
		return wd_err_set(err, EOPNOTSUPP, "the agent is of a release too old for this: upgrade it");
	if (wd_rd_done(&r) && len > 0)
		return wd_err_set(err, -m->status, "%.*s", (int)len, reason);
	return wd_err_set(err, -m->status, "refused: %s", strerror(-m->status));
}

/* Not by wd_client_call(): a signal shall end the waiting. */
static int call_agent(struct ctl_control *c, const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret_reply, struct wd_err *err)
{
	size_t len = protobuf_c_message_get_packed_size(request);
	wd_autofree uint8_t *packed = malloc(len + 1);
	wd_autofree char *text = NULL;
	struct wd_msg *m = &c->message;
	wd_autoclose int fd = -1;
	int r;

	if (!packed)
		return wd_err_sys(err, ENOMEM, "%s", method);
	protobuf_c_message_pack(request, packed);
	wd_msg_start(m, WD_MSG_CONTROL, ++c->next_id);
	wd_put_str(m, method);
	wd_put_bytes(m, packed, len);
	r = wd_msg_send(c->fd, m, 0);
	if (r < 0)
		return wd_err_sys(err, -r, "ask the agent");
	r = await_reply(c->fd, m, c->next_id, wd_now_ns() / 1000000 + CALL_TIMEOUT_MS, err);
	if (r < 0)
		return r;
	fd = wd_msg_take_fd(m, 0);
	wd_msg_close_fds(m);
	if (m->status < 0)
		return refusal(m, err);
	if (fd >= 0) {
		r = ctl_read_answer(fd, &text, &len, err);
		return r < 0 ? r : unpack(type, len, text, method, ret_reply, err);
	}

	struct wd_rd rd = wd_rd_start(m);
	const void *data = wd_rd_bytes(&rd, &len);

	if (!wd_rd_done(&rd))
		return wd_err_set(err, EPROTO, "%s: the agent's answer makes no sense", method);
	return unpack(type, len, data, method, ret_reply, err);
}

static volatile sig_atomic_t is_late;

static void note_alarm(int signal)
{
	is_late = 1;
}

/* A call through a mount waits for an agent that is away for as long as a read would; a signal ends it. */
static int call_within(
	struct ctl_control *c, const char *method, size_t len, size_t *ret_len, unsigned seconds, struct wd_err *err)
{
	struct sigaction late = {.sa_handler = note_alarm}, old;
	int r;

	is_late = 0;
	sigaction(SIGALRM, &late, &old);
	alarm(seconds);
	r = wd_control_call(c->fd, method, c->data, len, c->data, ret_len, err);
	alarm(0);
	sigaction(SIGALRM, &old, NULL);
	if (r == -EINTR && is_late)
		return wd_err_set(err, ETIMEDOUT, "no answer from the agent within %u s", seconds);
	return r;
}

static int call_mount(struct ctl_control *c, const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *type, ProtobufCMessage **ret_reply, struct wd_err *err)
{
	size_t len = protobuf_c_message_pack(request, c->data);
	int r = call_within(c, method, len, &len, CALL_TIMEOUT_MS / 1000, err);

	return r < 0 ? r : unpack(type, len, c->data, method, ret_reply, err);
}

int ctl_control_call(struct ctl_control *c, const char *method, const ProtobufCMessage *request,
	const ProtobufCMessageDescriptor *reply, ProtobufCMessage **ret_reply, struct wd_err *err)
{
	size_t size = protobuf_c_message_get_packed_size(request);

	if (size > ctl_control_max(c))
		return wd_err_set(err, E2BIG, "%s: a request of %zu bytes; at most %zu can be sent", method, size,
			ctl_control_max(c));
	return (c->is_mount ? call_mount : call_agent)(c, method, request, reply, ret_reply, err);
}

bool ctl_control_is_lost(int status)
{
	static const int lost[] = {ECONNRESET, EPIPE, ECONNREFUSED, ENOTCONN, ETIMEDOUT, ESHUTDOWN};

	for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
		if (status == -lost[i])
			return true;
	}
	return false;
}
