/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See metrics_page.h. So little is asked for that a web server would be out of proportion: of a request the first line
 * counts, the rest is read up to its end, or to REQUEST_MAX, and thrown away. Every answer ends its connection.
 */
#include "csi/metrics_page.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/lock.h"
#include "common/log.h"
#include "common/rpc_stats.h"

#define REQUEST_MAX 8192

struct metrics_page {
	int listener, stopping; /* an eventfd, never read: once it is set it stays so */
	pthread_t thread;
};

/* ---- one connection ---- */

/* Waits until fd is ready; false when it is too late, or the page ends. */
static bool wait_for(struct metrics_page *p, int fd, short events, int64_t until_ns)
{
	struct pollfd both[2] = {{.fd = fd, .events = events}, {.fd = p->stopping, .events = POLLIN}};
	int64_t left_ns = until_ns - wd_now_ns();

	return left_ns > 0 && poll(both, 2, (int)(left_ns / 1000000) + 1) > 0 && !both[1].revents;
}

/* The request, ended by a NUL; false when it does not come. */
static bool read_request(struct metrics_page *p, int fd, char request[REQUEST_MAX + 1], int64_t until_ns)
{
	size_t have = 0;

	while (have < REQUEST_MAX) {
		ssize_t n;

		if (!wait_for(p, fd, POLLIN, until_ns))
			return false;
		n = recv(fd, request + have, REQUEST_MAX - have, MSG_DONTWAIT);
		if (n <= 0 && !(n < 0 && (errno == EAGAIN || errno == EINTR)))
			return false;
		have += n > 0 ? (size_t)n : 0;
		request[have] = '\0';
		if (strstr(request, "\r\n\r\n"))
			return true;
	}
	return false;
}

static void send_all(struct metrics_page *p, int fd, const char *text, size_t len, int64_t until_ns)
{
	while (len > 0 && wait_for(p, fd, POLLOUT, until_ns)) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return;
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
}

static const char *status_of(const char *request)
{
	if (strncmp(request, "GET ", 4) != 0)
		return "405 Method Not Allowed";
	return strncmp(request + 4, "/metrics ", 9) == 0 ? "200 OK" : "404 Not Found";
}

static void answer(struct metrics_page *p, int fd)
{
	int64_t until_ns = wd_now_ns() + PAGE_PATIENCE_MS * 1000000LL;
	char request[REQUEST_MAX + 1], head[200];
	wd_autofree char *text = NULL;
	const char *status;
	size_t len = 0;
	FILE *out;

	if (!read_request(p, fd, request, until_ns))
		return;
	status = status_of(request);
	out = open_memstream(&text, &len);
	if (!out)
		return;
	if (status[0] == '2')
		rpc_stats_print(out);
	else
		fputs("only GET /metrics\n", out);
	fclose(out);
	snprintf(head, sizeof(head),
		"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n",
		status, len);
	send_all(p, fd, head, strlen(head), until_ns);
	send_all(p, fd, text, len, until_ns);
	shutdown(fd, SHUT_WR);
}

/* ---- the thread ---- */

static void *page_main(void *arg)
{
	struct metrics_page *p = arg;

	struct pollfd both[2] = {{.fd = p->listener, .events = POLLIN}, {.fd = p->stopping, .events = POLLIN}};

	for (;;) {
		wd_autoclose int fd = -1;

		if (poll(both, 2, -1) > 0 && both[1].revents)
			return NULL;
		fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			answer(p, fd);
		else if (errno != EAGAIN) /* no descriptors: it will not be better at once */
			poll(&both[1], 1, 100);
	}
}

/* A listening socket. */
static int listen_on(const char *address, struct wd_err *err)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM}, *found;
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	bool is_bracketed = len >= 2 && address[0] == '[' && address[len - 1] == ']';
	char host[64];
	int one = 1, fd, rc;

	if (!len || len >= sizeof(host) || !colon[1])
		return wd_err_set(err, EINVAL, "metrics-listen '%s': not address:port", address);
	snprintf(host, sizeof(host), "%.*s", (int)(is_bracketed ? len - 2 : len), address + is_bracketed);
	rc = getaddrinfo(host, colon + 1, &hints, &found);
	if (rc != 0)
		return wd_err_set(err, EINVAL,
			"metrics-listen '%s': not an IPv4 address, or an IPv6 one in brackets, and a port", address);
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	rc = fd < 0 ? -errno : 0;
	if (rc == 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (rc == 0 && (bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 16) < 0))
		rc = -errno;
	freeaddrinfo(found);
	if (rc == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return wd_err_sys(err, -rc, "metrics-listen '%s'", address);
}

int metrics_page_start(const char *address, struct metrics_page **ret_page, struct wd_err *err)
{
	struct metrics_page *p;
	int fd;

	*ret_page = NULL;
	if (!address || !*address)
		return 0;
	fd = listen_on(address, err);
	if (fd < 0)
		return fd;
	p = calloc(1, sizeof(*p));
	if (p)
		*p = (struct metrics_page){.listener = fd, .stopping = eventfd(0, EFD_CLOEXEC)};
	if (!p || p->stopping < 0 || pthread_create(&p->thread, NULL, page_main, p) != 0) {
		if (p && p->stopping >= 0)
			close(p->stopping);
		free(p);
		close(fd);
		return wd_err_set(err, ENOMEM, "metrics-listen '%s': the thread did not start", address);
	}
	*ret_page = p;
	return 0;
}

void metrics_page_stop(struct metrics_page *p)
{
	uint64_t one = 1;

	if (!p)
		return;
	if (write(p->stopping, &one, sizeof(one)) != sizeof(one))
		wd_error("the page of metrics does not end"); /* cannot be: it counts to 2^64 */
	pthread_join(p->thread, NULL);
	close(p->listener);
	close(p->stopping);
	free(p);
}
