/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_HTTP_ORIGIN_H
#define WD_AGENT_TEST_HTTP_ORIGIN_H
/*
 * A small HTTP server inside a test: objects in memory, ranges, If-Match, and a script of faults
 * for the next requests. One thread accepts, one serves each connection. Included by one .c per
 * program.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum http_fault {
	FAULT_NONE,
	FAULT_IGNORE_RANGE,    /* 200 and everything */
	FAULT_SHORT_BODY,      /* half of the body, then the end */
	FAULT_SHORT_LENGTH,    /* Content-Length and body half as long as the range */
	FAULT_LONG_BODY,       /* no Content-Length, and too much */
	FAULT_WRONG_RANGE,     /* Content-Range one byte further on */
	FAULT_NO_RANGE_HEADER, /* 206 without Content-Range */
	FAULT_OTHER_TOTAL,     /* Content-Range with another size */
	FAULT_OTHER_ETAG,      /* the right bytes under another ETag */
	FAULT_IGNORE_IF_MATCH,
	FAULT_COMPRESSED, /* says gzip */
	FAULT_STATUS,	  /* answers `number` and `text` */
	FAULT_RESET,	  /* RST instead of an answer */
	FAULT_RESET_HALF, /* ... in the middle of the body */
	FAULT_HANG,	  /* no answer until the server stops */
	FAULT_HOLD,	  /* no answer until http_origin_release() */
	FAULT_REDIRECT,	  /* 302 to `text` */
	FAULT_RAW,	  /* sends `text` as it is and ends the connection; `number` 1: by RST */
	FAULT_BIG_HEADER, /* a header of 1 MiB */
	FAULT_STALL,	  /* the headers and a few bytes, then nothing until the server stops */
};

#define ORIGIN_TEST_ETAG 128
struct http_object {
	char path[1200]; /* as on the wire, with the query */
	const void *data;
	size_t len;
	char etag[ORIGIN_TEST_ETAG];
	char modified[40];
	char type[40];
	char moved[200]; /* answered by a redirect to there */
};

struct http_script {
	enum http_fault fault;
	int number;
	char text[400];
};

#define HTTP_ORIGIN_OBJECTS 32
#define HTTP_ORIGIN_SCRIPT 64
#define HTTP_ORIGIN_CONNECTIONS 256

struct http_origin_conn {
	struct http_origin *o;
	int fd;
};

struct http_origin {
	int listener, port, stop_fd, hold_fd;
	pthread_t acceptor;
	pthread_t workers[HTTP_ORIGIN_CONNECTIONS];
	struct http_origin_conn conns[HTTP_ORIGIN_CONNECTIONS]; /* a worker's */
	unsigned nworkers;
	_Atomic bool is_prompt; /* set before it is asked: no body waits 40 ms until its head is acknowledged */
	pthread_mutex_t lock;
	pthread_cond_t arrived;
	/* guarded by lock */
	struct http_object objects[HTTP_ORIGIN_OBJECTS];
	unsigned nobjects;
	struct http_script script[HTTP_ORIGIN_SCRIPT];
	unsigned nscript, script_at;
	bool repeats_last; /* the last fault of the script stays for ever */
	/* Looks at a request's head: NULL lets it in, else 403 with this S3 error. Set by http_origin_guard(). */
	const char *(*guard)(const char *head);
	unsigned nrequests;
	char last[8192];      /* the last request's head */
	char form[4096];      /* the last POST's body, for guard */
	char lines[64][1500]; /* the request lines, in order */
};

static inline void http_origin_write(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		p += n;
		len -= (size_t)n;
	}
}

/* The value of a header in a request's head; false when it is absent. */
static inline bool http_origin_header(const char *head, const char *name, char *out, size_t cap)
{
	char needle[80];
	const char *at, *end;

	snprintf(needle, sizeof(needle), "\r\n%s: ", name);
	at = strcasestr(head, needle);
	if (!at)
		return false;
	at += strlen(needle);
	end = strstr(at, "\r\n");
	snprintf(out, cap, "%.*s", (int)(end - at), at);
	return true;
}

