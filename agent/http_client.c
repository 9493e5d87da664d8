/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP for origins: one try, and blocking calls made of tries.
 *
 * Every try is set up from nothing (options of the one before are reset), follows no redirect by
 * itself and asks for identity encoding. Redirects are checked here: at most four, http(s) only, never
 * from https to http, never towards a loopback or link-local address of another host, and never with
 * the Authorization header to another authority.
 *
 * Waiting between the tries of a blocking call is a wait on a condition that http_client_stop()
 * broadcasts, so that shutting down does not wait for backoffs. Handles for blocking calls are kept
 * per site (a few), because their connections are worth more than they are.
 */
#include "agent/http_client.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "common/cleanup.h"

#define PROGRESS_BYTES (256 * 1024)

struct http_limits http_limits = {.connect_ms = 5000, .low_speed_s = 15};

static struct {
	pthread_once_t once;
	struct wd_mutex lock;
	struct wd_cond stopped;
	_Atomic bool is_stopping;
} client = {.once = PTHREAD_ONCE_INIT};

static void client_init(void)
{
	curl_global_init(CURL_GLOBAL_ALL);
	wd_mutex_init(&client.lock);
	wd_cond_init(&client.stopped);
}

void http_client_start(void)
{
	pthread_once(&client.once, client_init);
	client.is_stopping = false;
}

void http_client_stop(void)
{
	pthread_once(&client.once, client_init);
	wd_lock(&client.lock);
	client.is_stopping = true;
	wd_cond_broadcast(&client.stopped);
	wd_unlock(&client.lock);
}

uint32_t http_random(void)
{
	uint32_t r;

	if (getrandom(&r, sizeof(r), GRND_NONBLOCK) != sizeof(r))
		r = (uint32_t)(wd_now_ns() * 2654435761u);
	return r;
}

/* ---- buffers and encoding ---- */

int http_buffer_add(struct http_buffer *b, const void *data, size_t len)
{
	if (len > b->max - b->len)
		return -EFBIG;
	if (b->len + len + 1 > b->cap) {
		size_t cap = b->cap ? b->cap : 256;
		char *grown;

		while (cap < b->len + len + 1)
			cap *= 2;
		grown = realloc(b->data, cap);
		if (!grown)
			return -ENOMEM;
		b->data = grown;
		b->cap = cap;
	}
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len += len;
	b->data[b->len] = 0;
	return 0;
}

int http_encode(struct http_buffer *b, const char *text, size_t len, const char *keep)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		char out[3] = {'%', hex[c >> 4], hex[c & 15]};
		bool is_plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
				(c >= '0' && c <= '9') || (c && strchr("-._~", c)) ||
				(c && strchr(keep, c));
		int rc = is_plain ? http_buffer_add(b, &c, 1) : http_buffer_add(b, out, 3);

		if (rc < 0)
			return rc;
	}
	return http_buffer_add(b, "", 0);
}

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

/* Addresses that only the machine itself, or its cloud's metadata service, has. */
static bool is_inward_address(const char *ip)
{
	struct in6_addr a6;
	struct in_addr a4;
	uint32_t v4;

	if (inet_pton(AF_INET, ip, &a4) == 1) {
		v4 = ntohl(a4.s_addr);
	} else if (inet_pton(AF_INET6, ip, &a6) == 1) {
		if (!IN6_IS_ADDR_V4MAPPED(&a6))
			return IN6_IS_ADDR_LOOPBACK(&a6) || IN6_IS_ADDR_LINKLOCAL(&a6) ||
			       IN6_IS_ADDR_UNSPECIFIED(&a6);
		memcpy(&v4, &a6.s6_addr[12], 4);
		v4 = ntohl(v4);
	} else {
		return true;
	}
	return v4 >> 24 == 127 || v4 >> 24 == 0 || v4 >> 16 == 0xa9fe;
}

