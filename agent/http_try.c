/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One try of an HTTP request: set up, and judged when it is over.
 *
 * Every try is set up from nothing (options of the one before are reset), follows no redirect by
 * itself and asks for identity encoding. Redirects are checked here: at most four, http(s) only,
 * never from https to http, and never with the Authorization header to another authority. Which addresses
 * may be reached at all is the operator's word (origin_policy.h), asked for each connection.
 *
 * Runs on transfer threads and on those of blocking calls; a try belongs to one thread.
 */
#include "agent/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <openssl/x509_vfy.h>

#include "agent/address_set.h"

struct http_limits http_limits = {.connect_ms = 5000, .low_speed_s = 15};

/* ---- what goes on the wire ---- */

static int slist_add(struct curl_slist **list, const char *line)
{
	struct curl_slist *grown = curl_slist_append(*list, line);

	if (!grown)
		return -ENOMEM;
	*list = grown;
	return 0;
}

/* Header lines may hold credentials: overwritten before they are freed. */
static void slist_wipe(struct curl_slist *list)
{
	for (struct curl_slist *l = list; l; l = l->next)
		explicit_bzero(l->data, strlen(l->data));
	curl_slist_free_all(list);
}

int http_wire_add(struct http_wire *w, const char *fmt, ...)
{
	char *line = NULL;
	va_list ap;
	int rc;

	va_start(ap, fmt);
	rc = vasprintf(&line, fmt, ap);
	va_end(ap);
	if (rc < 0)
		return -ENOMEM;
	rc = slist_add(&w->headers, line);
	origin_forget(line);
	return rc;
}

void http_wire_done(struct http_wire *w)
{
	free(w->url);
	slist_wipe(w->headers);
	origin_forget(w->authorization);
	*w = (struct http_wire){0};
}

/* ---- one try ---- */

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
	struct http_try *t = arg;

	http_answer_line(&t->answer, data, size * n);
	return size * n;
}

/* The policy's word on an address; a refusal is noted. */
static bool may_reach(struct http_try *t, const struct in6_addr *address)
{
	char range[80], text[INET6_ADDRSTRLEN];
	bool is_v4 = IN6_IS_ADDR_V4MAPPED(address);

	if (origin_policy_allows(http_client_policy(), address, t->is_other_host, range, sizeof(range)))
		return true;
	if (!inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? &address->s6_addr[12] : address->s6_addr, text,
		    sizeof(text)))
		text[0] = '\0';
	snprintf(t->why_refused, sizeof(t->why_refused), "%s '%s' is refused by blocked-addresses (%s)",
		t->hops > 0 ? "a redirect to" : "the address", text, range);
	return false;
}

/* Every connection is made here: this is the address itself, whatever names and DNS say, now or later. */
static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct http_try *t = arg;
	struct in6_addr address;
	int fd;

	(void)purpose;
	if (!address_of(&a->addr, &address) || !may_reach(t, &address)) {
		t->is_refused_address = true;
		return CURL_SOCKET_BAD;
	}
	t->has_socket = true;
	fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
	if (fd >= 0 && t->sockets)
		http_sockets_add(t->sockets, fd);
	return fd;
}

/* ... and here a connection is about to be used, maybe one that another request has made. */
static int on_connected(void *arg, char *primary_ip, char *local_ip, int port, int local_port)
{
	struct http_try *t = arg;
	struct in6_addr address;

	(void)local_ip;
	(void)port;
	if (t->sockets)
		t->fd = http_sockets_find(t->sockets, local_port);
	if (address_of_number(primary_ip, &address) && may_reach(t, &address))
		return CURL_PREREQFUNC_OK;
	t->is_refused_address = true;
	t->has_socket = false;
	return CURL_PREREQFUNC_ABORT;
}

/* True when the try failed because there was no other address. */
static bool is_refused(const struct http_try *t)
{
	return t->is_refused_address && !t->has_socket;
}

static int set_headers(struct http_try *t, const char *const *extra)
{
	int rc = slist_add(&t->sent, "Accept-Encoding: identity");

	for (struct curl_slist *l = t->wire.headers; l && rc == 0; l = l->next)
		rc = slist_add(&t->sent, l->data);
	for (; extra && *extra && rc == 0; extra++)
		rc = slist_add(&t->sent, *extra);
	if (rc == 0 && t->wire.authorization && !t->is_foreign)
		rc = slist_add(&t->sent, t->wire.authorization);
	return rc;
}

