/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends of a connection: the listener's socket file, and the client that calls and waits. Part
 * of common/proto.h.
 *
 * The socket file. It must never exist with a mode wider than its own, must never be removed while
 * somebody listens behind it, and a left-over of a killed process must not stop the next start. So
 * the socket is bound to a private name beside the final one, given its mode, made to listen and
 * only then renamed into place: from the first moment that the name is visible it can be connected
 * to. Two processes that start at once are put in order by a lock on the directory.
 *
 * umask is not used: it belongs to the whole process, and other threads create files.
 */
#include "common/proto.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include "common/cleanup.h"
#include "common/lock.h"

#define HELLO_TIMEOUT_MS 10000
#define BACKLOG 128
#define NEW_SUFFIX ".new"

/* ---- addresses ---- */

static int make_address(
	const char *path, const char *suffix, struct sockaddr_un *ret_addr, struct wd_err *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = strlen(path) + strlen(suffix);

	if (len >= sizeof(addr.sun_path) || path[0] == '\0')
		return wd_err_set(err, path[0] ? ENAMETOOLONG : EINVAL,
			"socket '%s': the path must have 1 to %zu bytes; choose another directory",
			path, sizeof(addr.sun_path) - 1 - strlen(suffix));
	memcpy(addr.sun_path, path, strlen(path));
	memcpy(addr.sun_path + strlen(path), suffix, strlen(suffix));
	*ret_addr = addr;
	return 0;
}

/* The program that listens behind a path, for the user to look after. */
static const char *program_behind(const char *path)
{
	const char *slash = strrchr(path, '/');

	if (strncmp(slash ? slash + 1 : path, "keeper", 6) == 0)
		return "warpdrive-keeper";
	if (strncmp(slash ? slash + 1 : path, "csi", 3) == 0)
		return "warpdrive-csi";
	return "warpdrive-agent";
}

/* ---- the client ---- */

/* Milliseconds until deadline_ns for poll(2); -1 for no deadline (0). */
static int left_ms(int64_t deadline_ns)
{
	int64_t left_ns = deadline_ns - wd_now_ns();

	if (deadline_ns == 0)
		return -1;
	return left_ns > 0 ? (int)((left_ns + 999999) / 1000000) : 0;
}

/* Waits for events; 0 or -ETIMEDOUT. What else there is to say the next call on sock says. */
static int wait_for(int sock, short events, int64_t deadline_ns)
{
	struct pollfd pfd = {.fd = sock, .events = events};
	int n;

	do
		n = poll(&pfd, 1, left_ms(deadline_ns));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == 0 ? -ETIMEDOUT : 0;
}

static int send_until(int sock, struct wd_msg *m, int64_t deadline_ns)
{
	int rc;

	while ((rc = wd_msg_send(sock, m, MSG_DONTWAIT)) == -EAGAIN) {
		rc = wait_for(sock, POLLOUT, deadline_ns);
		if (rc < 0)
			break;
	}
	return rc;
}

static int recv_until(int sock, struct wd_msg *m, int64_t deadline_ns)
{
	int rc;

	while ((rc = wd_msg_recv(sock, m, MSG_DONTWAIT)) == -EAGAIN) {
		rc = wait_for(sock, POLLIN, deadline_ns);
		if (rc < 0)
			break;
	}
	return rc == 0 ? -ECONNRESET : rc;
}

/* The end of a call that was answered with an error: the peer's reason, for a person. */
static int take_refusal(struct wd_msg *m, struct wd_err *err)
{
	struct wd_rd r = wd_rd_start(m);
	size_t len;
	const char *reason = wd_rd_bytes(&r, &len);

	wd_msg_close_fds(m);
	if (wd_rd_done(&r) && len > 0)
		return wd_err_set(err, -m->status, "%.*s", (int)len, reason);
	return wd_err_set(err, -m->status, "refused: %s", strerror(-m->status));
}