static int on_connected(void *arg, char *primary_ip, char *local_ip, int port, int local_port)
{
	struct http_try *t = arg;

	(void)local_ip;
	(void)port;
	(void)local_port;
	if (!t->is_other_host || !is_inward_address(primary_ip))
		return CURL_PREREQFUNC_OK;
	t->is_refused_address = true;
	return CURL_PREREQFUNC_ABORT;
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
	t->is_refused_address = false;
	rc = t->site->prepare(t->site, r, &t->wire);
	if (rc == 0)
		rc = set_headers(t, extra);
	if (rc < 0) {
		http_try_end(t);
		return rc;
	}
	curl_easy_reset(e);
	curl_easy_setopt(e, CURLOPT_URL, t->redirect ? t->redirect : t->wire.url);
	curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->sent);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, t->curl_text);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, t);
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

static enum http_verdict judge_curl(const struct http_try *t, CURLcode rc, char *text, size_t cap)
{
	snprintf(text, cap, "%s", t->curl_text[0] ? t->curl_text : curl_easy_strerror(rc));
	switch (rc) {
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_URL_MALFORMAT:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CIPHER:
	case CURLE_LOGIN_DENIED:
		return HTTP_FATAL;
	case CURLE_ABORTED_BY_CALLBACK:
		if (!t->is_refused_address)
			return HTTP_RETRY;
		snprintf(text, cap, "a redirect to an address of this machine or its "
				    "cloud's metadata service is refused");
		return HTTP_FATAL;
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

	curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &to);
	curl_easy_getinfo(t->easy, CURLINFO_EFFECTIVE_URL, &from);
	if (!to) {
		snprintf(text, cap, "HTTP %d without a Location", t->answer.status);
		return HTTP_FATAL;
	}
	if (!t->site->follows_redirects) {
		snprintf(text, cap, "HTTP %d: a redirect is not followed here", t->answer.status);
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
	if (!copy)
		return HTTP_RETRY;
	free(t->redirect);
	t->redirect = copy;
	t->hops++;
	t->is_foreign = t->is_foreign || strcasecmp(authority, t->site->authority) != 0;
	t->is_other_host = t->is_other_host || !is_same_host(authority, t->site->authority);
	return HTTP_REDIRECT;
}

enum http_verdict http_try_judge(struct http_try *t, CURLcode rc, char *text, size_t cap)
{
	enum http_verdict verdict;

	text[0] = 0;
	if (rc != CURLE_OK)
		return judge_curl(t, rc, text, cap);
	verdict = http_classify(t->answer.status);
	if (verdict == HTTP_REDIRECT && t->site->follows_redirects)
		return judge_redirect(t, text, cap);
	if (verdict == HTTP_OK)
		return HTTP_OK;
	if (verdict == HTTP_REDIRECT)
		verdict = HTTP_FATAL;
	snprintf(text, cap, "HTTP %d", t->answer.status);
	if (t->site->explain)
		t->site->explain(t->site, &t->answer, t->error_body, t->error_len, &verdict, text,
			cap);
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

/* ---- sites ---- */

int http_site_init(struct http_site *s, const struct origin_options *options, struct wd_err *err)
{
	http_client_start();
	wd_mutex_init(&s->lock);
	if (!options->ca_cert)
		return 0;
	if (access(options->ca_cert, R_OK) < 0)
		return wd_err_sys(err, errno, "cannot read the CA file '%s' (option ca-cert)",
			options->ca_cert);
	return origin_copy(&s->ca_cert, options->ca_cert) ? 0 : wd_err_sys(err, ENOMEM, "open");
}

void http_site_done(struct http_site *s)
{
	for (int i = 0; i < HTTP_POOL; i++)
		curl_easy_cleanup(s->idle[i]);
	wd_mutex_done(&s->lock);
	free(s->ca_cert);
	free(s->authority);
}

static CURL *take_handle(struct http_site *s)
{
	CURL *easy = NULL;

	wd_lock(&s->lock);
	for (int i = 0; i < HTTP_POOL && !easy; i++) {
		easy = s->idle[i];
		s->idle[i] = NULL;
	}
	wd_unlock(&s->lock);
	return easy ? easy : curl_easy_init();
}

static void give_handle(struct http_site *s, CURL *easy)
{
	/* the handle keeps its connections; pointers into the ended call must not stay */
	curl_easy_reset(easy);
	wd_lock(&s->lock);
	for (int i = 0; i < HTTP_POOL && easy; i++) {
		if (!s->idle[i]) {
			s->idle[i] = easy;
			easy = NULL;
		}
	}
	wd_unlock(&s->lock);
	curl_easy_cleanup(easy);
}

/* ---- blocking calls ---- */

struct call_state {
	struct http_call *call;
	struct http_try try;
	struct retry retry;
	size_t progress; /* body bytes since the deadline was last set */
	int64_t deadline_ms;
	int body_rc; /* what the body callback wants the call to end with */
};

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
	struct call_state *c = arg;
	size_t len = size * n;

