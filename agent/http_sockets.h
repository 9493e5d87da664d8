/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HTTP_SOCKETS_H
#define WD_AGENT_HTTP_SOCKETS_H
/*
 * The sockets of one curl multi. curl does not say which of them a running request has, but tells its local port when
 * it is about to be sent. Used on the multi's thread alone; all zero is empty.
 */
#include <curl/curl.h>

struct http_sockets {
	struct http_socket {
		int fd;
		int port; /* local; 0: not known yet */
	} *all;
	unsigned n, cap;
};

/* A socket was made, and is not connected yet. One that there is no memory for is not found. */
void http_sockets_add(struct http_sockets *s, int fd);
/* The one with this local port, or -1: none, or more than one. */
int http_sockets_find(struct http_sockets *s, int port);
/* CURLOPT_CLOSESOCKETFUNCTION; arg: the sockets, which so outlive the multi's connections. */
int http_sockets_close(void *arg, curl_socket_t fd);
void http_sockets_done(struct http_sockets *s);

#endif