int http_try_start(struct http_try *t, const struct http_request *r, const char *const *extra)
{
	CURL *e = t->easy;
	int rc;

	http_answer_reset(&t->answer);
	t->error_len = 0;
	t->curl_text[0] = 0;
	t->is_refused_address = t->has_socket = false;
	t->fd = -1;
	t->fault = ORIGIN_FAULT_OTHER;
	rc = t->site->prepare(t->site, r, &t->wire);
	if (rc == 0)
		rc = set_headers(t, extra);
	if (rc < 0) {
		http_try_end(t);
		return rc;
	}
	pace_request(t->site->base.pace);
	curl_easy_reset(e);
	curl_easy_setopt(e, CURLOPT_URL, t->redirect ? t->redirect : t->wire.url);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->sent);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->curl_text);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, t);
	if (t->sockets) {
		curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, http_sockets_close);
		curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, t->sockets);
	}
	curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
	curl_easy_setopt(e, CURLOPT_PREREQDATA, t);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	curl_easy_setopt(e, CURLOPT_USERAGENT, "warpdrive/" WD_VERSION);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, http_limits.connect_ms);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, http_limits.low_speed_s);
	curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1024L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	/* a resolver thread that hangs in DNS is left alone, not joined */
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	if (r->is_head)
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (r->form)
		curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->form);
	if (t->site->ca_cert)
		curl_easy_setopt(e, CURLOPT_CAINFO, t->site->ca_cert);
	return 0;
}

void http_try_end(struct http_try *t)
{
	http_wire_done(&t->wire);
	slist_wipe(t->sent);
	t->sent = NULL;
}

void http_try_reset(struct http_try *t)
{
	free(t->redirect);
	t->redirect = NULL;
	t->hops = 0;
	t->is_foreign = false;
	t->is_other_host = false;
}

void http_try_error_bytes(struct http_try *t, const void *data, size_t len)
{
	size_t room = sizeof(t->error_body) - t->error_len;

	if (len > room)
		len = room;
	memcpy(t->error_body + t->error_len, data, len);
	t->error_len += len;
}

/* ---- judging ---- */

#if LIBCURL_VERSION_NUM >= 0x080600
#define HTTP_TOO_LARGE CURLE_TOO_LARGE
#else
#define HTTP_TOO_LARGE CURLE_OBSOLETE20 /* never given */
#endif

/* What curl's code says about the kind of fault. */
static enum origin_fault curl_fault(const struct http_try *t, CURLcode rc)
{
	curl_off_t connected_us = 0;

	if (is_refused(t))
		return t->hops > 0 ? ORIGIN_FAULT_REDIRECT : ORIGIN_FAULT_DENIED;
	switch (rc) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return ORIGIN_FAULT_DNS;
	case CURLE_COULDNT_CONNECT:
		return ORIGIN_FAULT_CONNECT;
	case CURLE_OPERATION_TIMEDOUT:
		curl_easy_getinfo(t->easy, CURLINFO_CONNECT_TIME_T, &connected_us);
		return connected_us > 0 ? ORIGIN_FAULT_STALL : ORIGIN_FAULT_CONNECT;
	case CURLE_ABORTED_BY_CALLBACK: /* the deadline */
		return ORIGIN_FAULT_STALL;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR:
		return ORIGIN_FAULT_TLS;
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
		return ORIGIN_FAULT_RESET;
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_FILESIZE_EXCEEDED:
	case CURLE_BAD_CONTENT_ENCODING:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_OUT_OF_MEMORY: /* headers without end, */
	case HTTP_TOO_LARGE:	  /* since curl 8.6 */
		return ORIGIN_FAULT_WRONG;
	default:
		return ORIGIN_FAULT_OTHER;
	}
}