	if (http_classify(c->try.answer.status) != HTTP_OK) {
		http_try_error_bytes(&c->try, data, len);
		return len;
	}
	c->progress += len;
	if (c->progress >= PROGRESS_BYTES && !c->call->max_tries) {
		c->progress = 0;
		retry_progress(&c->retry, wd_now_ns(), c->deadline_ms);
	}
	if (c->call->body)
		c->body_rc = c->call->body(c->call->arg, &c->try.answer, data, len);
	return c->body_rc < 0 ? 0 : len;
}

static int on_progress(void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal,
	curl_off_t ulnow)
{
	(void)arg, (void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
	return client.is_stopping;
}

/* Waits until at_ns; false when the process is shutting down. */
static bool wait_until(int64_t at_ns)
{
	bool is_stopping;

	wd_lock(&client.lock);
	while (!client.is_stopping && wd_now_ns() < at_ns)
		wd_cond_wait_until(&client.stopped, &client.lock, at_ns);
	is_stopping = client.is_stopping;
	wd_unlock(&client.lock);
	return !is_stopping;
}

/* Does the redirect lead to the same path with a "/" behind it? */
static bool is_dir_redirect(const char *from, const char *to)
{
	wd_autofree char *a = NULL, *b = NULL;
	const char *pa = strstr(from, "://"), *pb = strstr(to, "://");
	int la = 0, lb = 0;

	pa = pa ? strchr(pa + 3, '/') : NULL;
	pb = pb ? strchr(pb + 3, '/') : NULL;
	if (!pa || !pb)
		return false;
	/* encodings may differ: compare what they mean */
	a = curl_easy_unescape(NULL, pa, (int)strcspn(pa, "?#"), &la);
	b = curl_easy_unescape(NULL, pb, (int)strcspn(pb, "?#"), &lb);
	return a && b && lb == la + 1 && memcmp(a, b, (size_t)la) == 0 && b[la] == '/';
}

static CURLcode one_try(struct call_state *c)
{
	struct http_call *call = c->call;
	int64_t left_ms = (c->retry.deadline_ns - wd_now_ns()) / 1000000;
	CURL *e = c->try.easy;

	c->body_rc = call->restart ? call->restart(call->arg) : 0;
	if (c->body_rc == 0)
		c->body_rc = http_try_start(&c->try, &call->request, NULL);
	if (c->body_rc < 0)
		return CURLE_WRITE_ERROR;
	curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 65536L);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, c);
	curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_progress);
	/* a check of the URL must be quick; others end by the low-speed limit */
	if (call->max_tries && left_ms < LONG_MAX)
		curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, left_ms > 100 ? (long)left_ms : 100L);
	origin_stats.requests[call->op]++;
	return curl_easy_perform(e);
}