int wd_client_call(int sock, struct wd_msg *m, int timeout_ms, struct wd_err *err)
{
	int64_t deadline_ns = timeout_ms < 0 ? 0 : wd_now_ns() + (int64_t)timeout_ms * 1000000;
	uint16_t type = m->type | WD_MSG_REPLY;
	uint64_t id = m->id;
	int rc = send_until(sock, m, deadline_ns);

	m->nfds = 0; /* the request's fds are the caller's, whatever happened */
	if (rc < 0)
		return wd_err_sys(err, -rc, "send a request");
	while ((rc = recv_until(sock, m, deadline_ns)) > 0) {
		if (m->type == type && m->id == id)
			return m->status < 0 ? take_refusal(m, err) : 0;
		wd_msg_close_fds(m);
		/* The late answer of a call that was given up is no news; a request is. */
		if (!(m->type & WD_MSG_REPLY)) {
			rc = -EPROTO;
			break;
		}
	}
	if (rc == -ECONNRESET)
		return wd_err_set(err, -rc, "the other side closed the connection unanswered");
	if (rc == -ETIMEDOUT)
		return wd_err_set(err, -rc, "no answer within %d ms", timeout_ms);
	return wd_err_sys(err, -rc, "receive an answer");
}

static int connect_socket(int sock, const char *path, int timeout_ms, struct wd_err *err)
{
	/* connect(2) waits while the listener's queue is full, and this bounds it. */
	struct timeval patience = {timeout_ms / 1000, timeout_ms % 1000 * 1000}, for_ever = {0, 0};
	struct sockaddr_un addr;
	int rc = make_address(path, "", &addr, err);

	if (rc < 0)
		return rc;
	setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	do
		rc = connect(sock, (const struct sockaddr *)&addr, sizeof(addr));
	while (rc < 0 && errno == EINTR);
	if (rc == 0) {
		setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &for_ever, sizeof(for_ever));
		return 0;
	}
	if (errno == EACCES || errno == EPERM)
		return wd_err_sys(
			err, errno, "connect to '%s' (only its owner and root may)", path);
	if (errno == EAGAIN)
		return wd_err_set(err, ETIMEDOUT,
			"connect to '%s': %s accepts nobody; is it stuck?", path,
			program_behind(path));
	return wd_err_set(err, errno, "connect to '%s': %s; is %s running?", path, strerror(errno),
		program_behind(path));
}

/* says: the version that is offered. *ret_refusal gets the status of an answer that refuses. */
static int say_hello(int sock, const char *path, enum wd_role role, uint32_t says, int timeout_ms,
	uint32_t *ret_version, int *ret_refusal, struct wd_err *err)
{
	wd_autofree struct wd_msg *m = malloc(sizeof(*m));
	uint32_t version;
	char build[64];
	struct wd_rd r;
	int rc;

	if (!m)
		return wd_err_set(err, ENOMEM, "connect to '%s': out of memory", path);
	wd_msg_start(m, WD_MSG_HELLO, 0);
	wd_put_u32(m, says);
	wd_put_u32(m, role);
	wd_put_str(m, WD_VERSION);
	rc = wd_client_call(sock, m, timeout_ms, err);
	if (rc < 0) {
		*ret_refusal = m->type == (WD_MSG_HELLO | WD_MSG_REPLY) ? m->status : 0;
		wd_err_wrap(err, "say hello to %s at '%s'", program_behind(path), path);
		return rc;
	}
	wd_msg_close_fds(m);
	r = wd_rd_start(m);
	version = wd_rd_u32(&r);
	if (!wd_rd_str(&r, build, sizeof(build)) || !wd_rd_done(&r))
		return wd_err_set(err, EPROTO,
			"say hello to '%s': the answer makes no sense; is it %s?", path,
			program_behind(path));
	if (version < WD_PROTO_OLDEST || version > says)
		return wd_err_set(err, EPROTONOSUPPORT,
			"%s %s at '%s' speaks protocol version %u, this program (%s) speaks %d; "
			"use programs of one release",
			program_behind(path), build, path, version, WD_VERSION, WD_PROTO_VERSION);
	*ret_version = version;
	return 0;
}

static int connect_saying(const char *path, enum wd_role role, uint32_t says, int timeout_ms,
	uint32_t *ret_version, int *ret_refusal, struct wd_err *err)
{
	wd_autoclose int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int rc;

	if (sock < 0)
		return wd_err_sys(err, errno, "make a socket for '%s'", path);
	rc = connect_socket(sock, path, timeout_ms, err);
	if (rc == 0)
		rc = say_hello(sock, path, role, says, timeout_ms, ret_version, ret_refusal, err);
	return rc < 0 ? rc : wd_steal_fd(&sock);
}

static int connect_version(const char *path, enum wd_role role, int timeout_ms, uint32_t *ret_version,
	struct wd_err *err)
{
	struct wd_err first = WD_ERR_INIT;
	uint32_t says = WD_PROTO_VERSION;
	int refusal = 0, rc = connect_saying(path, role, says, timeout_ms, ret_version, &refusal, &first);