/* Why a certificate was not accepted, and what helps. */
static void explain_tls(const struct http_try *t, char *text, size_t cap)
{
	size_t used = strlen(text);
	long reason = 0;

	/* a name that does not fit is curl's own verdict, not OpenSSL's */
	if (strstr(text, "subject name")) {
		snprintf(text + used, cap - used,
			"; the URL or endpoint must use a name that is in the server's certificate");
		return;
	}
	curl_easy_getinfo(t->easy, CURLINFO_SSL_VERIFYRESULT, &reason);
	switch (reason) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID:
		snprintf(text + used, cap - used,
			"; the server needs another certificate, or this machine's clock is wrong");
		return;
	default:
		snprintf(text + used, cap - used,
			"; if a private CA signed the server's certificate, give its file with ca-cert (in "
			"Kubernetes caCert)");
	}
}

static enum http_verdict judge_curl(struct http_try *t, CURLcode rc, char *text, size_t cap)
{
	t->fault = curl_fault(t, rc);
	if (is_refused(t)) {
		snprintf(text, cap, "%s", t->why_refused);
		return HTTP_ACCES;
	}
	snprintf(text, cap, "%s", t->curl_text[0] ? t->curl_text : curl_easy_strerror(rc));
	switch (rc) {
	case CURLE_PEER_FAILED_VERIFICATION:
		explain_tls(t, text, cap);
		return HTTP_FATAL;
	case CURLE_PARTIAL_FILE:
		snprintf(text, cap, "the answer ended early: %s", t->curl_text);
		return HTTP_RETRY;
	case CURLE_OUT_OF_MEMORY:
	case HTTP_TOO_LARGE:
		snprintf(text, cap, "the answer's headers are too long, or memory is short");
		return HTTP_RETRY;
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
	case CURLE_LOGIN_DENIED:
		return HTTP_FATAL;
	case CURLE_ABORTED_BY_CALLBACK:
		snprintf(text, cap, "no whole answer came in time");
		return HTTP_RETRY;
	default:
		return HTTP_RETRY;
	}
}

/* host[:port] of a URL, and its scheme; false when it has none. */
static bool split_url(const char *url, bool *ret_is_https, char *authority, size_t cap)
{
	const char *host;
	size_t len;

	if (strncasecmp(url, "https://", 8) == 0)
		host = url + 8;
	else if (strncasecmp(url, "http://", 7) == 0)
		host = url + 7;
	else
		return false;
	*ret_is_https = host == url + 8;
	len = strcspn(host, "/?#");
	if (len == 0 || len >= cap || memchr(host, '@', len))
		return false;
	memcpy(authority, host, len);
	authority[len] = 0;
	return true;
}

static size_t host_len(const char *authority)
{
	const char *bracket = strchr(authority, ']');

	return bracket ? (size_t)(bracket + 1 - authority) : strcspn(authority, ":");
}

static bool is_same_host(const char *a, const char *b)
{
	return host_len(a) == host_len(b) && strncasecmp(a, b, host_len(a)) == 0;
}

/* Takes the redirect's target over when the policy allows it. */
static enum http_verdict judge_redirect(struct http_try *t, char *text, size_t cap)
{
	char authority[300];
	char *to = NULL, *from = NULL, *copy;
	bool is_https, was_https = false;

	t->fault = ORIGIN_FAULT_REDIRECT;
	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &to);
	curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &from);
	if (!to) {
		snprintf(text, cap, "HTTP %d without a Location", t->answer.status);
		return HTTP_FATAL;
	}
	if (t->hops >= HTTP_MAX_HOPS) {
		snprintf(text, cap, "more than %d redirects", HTTP_MAX_HOPS);
		return HTTP_FATAL;
	}
	was_https = from && strncasecmp(from, "https://", 8) == 0;
	if (!split_url(to, &is_https, authority, sizeof(authority)) || (was_https && !is_https)) {
		snprintf(text, cap, "HTTP %d: a redirect to something else than %s is refused",
			t->answer.status, was_https ? "https" : "http(s)");
		return HTTP_FATAL;
	}
	copy = strdup(to);
	if (!copy) {
		snprintf(text, cap, "HTTP %d: out of memory for the redirect", t->answer.status);
		return HTTP_RETRY;
	}
	free(t->redirect);
	t->redirect = copy;
	t->hops++;
	t->is_foreign = t->is_foreign || strcasecmp(authority, t->site->authority) != 0;
	t->is_other_host = t->is_other_host || !is_same_host(authority, t->site->authority);
	return HTTP_REDIRECT;
}

