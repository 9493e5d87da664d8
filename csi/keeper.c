/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See keeper.h. A question is: connect, send, wait for the answer, the caller's end or the deadline,
 * whichever comes first. When the other side goes away in the middle, the question is asked again
 * of its successor: mounting and unmounting are idempotent here. Closing the connection is how a
 * mount under way is called off; the keeper undoes it.
 */
#include "csi/keeper.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/proto.h"

#define KEEPER_SOCKET "keeper.sock"
#define AGENT_SOCKET "agent.sock"
#define LOOK_MS 5000		 /* for an answer to a look */
#define RENEW_NS 10000000000LL	 /* for a renewal: the agent asks the origin */
#define STATUS_MAX (64u << 20) /* bytes of a status */
#define AGAIN_MS 200 /* between tries where a socket is there but its owner is not ready */

/* The time by which this call must be answered; of a short call the half is left for it. */
static int64_t latest(const struct rpc_call *call)
{
	int64_t half, now = wd_now_ns();

	if (call->deadline_ns == INT64_MAX)
		return INT64_MAX;
	half = (call->deadline_ns - now) / 2;
	return call->deadline_ns - (half > DRIVER_MARGIN_NS ? DRIVER_MARGIN_NS : half > 0 ? half : 0);
}

static int left_ms(int64_t until_ns)
{
	int64_t left;

	if (until_ns == INT64_MAX)
		return -1;
	left = until_ns - wd_now_ns();
	return left <= 0 ? 0 : left > (int64_t)INT_MAX * 1000000 ? INT_MAX : (int)(left / 1000000) + 1;
}

/* Waits until fd is readable (1), the time is over (0) or the caller has gone (-ECANCELED). */
static int wait_readable(const struct rpc_call *call, int fd, int timeout_ms)
{
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = call->cancel_fd, .events = POLLIN}};
	int n;

	do
		n = poll(p, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (p[1].revents)
		return -ECANCELED;
	return p[0].revents != 0;
}

static bool is_away(int rc)
{
	return rc == -ENOENT || rc == -ECONNREFUSED || rc == -ECONNRESET || rc == -EPIPE || rc == -ETIMEDOUT;
}

/* Connects as soon as somebody listens. *err says why nobody does. */
static int connect_when_there(const struct rpc_call *call, const struct driver *d, const char *name,
	int64_t until_ns, struct wd_err *err)
{
	wd_autoclose int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char path[PATH_MAX], events[4096];

	snprintf(path, sizeof(path), "%s/%s", d->run_dir, name);
	if (watch < 0 || inotify_add_watch(watch, d->run_dir, IN_CREATE | IN_MOVED_TO) < 0)
		return wd_err_sys(err, errno, "watch the run directory '%s'", d->run_dir);
	for (;;) {
		int sock = wd_client_connect_within(path, WD_ROLE_CSI, left_ms(until_ns), err);
		int left = left_ms(until_ns), rc;
		struct stat st;

		if (sock >= 0 || !is_away(sock))
			return sock;
		if (left == 0)
			return -ETIMEDOUT;
		/* a socket file that is there without a listener may be a dead one's: its successor
		 * renames over it, which is an event; one that is starting says nothing */
		if (sock == -ETIMEDOUT && lstat(path, &st) == 0 && (left < 0 || left > AGAIN_MS))
			left = AGAIN_MS;
		rc = wait_readable(call, watch, left);
		if (rc < 0)
			return rc;
		while (read(watch, events, sizeof(events)) > 0)
			;
	}
}

/* Sends m and waits for its answer, which replaces it. -errno of the answer with its reason. */
static int ask(const struct rpc_call *call, int sock, struct wd_msg *m, int64_t until_ns, struct wd_err *err)
{
	uint16_t type = m->type;
	char reason[480];
	struct wd_rd r;
	int rc = wd_msg_send(sock, m, 0);

	if (rc < 0)
		return wd_err_sys(err, -rc, "ask the keeper");
	rc = wait_readable(call, sock, left_ms(until_ns));
	if (rc == -ECANCELED)
		return wd_err_set(err, ECANCELED, "the caller has gone");
	if (rc == 0)
		return wd_err_set(err, ETIMEDOUT, "the keeper has not answered yet");
	rc = rc < 0 ? rc : wd_msg_recv(sock, m, 0);
	if (rc <= 0)
		return wd_err_sys(err, rc < 0 ? -rc : ECONNRESET, "wait for the keeper's answer");
	wd_msg_close_fds(m);
	if (m->type != (type | WD_MSG_REPLY))
		return wd_err_set(err, EPROTO, "the keeper's answer makes no sense");
	if (m->status >= 0)
		return 0;
	r = wd_rd_start(m);
	if (!wd_rd_str(&r, reason, sizeof(reason)) || !*reason)
		return wd_err_sys(err, -m->status, "refused");
	return wd_err_set(err, -m->status, "%s", reason);
}