static inline void http_origin_reset(int fd)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* Waits for the server's end, or for a release; true when it goes on. */
static inline bool http_origin_park(struct http_origin *o, bool is_hold)
{
	struct pollfd fds[2] = {{.fd = o->stop_fd, .events = POLLIN},
		{.fd = is_hold ? o->hold_fd : -1, .events = POLLIN}};

	while (poll(fds, 2, -1) < 0 && errno == EINTR)
		;
	return !(fds[0].revents & POLLIN);
}

static inline bool http_origin_plain(
	int fd, int status, const char *headers, const char *body, bool is_head)
{
	char head[1024];
	int n = snprintf(head, sizeof(head), "HTTP/1.1 %d x\r\nContent-Length: %zu\r\n%s\r\n",
		status, strlen(body), headers);

	http_origin_write(fd, head, (size_t)n);
	if (!is_head)
		http_origin_write(fd, body, strlen(body));
	return true;
}

/* The faults that answer nothing real; true when the request is dealt with. */
static inline bool http_origin_fault(
	struct http_origin *o, int fd, const struct http_script *s, bool is_head, bool *ret_keeps)
{
	char headers[600];

	*ret_keeps = true;
	switch (s->fault) {
	case FAULT_STATUS:
		http_origin_plain(fd, s->number, "Retry-After: 0\r\n", s->text, is_head);
		return true;
	case FAULT_REDIRECT:
		snprintf(headers, sizeof(headers), "Location: %s\r\n", s->text);
		http_origin_plain(fd, s->number ? s->number : 302, headers, "", is_head);
		return true;
	case FAULT_RAW:
		http_origin_write(fd, s->text, strlen(s->text));
		if (s->number)
			http_origin_reset(fd);
		*ret_keeps = false;
		return true;
	case FAULT_BIG_HEADER:
		http_origin_write(fd, "HTTP/1.1 206 x\r\nX-Big: ", 23);
		memset(headers, 'x', sizeof(headers));
		for (size_t n = 0; n < 1 << 20; n += sizeof(headers))
			http_origin_write(fd, headers, sizeof(headers));
		*ret_keeps = false;
		return true;
	case FAULT_RESET:
		http_origin_reset(fd);
		*ret_keeps = false;
		return true;
	case FAULT_HANG:
		http_origin_park(o, false);
		*ret_keeps = false;
		return true;
	case FAULT_HOLD:
		*ret_keeps = http_origin_park(o, true);
		return !*ret_keeps;
	default:
		return false;
	}
}