	if (rc < 0 && wd_proto_is_too_new(says, refusal))
		return connect_saying(path, role, says - 1, timeout_ms, ret_version, &refusal, err);
	if (rc < 0 && err)
		*err = first;
	return rc;
}

int wd_client_connect_version(
	const char *path, enum wd_role role, uint32_t *ret_version, struct wd_err *err)
{
	return connect_version(path, role, HELLO_TIMEOUT_MS, ret_version, err);
}

int wd_client_connect(const char *path, enum wd_role role, struct wd_err *err)
{
	uint32_t version;

	return connect_version(path, role, HELLO_TIMEOUT_MS, &version, err);
}

int wd_client_connect_within(const char *path, enum wd_role role, int timeout_ms, struct wd_err *err)
{
	uint32_t version;

	if (timeout_ms < 0 || timeout_ms > HELLO_TIMEOUT_MS)
		timeout_ms = HELLO_TIMEOUT_MS;
	/* 0 would be for ever in setsockopt(2) */
	return connect_version(path, role, timeout_ms ? timeout_ms : 1, &version, err);
}

/* ---- the listener ---- */

/* Opens and locks the directory of path until the fd is closed. Nobody holds the lock for longer
 * than it takes to bind a socket. Where directories cannot be locked two starters may race. */
static int lock_directory(const char *path, struct wd_err *err)
{
	char dir[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	const char *slash = strrchr(path, '/');
	int fd;

	if (!slash)
		snprintf(dir, sizeof(dir), ".");
	else
		snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return wd_err_sys(err, errno, "listen on '%s': open the directory", path);
	while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
		;
	return fd;
}

/* 0 when path is free to be taken: nothing there, or a socket that nobody listens behind. */
static int check_stale(
	const char *path, const struct sockaddr_un *addr, int type, struct wd_err *err)
{
	wd_autoclose int probe = -1;
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : wd_err_sys(err, errno, "listen on '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return wd_err_set(err, EEXIST,
			"listen on '%s': something that is no socket is there; move it away", path);
	probe = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return wd_err_sys(err, errno, "listen on '%s': make a socket", path);
	if (connect(probe, (const struct sockaddr *)addr, sizeof(*addr)) < 0 &&
		(errno == ECONNREFUSED || errno == ENOENT))
		return 0;
	return wd_err_set(err, EADDRINUSE, "listen on '%s': another %s is running there", path,
		program_behind(path));
}

/* Under the directory's lock a file of the private name is what a killed starter left. */
static void remove_left_over(const char *path)
{
	struct stat st;

	if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
		unlink(path);
}

static int listen_on(const char *path, int type, mode_t mode, struct wd_err *err)
{
	wd_autoclose int sock = -1, dir = -1;
	struct sockaddr_un addr, fresh;
	int rc = make_address(path, NEW_SUFFIX, &fresh, err);

	if (rc == 0)
		rc = make_address(path, "", &addr, err);
	if (rc == 0)
		rc = dir = lock_directory(path, err);
	if (rc >= 0)
		rc = check_stale(path, &addr, type, err);
	if (rc < 0)
		return rc;
	sock = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return wd_err_sys(err, errno, "listen on '%s': make a socket", path);
	remove_left_over(fresh.sun_path);
	if (bind(sock, (const struct sockaddr *)&fresh, sizeof(fresh)) < 0)
		return wd_err_sys(err, errno, "listen on '%s': bind", path);
	if (chmod(fresh.sun_path, mode) < 0 || listen(sock, BACKLOG) < 0 ||
		rename(fresh.sun_path, path) < 0) {
		rc = wd_err_sys(err, errno, "listen on '%s'", path);
		unlink(fresh.sun_path);
		return rc;
	}
	return wd_steal_fd(&sock);
}

int wd_listen(const char *path, struct wd_err *err)
{
	return listen_on(path, SOCK_SEQPACKET, 0600, err);
}

int wd_listen_for_group(const char *path, struct wd_err *err)
{
	return listen_on(path, SOCK_SEQPACKET, 0660, err);
}

int wd_listen_stream(const char *path, bool is_for_group, struct wd_err *err)
{
	return listen_on(path, SOCK_STREAM, is_for_group ? 0660 : 0600, err);
}
