/* SPDX-License-Identifier: Apache-2.0 */
/* See http_sockets.h. */
#include "agent/http_sockets.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void forget(struct http_sockets *s, int fd)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (s->all[i].fd == fd) {
			s->all[i] = s->all[--s->n];
			return;
		}
	}
}

void http_sockets_add(struct http_sockets *s, int fd)
{
	forget(s, fd);
	if (s->n == s->cap) {
		unsigned cap = s->cap ? s->cap * 2 : 16;
		struct http_socket *grown = realloc(s->all, cap * sizeof(*grown));

		if (!grown)
			return;
		s->all = grown;
		s->cap = cap;
	}
	s->all[s->n++] = (struct http_socket){.fd = fd};
}

static int port_of(int fd)
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return 0;
	return a.ss_family == AF_INET	 ? ntohs(((struct sockaddr_in *)&a)->sin_port)
		: a.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&a)->sin6_port)
					  : 0;
}

int http_sockets_find(struct http_sockets *s, int port)
{
	int found = -1;

	for (struct http_socket *one = s->all; one < s->all + s->n; one++) {
		if (one->port == 0)
			one->port = port_of(one->fd);
		if (one->port != port)
			continue;
		if (found >= 0) /* to different servers they may share it */
			return -1;
		found = one->fd;
	}
	return found;
}

int http_sockets_close(void *arg, curl_socket_t fd)
{
	forget(arg, fd);
	return close(fd);
}

void http_sockets_done(struct http_sockets *s)
{
	free(s->all);
	*s = (struct http_sockets){0};
}
