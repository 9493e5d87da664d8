/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read-only pages; a request is answered on libmicrohttpd's thread from counters, never by waiting. Who asks for the page
 * for people is put aside until another thread has made it.
 */
#include "agent/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "agent/page.h"
#include "agent/page_server.h"
#include "agent/status.h"
#include "common/log.h"

enum scope { SCOPE_LOCAL, SCOPE_ALL, SCOPE_OFF };

struct http {
	struct agent *agent;
	_Atomic bool has_begun; /* before: a standby, which has nothing to show */
	struct MHD_Daemon *daemon;
	enum scope scope;
	struct page_server *pages; /* from has_begun on; NULL: none */
	char policy[PAGE_POLICY_MAX];
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
	char *text, size_t len, enum MHD_ResponseMemoryMode mode)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, mode);
	enum MHD_Result result;

	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", type);
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result plain(struct MHD_Connection *connection, unsigned status, const char *text)
{
	return answer(connection, status, "text/plain; charset=utf-8", (char *)text, strlen(text),
		MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result metrics_page(struct http *h, struct MHD_Connection *connection)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return MHD_NO;
	status_print_metrics(h->agent, out);
	fclose(out);
	return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, len,
		MHD_RESPMEM_MUST_FREE);
}

/* ---- the page ---- */

static bool is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

	if (address->sa_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	if (address->sa_family != AF_INET6)
		return false;
	return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
		(IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
}

/* "localhost" or a number, with or without a port. */
static bool is_own_name(const char *host)
{
	char name[64];
	struct in6_addr any;
	size_t len = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
	bool is_v6 = host[0] == '[';

	if (len >= sizeof(name))
		return false;
	snprintf(name, sizeof(name), "%.*s", (int)len - is_v6, host + is_v6);
	return strcasecmp(name, "localhost") == 0 || inet_pton(is_v6 ? AF_INET6 : AF_INET, name, &any) == 1;
}

static bool may_see(const struct http *h, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");

	if (h->scope != SCOPE_LOCAL)
		return h->scope == SCOPE_ALL;
	return info && is_loopback(info->client_addr) && (!host || is_own_name(host));
}

static enum MHD_Result html(const struct http *h, struct MHD_Connection *connection, char *text, size_t len)
{
	const char *const headers[][2] = {{"Content-Type", "text/html; charset=utf-8"},
		{"Content-Security-Policy", h->policy}, {"X-Content-Type-Options", "nosniff"},
		{"Referrer-Policy", "no-referrer"}, {"Cross-Origin-Resource-Policy", "same-origin"},
		{"Cache-Control", "no-store"}};
	struct MHD_Response *response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
		MHD_add_response_header(response, headers[i][0], headers[i][1]);
	result = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

static void resume(void *connection)
{
	MHD_resume_connection(connection);
}

/* Called again for a connection that was put aside, with *state as it was left here. */
static enum MHD_Result front(struct http *h, struct MHD_Connection *connection, void **state)
{
	bool has_waited = *state != NULL;
	size_t len;
	char *text;

	if (!h->pages || !may_see(h, connection))
		return plain(connection, MHD_HTTP_OK,
			"warpdrive-agent " WD_VERSION "\n\n/metrics\n/healthz\n/readyz\n\n"
			"The page about datasets and mounts is not for you: setting status-page.\n");
	text = page_server_text(h->pages, has_waited, &len);
	if (text)
		return html(h, connection, text, len);
	if (has_waited)
		return plain(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "the page could not be made; try again\n");
	*state = h;
	MHD_suspend_connection(connection);
	if (page_server_ask(h->pages, resume, connection) < 0)
		MHD_resume_connection(connection); /* too many wait: an older page does */
	return MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
	const char *method, const char *version, const char *upload, size_t *upload_size, void **state)
{
	struct http *h = arg;

	if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0)
		return plain(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
	if (!atomic_load(&h->has_begun))
		return strcmp(url, "/healthz") == 0 || strcmp(url, "/readyz") == 0
			? plain(connection, MHD_HTTP_OK, "standing by\n")
			: plain(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "standing by\n");
	if (strcmp(url, "/metrics") == 0)
		return metrics_page(h, connection);
	if (strcmp(url, "/healthz") == 0)
		return plain(connection, MHD_HTTP_OK, "ok\n");
	if (strcmp(url, "/readyz") == 0)
		return keeper_link_is_up(h->agent->keeper)
			? plain(connection, MHD_HTTP_OK, "ok\n")
			: plain(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "no keeper is connected\n");
	if (strcmp(url, "/") == 0)
		return front(h, connection, state);
	return plain(connection, MHD_HTTP_NOT_FOUND, "no such page\n");
}

/* "address:port": IPv4, or IPv6 in brackets; [::] takes IPv4 as well. */
static int parse_address(const char *address, struct sockaddr_storage *ret, struct wd_err *err)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
	bool is_v6 = address[0] == '[';
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	int port = colon ? atoi(colon + 1) : -1, rc;
	char host[64];

	*ret = (struct sockaddr_storage){.ss_family = is_v6 ? AF_INET6 : AF_INET};
	if (!colon || len >= sizeof(host) || port < 0 || port > 65535 || (is_v6 && (len < 2 || colon[-1] != ']')))
		return wd_err_set(err, EINVAL, "http-listen '%s': not address:port", address);
	snprintf(host, sizeof(host), "%.*s", (int)(is_v6 ? len - 2 : len), address + is_v6);
	*(is_v6 ? &v6->sin6_port : &v4->sin_port) = htons((uint16_t)port);
	rc = is_v6     ? inet_pton(AF_INET6, host, &v6->sin6_addr)
	     : host[0] ? inet_pton(AF_INET, host, &v4->sin_addr)
		       : 1;
	return rc == 1 ? 0
		       : wd_err_set(err, EINVAL,
				 "http-listen '%s': not an IPv4 address, or an IPv6 one in brackets, and a port",
				 address);
}

/* A listening socket; MHD takes it over. */
static int listen_on(const char *address, struct wd_err *err)
{
	struct sockaddr_storage where;
	int one = 1, zero = 0, rc = parse_address(address, &where, err), fd;
	socklen_t len;

	if (rc < 0)
		return rc;
	len = where.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	fd = socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return wd_err_sys(err, errno, "http-listen '%s'", address);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (where.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (struct sockaddr *)&where, len) < 0 || listen(fd, 64) < 0) {
		int code = errno;

		close(fd);
		return wd_err_sys(err, code, "http-listen '%s': choose another with http-listen", address);
	}
	return fd;
}