static enum http_verdict judge_call(struct call_state *c, CURLcode rc, char *text, size_t cap)
{
	enum http_verdict verdict;
	char *from = NULL;

	if (c->body_rc == -EINTR)
		return HTTP_OK;
	if (c->body_rc < 0) {
		snprintf(text, cap, "%s", strerror(-c->body_rc));
		return HTTP_FATAL;
	}
	verdict = http_try_judge(&c->try, rc, text, cap);
	if (verdict == HTTP_REDIRECT && c->call->wants_dir) {
		curl_easy_getinfo(c->try.easy, CURLINFO_EFFECTIVE_URL, &from);
		if (from && is_dir_redirect(from, c->try.redirect)) {
			c->call->is_dir = true;
			return HTTP_OK;
		}
	}
	if (verdict == HTTP_OK && c->try.answer.is_encoded) {
		snprintf(text, cap, "the answer is compressed although identity was asked for");
		return HTTP_FATAL;
	}
	return verdict;
}

static int call_failed(struct http_site *s, const struct http_call *call, enum http_verdict verdict,
	int body_rc, unsigned tries, const char *text, struct wd_err *err)
{
	int rc = body_rc < 0 ? body_rc : http_verdict_errno(verdict);
	const char *key = call->request.key ? call->request.key : "";
	char many[32] = "";

	if (client.is_stopping)
		rc = -ECANCELED;
	/* an absent object is an answer, not an error */
	if (rc != -ENOENT)
		origin_stats.errors[call->op]++;
	if (tries > 1)
		snprintf(many, sizeof(many), " after %u tries", tries);
	return wd_err_set(err, -rc, "%s '%s%s': %s%s", call->doing, s->base.url, key, text, many);
}

int http_call(struct http_site *s, struct http_call *call, struct wd_err *err)
{
	struct call_state *c = calloc(1, sizeof(*c));
	enum http_verdict verdict = HTTP_FATAL;
	int64_t at_ns;
	char text[300];
	int rc;

	if (!c || !(c->try.easy = take_handle(s))) {
		free(c);
		return wd_err_sys(err, ENOMEM, "%s", call->doing);
	}
	c->call = call;
	c->try.site = s;
	c->deadline_ms = call->deadline_ms ? call->deadline_ms : s->base.deadline_ms;
	retry_start(&c->retry, wd_now_ns(), c->deadline_ms);
	for (;;) {
		CURLcode code;

		if (c->try.hops == 0)
			retry_count(&c->retry);
		code = one_try(c);
		verdict = judge_call(c, code, text, sizeof(text));
		http_try_end(&c->try);
		if (verdict == HTTP_REDIRECT)
			continue;
		if (verdict != HTTP_RETRY || (call->max_tries && c->retry.tries >= call->max_tries))
			break;
		if (!retry_again(&c->retry, wd_now_ns(), c->try.answer.retry_after_ms, http_random(),
			    &at_ns) ||
			!wait_until(at_ns))
			break;
		http_try_reset(&c->try);
		origin_stats.retries++;
	}
	call->answer = c->try.answer;
	rc = verdict == HTTP_OK ? 0
				: call_failed(s, call, verdict, c->body_rc, c->retry.tries, text, err);
	http_try_reset(&c->try);
	give_handle(s, c->try.easy);
	free(c);
	return rc;
}

int http_check_result(int rc, struct wd_err *err)
{
	size_t used = err ? strlen(err->msg) : 0;

	if (rc != -EIO || !err)
		return rc;
	if (strstr(err->msg, "Could not resolve")) {
		snprintf(err->msg + used, sizeof(err->msg) - used, "; is the host's name right?");
		err->code = ENOENT;
		return -ENOENT;
	}
	if (strstr(err->msg, "connect") || strstr(err->msg, "timed out"))
		snprintf(err->msg + used, sizeof(err->msg) - used,
			"; is the address right and the server up?");
	return rc;
}
