/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Knocks at a daemon's socket. The process is taken from the socket's credentials before the hello,
 * so that when the hello goes unanswered its end can be waited for.
 */
#include "warm-job/ctl_probe.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/proto.h"

/* An agent that ends syncs its cache's file system first. */
#define END_TIMEOUT_MS 120000

static bool is_nobody(int status)
{
	return status == -ENOENT || status == -ECONNREFUSED;
}

/* The process that listens at path: its pidfd, or -1. */
static int listener_pidfd(const char *path)
{
	wd_autoclose int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (sock < 0 || strlen(path) >= sizeof(addr.sun_path))
		return -1;
	memcpy(addr.sun_path, path, strlen(path) + 1);
	if (connect(sock, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid <= 0)
		return -1;
	return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

int ctl_probe(const char *socket_path, int *ret_pidfd, struct wd_err *err)
{
	wd_autoclose int pidfd = listener_pidfd(socket_path);
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	int sock = wd_client_connect(socket_path, WD_ROLE_CTL, err);

	if (sock >= 0) {
		close(sock);
		*ret_pidfd = wd_steal_fd(&pidfd);
		return 1;
	}
	if (is_nobody(sock) && pidfd < 0)
		return 0;
	if (!is_nobody(sock) && sock != -ECONNRESET && sock != -EPIPE)
		return sock;
	if (pidfd < 0)
		return is_nobody(sock) ? 0 : sock;

	int n;

	do
		n = poll(&ended, 1, END_TIMEOUT_MS);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return 0;
	return wd_err_set(err, EBUSY,
		"the daemon of '%s' is ending and does not come to its end: look at its log there",
		socket_path);
}