static int parse_scope(const char *text, enum scope *ret_scope, struct wd_err *err)
{
	static const char *const names[] = {"local", "all", "off"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (text && strcmp(text, names[i]) != 0)
			continue;
		*ret_scope = (enum scope)i;
		return 0;
	}
	return wd_err_set(err, EINVAL, "setting 'status-page': '%.60s' is none of local, all, off", text);
}

int http_start(struct agent *a, const char *address, struct http **ret_http, struct wd_err *err)
{
	struct http *h;
	enum scope scope = SCOPE_OFF;
	int fd = parse_scope(a->settings->status_page, &scope, err);

	if (fd == 0)
		fd = listen_on(address, err);
	if (fd < 0)
		return fd;
	h = calloc(1, sizeof(*h));
	if (h) {
		h->agent = a;
		h->scope = scope;
		page_policy(h->policy);
		h->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, h,
			MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, 64u,
			MHD_OPTION_CONNECTION_TIMEOUT, 30u, MHD_OPTION_END);
	}
	if (!h || !h->daemon) {
		close(fd);
		free(h);
		return wd_err_set(err, ENOMEM, "http-listen '%s': the server did not start", address);
	}
	*ret_http = h;
	return 0;
}

void http_begin(struct http *h)
{
	struct wd_err err = WD_ERR_INIT;

	if (!h)
		return;
	if (h->scope != SCOPE_OFF && page_server_start(h->agent, &h->pages, &err) < 0)
		wd_warn("%s", err.msg);
	atomic_store(&h->has_begun, true);
}

void http_stop(struct http *h)
{
	if (!h)
		return;
	page_server_stop(h->pages); /* none may be aside when the daemon is stopped */
	MHD_stop_daemon(h->daemon);
	page_server_free(h->pages);
	free(h);
}