static enum origin_fault status_fault(int status, enum http_verdict verdict, const char *text)
{
	switch (verdict) {
	case HTTP_STALE:
		return ORIGIN_FAULT_CHANGED;
	case HTTP_NOENT:
		return ORIGIN_FAULT_GONE;
	case HTTP_ACCES:
	case HTTP_UNAUTH:
		return ORIGIN_FAULT_DENIED;
	default:
		break;
	}
	if (status == 429 || strstr(text, "SlowDown"))
		return ORIGIN_FAULT_THROTTLED;
	if (status >= 300 && status < 400)
		return ORIGIN_FAULT_REDIRECT;
	return status >= 500 ? ORIGIN_FAULT_SERVER : status == 408 ? ORIGIN_FAULT_STALL : ORIGIN_FAULT_OTHER;
}

void http_try_is_wrong(struct http_try *t, enum http_verdict verdict)
{
	t->fault = verdict == HTTP_STALE ? ORIGIN_FAULT_CHANGED : ORIGIN_FAULT_WRONG;
}

void http_try_report(struct http_try *t, enum http_verdict verdict, const char *text)
{
	if (verdict == HTTP_OK)
		http_site_note(t->site, ORIGIN_WELL, "");
	else if (verdict == HTTP_UNAUTH)
		http_site_note(t->site, ORIGIN_UNAUTHENTICATED, text);
	if (verdict == HTTP_OK || verdict == HTTP_REDIRECT) {
		health_answered(t->site->health);
		return;
	}
	/* that a name does not exist is an answer, unless it was there a moment ago */
	if (t->fault != ORIGIN_FAULT_GONE || t->is_get)
		origin_stats.faults[t->fault]++;
	if (t->fault == ORIGIN_FAULT_THROTTLED || t->answer.status == 503)
		pace_complaint(t->site->base.pace, wd_now_ns());
	health_failed(t->site->health, t->fault, http_answer_wait_ms(&t->answer, time(NULL)), text);
}

enum http_verdict http_try_judge(struct http_try *t, CURLcode rc, char *text, size_t cap)
{
	enum http_verdict verdict;

	text[0] = 0;
	if (rc != CURLE_OK)
		return judge_curl(t, rc, text, cap);
	if (t->answer.has_date && !t->is_foreign)
		t->site->base.clock_skew_s = t->answer.date_s - (int64_t)time(NULL);
	verdict = http_classify(t->answer.status);
	if (verdict == HTTP_REDIRECT && t->site->follows_redirects)
		return judge_redirect(t, text, cap);
	if (verdict == HTTP_OK)
		return HTTP_OK;
	if (verdict == HTTP_REDIRECT)
		verdict = HTTP_FATAL;
	snprintf(text, cap, "HTTP %d", t->answer.status);
	if (t->site->explain)
		t->site->explain(
			t->site, &t->answer, t->error_body, t->error_len, &verdict, text, cap);
	if (verdict == HTTP_REDIRECT && ++t->hops > HTTP_MAX_HOPS) {
		snprintf(text, cap, "HTTP %d: the redirects go round in circles", t->answer.status);
		verdict = HTTP_FATAL;
	}
	t->fault = status_fault(t->answer.status, verdict, text);
	if (verdict == HTTP_STALE && !strstr(text, "changed") && strlen(text) + 24 < cap)
		strcat(text, ": the object changed");
	return verdict;
}

int http_verdict_errno(enum http_verdict v)
{
	switch (v) {
	case HTTP_OK:
		return 0;
	case HTTP_STALE:
		return -ESTALE;
	case HTTP_NOENT:
		return -ENOENT;
	case HTTP_ACCES:
	case HTTP_UNAUTH:
		return -EACCES;
	case HTTP_RETRY:
	case HTTP_REDIRECT:
	case HTTP_FATAL:
		break;
	}
	return -EIO;
}

int http_head_version(const struct http_answer *a, struct version *ret_version)
{
	if (!a->has_length || a->is_garbled || a->is_encoded)
		return -EIO;
	*ret_version = (struct version){.size = a->length,
		.mtime_s = a->has_modified ? a->modified_s : 0,
		.is_bound = true};
	memcpy(ret_version->etag, a->etag, sizeof(ret_version->etag));
	return 0;
}