static void put_mount(struct wd_msg *m, const char *target, const char *description)
{
	wd_msg_start(m, WD_MSG_MOUNT, 1);
	wd_put_str(m, target);
	wd_put_bytes(m, description, strlen(description));
	wd_put_u32(m, 0);
}

int keeper_renew(struct rpc_call *call, const struct driver *d, const char *target, const char *description,
	struct wd_err *err)
{
	wd_autofree struct wd_msg *m = calloc(1, sizeof(*m));
	int64_t until_ns = wd_now_ns() + RENEW_NS;
	wd_autoclose int sock = -1;
	char path[PATH_MAX];
	int rc;

	if (!m)
		return wd_err_set(err, ENOMEM, "out of memory");
	snprintf(path, sizeof(path), "%s/" KEEPER_SOCKET, d->run_dir);
	until_ns = until_ns < latest(call) ? until_ns : latest(call);
	sock = wd_client_connect_within(path, WD_ROLE_CSI, left_ms(until_ns), err);
	if (sock < 0)
		return sock;
	wd_msg_start(m, WD_MSG_RENEW, 1);
	wd_put_str(m, target);
	wd_put_bytes(m, description, strlen(description));
	rc = ask(call, sock, m, until_ns, err);
	explicit_bzero(m, sizeof(*m));
	return rc;
}

static void put_umount(struct wd_msg *m, const char *target)
{
	wd_msg_start(m, WD_MSG_UMOUNT, 1);
	wd_put_str(m, target);
	wd_put_u32(m, 0);
}

/* Asks until somebody has answered; description NULL: to unmount. */
static int ask_until(const struct rpc_call *call, const struct driver *d, const char *target,
	const char *description, struct wd_err *err)
{
	wd_autofree struct wd_msg *m = calloc(1, sizeof(*m));
	int64_t until_ns = latest(call);
	int rc;

	if (!m)
		return wd_err_set(err, ENOMEM, "out of memory");
	do {
		wd_autoclose int agent = -1, sock = -1;

		*err = WD_ERR_INIT;
		if (description) { /* the keeper refuses at once when there is no agent: wait for it here */
			agent = connect_when_there(call, d, AGENT_SOCKET, until_ns, err);
			if (agent < 0)
				return agent;
		}
		sock = connect_when_there(call, d, KEEPER_SOCKET, until_ns, err);
		if (sock < 0)
			return sock;
		if (description)
			put_mount(m, target, description);
		else
			put_umount(m, target);
		rc = ask(call, sock, m, until_ns, err);
		explicit_bzero(m, sizeof(*m));
	} while ((rc == -ECONNRESET || rc == -EPIPE || rc == -ECONNREFUSED || rc == -ESHUTDOWN) &&
		 left_ms(until_ns) != 0);
	return rc;
}

static enum rpc_code fail_with(struct rpc_call *call, int rc, const struct wd_err *err)
{
	return rpc_fail(call, rpc_code_of(-rc), "%s", *err->msg ? err->msg : strerror(-rc));
}

enum rpc_code keeper_mount(
	struct rpc_call *call, const struct driver *d, const char *target, const char *description)
{
	struct wd_err err = WD_ERR_INIT;
	int rc = ask_until(call, d, target, description, &err);

	if (rc == -ENOENT) /* the dataset, not the target: that was made a moment ago */
		return rpc_fail(call, RPC_NOT_FOUND, "%s", err.msg);
	return rc < 0 ? fail_with(call, rc, &err) : RPC_OK;
}

enum rpc_code keeper_umount(struct rpc_call *call, const struct driver *d, const char *target)
{
	struct wd_err err = WD_ERR_INIT;
	int rc = ask_until(call, d, target, NULL, &err);

	return rc < 0 && rc != -ENOENT ? fail_with(call, rc, &err) : RPC_OK;
}