static inline bool http_origin_serve(struct http_origin *o, int fd, const char *head,
	const struct http_object *obj, const struct http_script *s, bool is_head)
{
	char range[100], match[100], out[1024];
	uint64_t first = 0, last = obj->len ? obj->len - 1 : 0, total = obj->len;
	bool is_range = !is_head && s->fault != FAULT_IGNORE_RANGE &&
			http_origin_header(head, "Range", range, sizeof(range)) &&
			sscanf(range, "bytes=%" SCNu64 "-%" SCNu64, &first, &last) == 2;
	size_t len, body;
	int n;

	if (s->fault != FAULT_IGNORE_IF_MATCH && obj->etag[0] &&
		http_origin_header(head, "If-Match", match, sizeof(match)) &&
		strcmp(match, obj->etag) != 0)
		return http_origin_plain(fd, 412, "", "", is_head);
	if (is_range && first >= obj->len)
		return http_origin_plain(fd, 416, "", "", is_head);
	if (is_range && last >= obj->len)
		last = obj->len - 1;
	len = body = obj->len ? last - first + 1 : 0;
	if (!is_range)
		len = body = obj->len, first = 0;
	if (s->fault == FAULT_SHORT_LENGTH)
		len = body = len / 2;
	if (s->fault == FAULT_OTHER_TOTAL)
		total++;
	n = snprintf(out, sizeof(out), "HTTP/1.1 %s\r\nDate: Sat, 03 Jan 2026 00:00:00 GMT\r\n",
		is_range ? "206 Partial Content" : "200 OK");
	if (s->fault != FAULT_LONG_BODY)
		n += snprintf(out + n, sizeof(out) - (size_t)n, "Content-Length: %zu\r\n", len);
	if (is_range && s->fault != FAULT_NO_RANGE_HEADER)
		n += snprintf(out + n, sizeof(out) - (size_t)n,
			"Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n",
			first + (s->fault == FAULT_WRONG_RANGE),
			last + (s->fault == FAULT_WRONG_RANGE), total);
	if (obj->etag[0])
		n += snprintf(out + n, sizeof(out) - (size_t)n, "ETag: %s\r\n",
			s->fault == FAULT_OTHER_ETAG ? "\"other\"" : obj->etag);
	if (obj->modified[0])
		n += snprintf(
			out + n, sizeof(out) - (size_t)n, "Last-Modified: %s\r\n", obj->modified);
	if (s->fault == FAULT_COMPRESSED)
		n += snprintf(out + n, sizeof(out) - (size_t)n, "Content-Encoding: gzip\r\n");
	n += snprintf(out + n, sizeof(out) - (size_t)n, "Content-Type: %s\r\n%s\r\n",
		obj->type[0] ? obj->type : "application/octet-stream",
		s->fault == FAULT_LONG_BODY ? "Connection: close\r\n" : "");
	http_origin_write(fd, out, (size_t)n);
	if (is_head)
		return true;
	if (s->fault == FAULT_SHORT_BODY || s->fault == FAULT_RESET_HALF)
		body /= 2;
	if (s->fault == FAULT_STALL) {
		http_origin_write(fd, (const char *)obj->data + first, body < 100 ? body / 2 : 100);
		http_origin_park(o, false);
		return false;
	}
	http_origin_write(fd, (const char *)obj->data + first, body);
	if (s->fault == FAULT_LONG_BODY)
		http_origin_write(fd, "more than was asked for", 23);
	if (s->fault == FAULT_RESET_HALF)
		http_origin_reset(fd);
	return body == len && s->fault != FAULT_LONG_BODY;
}

/* One request; false when the connection ends. */
static inline bool http_origin_request(struct http_origin *o, int fd, const char *head)
{
	struct http_script script = {0};
	struct http_object obj = {0};
	char method[8] = "", path[1500] = "", value[40];
	const char *refused;
	bool found = false, keeps, is_head;

	sscanf(head, "%7s %1499s", method, path);
	is_head = strcmp(method, "HEAD") == 0;
	pthread_mutex_lock(&o->lock);
	snprintf(o->last, sizeof(o->last), "%s", head);
	snprintf(o->lines[o->nrequests % 64], sizeof(o->lines[0]), "%.*s",
		(int)(strstr(head, "\r\n") - head), head);
	o->nrequests++;
	if (o->script_at < o->nscript) {
		script = o->script[o->script_at];
		if (!o->repeats_last || o->script_at + 1 < o->nscript)
			o->script_at++;
	}
	for (unsigned i = 0; i < o->nobjects && !found; i++) {
		if (strcmp(o->objects[i].path, path) == 0) {
			obj = o->objects[i];
			found = true;
		}
	}
	pthread_cond_broadcast(&o->arrived);
	refused = o->guard ? o->guard(head) : NULL;
	pthread_mutex_unlock(&o->lock);
	if (refused) {
		char body[200];

		snprintf(body, sizeof(body), "<?xml version='1.0'?><Error><Code>%s</Code></Error>", refused);
		return http_origin_plain(fd, 403, "", body, is_head);
	}
	/* a body that nobody expects */
	assert(strcmp(method, "POST") == 0 || !http_origin_header(head, "Content-Length", value, sizeof(value)));
	if (http_origin_fault(o, fd, &script, is_head, &keeps))
		return keeps;
	if (!found)
		return http_origin_plain(fd, 404, "", "", is_head);
	if (obj.moved[0]) {
		char headers[240];

		snprintf(headers, sizeof(headers), "Location: %s\r\n", obj.moved);
		return http_origin_plain(fd, 301, headers, "", is_head);
	}
	return http_origin_serve(o, fd, head, &obj, &script, is_head);
}