/* ---- looking ---- */

static json_t *read_json(int fd)
{
	struct stat st;
	char *text;
	json_t *root = NULL;

	if (fd < 0 || fstat(fd, &st) < 0 || st.st_size <= 0 || st.st_size > STATUS_MAX)
		return NULL;
	text = malloc((size_t)st.st_size);
	if (text && pread(fd, text, (size_t)st.st_size, 0) == st.st_size)
		root = json_loadb(text, (size_t)st.st_size, 0, NULL);
	free(text);
	return root;
}

static json_t *fetch_status(const struct rpc_call *call, const struct driver *d, const char *name,
	uint16_t type, struct wd_err *err)
{
	int left = left_ms(latest(call)), limit_ms = left < 0 || left > LOOK_MS ? LOOK_MS : left;
	wd_autofree struct wd_msg *m = calloc(1, sizeof(*m));
	wd_autoclose int sock = -1, fd = -1;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", d->run_dir, name);
	sock = m ? wd_client_connect_within(path, WD_ROLE_CSI, limit_ms, err) : -1;
	if (sock < 0)
		return NULL;
	wd_msg_start(m, type, 1);
	if (wd_client_call(sock, m, limit_ms, err) < 0)
		return NULL;
	fd = wd_msg_take_fd(m, 0);
	wd_msg_close_fds(m);
	return read_json(fd);
}

static json_t *find_by(json_t *root, const char *list, const char *key, const char *value)
{
	size_t i;
	json_t *item;

	json_array_foreach(json_object_get(root, list), i, item)
	{
		const char *s = json_string_value(json_object_get(item, key));

		if (s && strcmp(s, value) == 0)
			return item;
	}
	return NULL;
}

static void look_at_keeper(struct rpc_call *call, const struct driver *d, const char *target,
	struct keeper_stats *s)
{
	struct wd_err err = WD_ERR_INIT;
	json_t *root = fetch_status(call, d, KEEPER_SOCKET, WD_MSG_KEEPER_STATUS, &err);
	json_t *mount = find_by(root, "mounts", "target", target);
	const char *state = json_string_value(json_object_get(mount, "state"));

	if (!root)
		s->trouble = arena_printf(call->arena, "keeper: it does not answer: %s", err.msg);
	else if (!mount)
		s->trouble = arena_printf(call->arena, "keeper: it does not know the mount");
	else if (!state || strcmp(state, "serving") != 0)
		s->trouble = arena_printf(call->arena, "keeper: the mount is %s", state ? state : "in no known state");
	else if (json_integer_value(json_object_get(mount, "server_pid")) <= 0)
		s->trouble = arena_printf(call->arena, "server: it is being restarted");
	else
		s->is_served = true;
	json_decref(root);
}

static void look_at_agent(struct rpc_call *call, const struct driver *d, const char *target,
	struct keeper_stats *s)
{
	struct wd_err err = WD_ERR_INIT;
	json_t *root = fetch_status(call, d, AGENT_SOCKET, WD_MSG_STATUS, &err);
	json_t *mount = find_by(root, "mounts", "target", target), *text;
	const char *url = json_string_value(json_object_get(mount, "url")), *part;
	json_t *dataset = url ? find_by(root, "datasets", "url", url) : NULL;

	if (!s->trouble && !root)
		s->trouble = arena_printf(call->arena, "agent: it does not answer: %s", err.msg);
	else if (!s->trouble && !url)
		s->trouble = arena_printf(call->arena, "agent: it does not know the mount yet");
	json_object_foreach(json_object_get(mount, "condition"), part, text)
	{
		if (!json_is_string(text))
			continue;
		s->trouble = arena_printf(call->arena, "%s%s%s: %s", s->trouble ? s->trouble : "",
			s->trouble ? "; " : "", part, json_string_value(text));
	}
	s->bytes = (uint64_t)json_integer_value(json_object_get(dataset, "bytes"));
	s->objects = (uint64_t)json_integer_value(json_object_get(dataset, "objects"));
	json_decref(root);
}

void keeper_look(struct rpc_call *call, const struct driver *d, const char *target,
	struct keeper_stats *ret_stats)
{
	*ret_stats = (struct keeper_stats){0};
	look_at_keeper(call, d, target, ret_stats);
	look_at_agent(call, d, target, ret_stats);
}