/* Takes in the rest of a POST's body, of which `have` bytes are at body already. */
static inline bool http_origin_form(struct http_origin *o, int fd, const char *head, const char *body, size_t have)
{
	char value[40], form[sizeof(o->form)];
	size_t len = 0;

	if (http_origin_header(head, "Content-Length", value, sizeof(value)))
		len = (size_t)atol(value);
	assert(len < sizeof(form) && have <= len);
	memcpy(form, body, have);
	while (have < len) {
		ssize_t n = recv(fd, form + have, len - have, 0);

		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	form[len] = 0;
	pthread_mutex_lock(&o->lock);
	memcpy(o->form, form, len + 1);
	pthread_mutex_unlock(&o->lock);
	return true;
}

static inline void *http_origin_connection(void *arg)
{
	struct http_origin_conn *c = arg;
	char head[8192];
	size_t len = 0;
	bool keeps = true;

	while (keeps) {
		struct pollfd fds[2] = {
			{.fd = c->fd, .events = POLLIN}, {.fd = c->o->stop_fd, .events = POLLIN}};
		ssize_t n;
		char *end;

		if (poll(fds, 2, -1) < 0 || (fds[1].revents & POLLIN))
			break;
		n = recv(c->fd, head + len, sizeof(head) - 1 - len, 0);
		if (n <= 0)
			break;
		len += (size_t)n;
		head[len] = 0;
		end = strstr(head, "\r\n\r\n");
		if (!end)
			continue;
		end[2] = 0;
		if (strncmp(head, "POST ", 5) == 0 &&
			!http_origin_form(c->o, c->fd, head, end + 4, len - (size_t)(end + 4 - head)))
			break;
		keeps = http_origin_request(c->o, c->fd, head);
		len = 0; /* no pipelining */
	}
	close(c->fd);
	return NULL;
}

static inline void *http_origin_accept(void *arg)
{
	struct http_origin *o = arg;

	for (;;) {
		struct pollfd fds[2] = {{.fd = o->listener, .events = POLLIN},
			{.fd = o->stop_fd, .events = POLLIN}};
		struct http_origin_conn *c;
		int fd;

		if (poll(fds, 2, -1) < 0 || (fds[1].revents & POLLIN))
			return NULL;
		fd = accept4(o->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (atomic_load(&o->is_prompt))
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
		assert(o->nworkers < HTTP_ORIGIN_CONNECTIONS);
		c = &o->conns[o->nworkers];
		*c = (struct http_origin_conn){.o = o, .fd = fd};
		pthread_create(&o->workers[o->nworkers++], NULL, http_origin_connection, c);
	}
}

/* A port of this machine that is bound, and refuses until somebody listens on it. */
static inline int http_origin_bind(int *ret_port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		abort();
	*ret_port = ntohs(addr.sin_port);
	return fd;
}

/* Serves on a socket of http_origin_bind(), and takes it over. */
static inline struct http_origin *http_origin_start_on(int fd, int port)
{
	struct http_origin *o = calloc(1, sizeof(*o));

	assert(o);
	/* a proxy of the machine is none of the test's business; set once: threads may read it by now */
	if (!getenv("no_proxy") || strcmp(getenv("no_proxy"), "*") != 0)
		setenv("no_proxy", "*", 1);
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->arrived, NULL);
	o->stop_fd = eventfd(0, EFD_CLOEXEC);
	o->hold_fd = eventfd(0, EFD_CLOEXEC);
	o->listener = fd;
	if (listen(o->listener, 128) < 0)
		abort();
	o->port = port;
	pthread_create(&o->acceptor, NULL, http_origin_accept, o);
	return o;
}

static inline struct http_origin *http_origin_start(void)
{
	int port, fd = http_origin_bind(&port);

	return http_origin_start_on(fd, port);
}

static inline void http_origin_stop(struct http_origin *o)
{
	uint64_t one = 1;
	ssize_t n = write(o->stop_fd, &one, sizeof(one));

	assert(n == sizeof(one));
	pthread_join(o->acceptor, NULL);
	for (unsigned i = 0; i < o->nworkers; i++)
		pthread_join(o->workers[i], NULL);
	close(o->listener);
	close(o->stop_fd);
	close(o->hold_fd);
	free(o);
}

/* Lets everything go on that FAULT_HOLD holds, now and later. */
static inline void http_origin_release(struct http_origin *o)
{
	uint64_t one = 1;
	ssize_t n = write(o->hold_fd, &one, sizeof(one));

	assert(n == sizeof(one));
}

/* Adds or replaces an object; data is borrowed. */
static inline void http_origin_put(struct http_origin *o, const char *path, const void *data,
	size_t len, const char *etag, const char *type)
{
	struct http_object *obj;

	pthread_mutex_lock(&o->lock);
	for (obj = o->objects; obj < o->objects + o->nobjects; obj++)
		if (strcmp(obj->path, path) == 0)
			break;
	assert(obj < o->objects + HTTP_ORIGIN_OBJECTS);
	if (obj == o->objects + o->nobjects)
		o->nobjects++;
	*obj = (struct http_object){.data = data, .len = len};
	snprintf(obj->path, sizeof(obj->path), "%s", path);
	snprintf(obj->etag, sizeof(obj->etag), "%s", etag ? etag : "");
	snprintf(obj->type, sizeof(obj->type), "%s", type ? type : "");
	snprintf(obj->modified, sizeof(obj->modified), "Thu, 01 Jan 2026 00:00:00 GMT");
	pthread_mutex_unlock(&o->lock);
}

static inline void http_origin_text(
	struct http_origin *o, const char *path, const char *text, const char *type)
{
	http_origin_put(o, path, text, strlen(text), "\"t\"", type);
}

/* As servers do with a directory that is asked for without the "/" behind it. */
static inline void http_origin_redirect(struct http_origin *o, const char *path, const char *to)
{
	http_origin_put(o, path, NULL, 0, NULL, NULL);
	pthread_mutex_lock(&o->lock);
	for (unsigned i = 0; i < o->nobjects; i++)
		if (strcmp(o->objects[i].path, path) == 0)
			snprintf(o->objects[i].moved, sizeof(o->objects[i].moved), "%s", to);
	pthread_mutex_unlock(&o->lock);
}

/* The next request meets this fault; calls add up. */
static inline void http_origin_fail(
	struct http_origin *o, enum http_fault fault, int number, const char *text)
{
	pthread_mutex_lock(&o->lock);
	assert(o->nscript < HTTP_ORIGIN_SCRIPT);
	o->script[o->nscript] = (struct http_script){.fault = fault, .number = number};
	snprintf(o->script[o->nscript].text, sizeof(o->script[0].text), "%s", text ? text : "");
	o->nscript++;
	pthread_mutex_unlock(&o->lock);
}

static inline void http_origin_fail_always(
	struct http_origin *o, enum http_fault fault, int number, const char *text)
{
	http_origin_fail(o, fault, number, text);
	pthread_mutex_lock(&o->lock);
	o->repeats_last = true;
	pthread_mutex_unlock(&o->lock);
}

/* Whatever the script still holds no longer happens. */
static inline void http_origin_heal(struct http_origin *o)
{
	pthread_mutex_lock(&o->lock);
	o->nscript = o->script_at = 0;
	o->repeats_last = false;
	pthread_mutex_unlock(&o->lock);
}

/* Runs under the server's lock. */
static inline void http_origin_guard(struct http_origin *o, const char *(*guard)(const char *head))
{
	pthread_mutex_lock(&o->lock);
	o->guard = guard;
	pthread_mutex_unlock(&o->lock);
}

static inline unsigned http_origin_requests(struct http_origin *o)
{
	unsigned n;

	pthread_mutex_lock(&o->lock);
	n = o->nrequests;
	pthread_mutex_unlock(&o->lock);
	return n;
}

static inline void http_origin_wait_requests(struct http_origin *o, unsigned n)
{
	pthread_mutex_lock(&o->lock);
	while (o->nrequests < n)
		pthread_cond_wait(&o->arrived, &o->lock);
	pthread_mutex_unlock(&o->lock);
}

#endif
