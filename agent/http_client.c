/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking HTTP calls made of tries (http_try.c), on the caller's thread.
 *
 * Waiting between the tries is a wait on a condition that http_client_stop() broadcasts, so that
 * shutting down does not wait for backoffs. Handles are kept per site (a few), because their
 * connections are worth more than they are.
 */
#include "agent/http_client.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "agent/settings.h"
#include "common/cleanup.h"
#include "common/log.h"

#define PROGRESS_BYTES (256 * 1024)

static struct {
	pthread_once_t once;
	struct wd_mutex lock;
	struct wd_cond stopped; /* or a breaker has closed */
	unsigned closings WD_GUARDED_BY(lock);
	_Atomic bool is_stopping;
	const struct origin_policy *policy; /* of the agent */
	struct origin_policy *default_policy;
} client = {.once = PTHREAD_ONCE_INIT};

static void client_init(void)
{
	struct settings s = {.kubernetes = "false"};

	if (origin_policy_new(&s, &client.default_policy, NULL) < 0)
		client.default_policy = NULL; /* without memory nothing is allowed */
	curl_global_init(CURL_GLOBAL_ALL);
	wd_mutex_init(&client.lock);
	wd_cond_init(&client.stopped);
}

void http_client_set_policy(const struct origin_policy *policy)
{
	client.policy = policy;
}

const struct origin_policy *http_client_policy(void)
{
	return client.policy ? client.policy : client.default_policy;
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

void http_client_wake(void)
{
	wd_lock(&client.lock);
	client.closings++;
	wd_cond_broadcast(&client.stopped);
	wd_unlock(&client.lock);
}

/* When the reader that this thread works for began to wait; 0: nobody said. */
static _Thread_local int64_t waiting_since_ns;

void origin_waiting_since(int64_t since_ns)
{
	waiting_since_ns = since_ns;
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

int http_site_set_endpoint(struct http_site *s, const char *endpoint)
{
	s->health = health_open(endpoint);
	if (!s->health)
		return -ENOMEM;
	s->base.pace = health_pace(s->health);
	return 0;
}

static void replace_credentials(struct http_site *s, struct http_credentials *c)
{
	struct http_credentials *old;

	wd_lock(&s->lock);
	old = s->credentials;
	s->credentials = c;
	wd_unlock(&s->lock);
	http_credentials_unref(old);
}

void http_site_done(struct http_site *s)
{
	health_close(s->health);
	replace_credentials(s, NULL); /* its URL is gone already */
	for (int i = 0; i < HTTP_POOL; i++)
		curl_easy_cleanup(s->idle[i]);
	wd_mutex_done(&s->lock);
	free(s->ca_cert);
	free(s->authority);
}

struct http_credentials *http_site_credentials(struct http_site *s)
{
	struct http_credentials *c;

	wd_lock(&s->lock);
	c = http_credentials_ref(s->credentials);
	wd_unlock(&s->lock);
	return c;
}

void http_site_note(struct http_site *s, enum origin_trouble trouble, const char *text)
{
	if (trouble == ORIGIN_WELL && atomic_load(&s->trouble) == ORIGIN_WELL)
		return; /* the way of every good answer */
	wd_lock(&s->lock);
	atomic_store(&s->trouble, (int)trouble);
	snprintf(s->trouble_text, sizeof(s->trouble_text), "'%s': %s", s->base.url, text);
	wd_unlock(&s->lock);
}

enum origin_trouble http_site_trouble(struct http_site *s, char *text, size_t cap)
{
	enum origin_trouble trouble;

	wd_lock(&s->lock);
	trouble = (enum origin_trouble)atomic_load(&s->trouble);
	if (trouble != ORIGIN_WELL)
		snprintf(text, cap, "%s", s->trouble_text);
	wd_unlock(&s->lock);
	if (trouble != ORIGIN_WELL)
		return trouble;
	return health_is_away(s->health, text, cap) ? ORIGIN_AWAY : ORIGIN_WELL;
}

void http_site_set_credentials(struct http_site *s, struct http_credentials *c)
{
	replace_credentials(s, c);
	http_site_note(s, ORIGIN_WELL, "");
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
	char last[300];	 /* how the try before this one failed */
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

static int on_progress(
	void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	const struct call_state *c = arg;

	(void)dltotal, (void)dlnow, (void)ultotal, (void)ulnow;
	return client.is_stopping || wd_now_ns() > c->retry.deadline_ns;
}

/* Waits until at_ns, or until a breaker closes when is_for_breaker; false when the process is shutting
 * down. */
static bool wait_until(int64_t at_ns, bool is_for_breaker)
{
	bool is_stopping;
	unsigned closings;

	wd_lock(&client.lock);
	closings = client.closings;
	while (!client.is_stopping && wd_now_ns() < at_ns && !(is_for_breaker && client.closings != closings))
		wd_cond_wait_until(&client.stopped, &client.lock, at_ns);
	is_stopping = client.is_stopping;
	wd_unlock(&client.lock);
	return !is_stopping;
}

/* Waits until the endpoint's breaker lets a request go; false when the time is over before. */
static bool wait_turn(struct call_state *c, struct http_site *s, char *text, size_t cap)
{
	int64_t at_ns;

	/* a redirect is part of its try; a check of the URL must be quick, and tells how things are */
	if (c->try.hops > 0 || c->call->max_tries)
		return true;
	while (!health_allows(s->health, &at_ns)) {
		if (!health_is_open(s->health, text, cap))
			continue; /* it closed meanwhile */
		if (wd_now_ns() >= c->retry.last_ns)
			return false;
		if (at_ns > c->retry.last_ns)
			at_ns = c->retry.last_ns;
		/* a closing that is missed costs the time until the next probe at most */
		if (!wait_until(at_ns, true))
			return false;
	}
	return true;
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
	curl_easy_setopt(e, CURLOPT_XFERINFODATA, c);
	/* a body's progress moves the deadline: then on_progress() looks at it, once per second */
	if ((call->max_tries || call->request.is_head) && left_ms < LONG_MAX)
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
	if (c->body_rc == -EAGAIN) {
		verdict = c->call->judge(c->call->arg, text, cap);
		http_try_is_wrong(&c->try, verdict);
		return verdict;
	}
	if (c->body_rc < 0) {
		snprintf(text, cap, "%s", strerror(-c->body_rc));
		c->try.fault = ORIGIN_FAULT_WRONG;
		return HTTP_FATAL;
	}
	verdict = http_try_judge(&c->try, rc, text, cap);
	if (verdict == HTTP_REDIRECT && c->call->wants_dir) {
		curl_easy_getinfo(c->try.easy, CURLINFO_EFFECTIVE_URL, &from);
		if (from && c->try.redirect && is_dir_redirect(from, c->try.redirect)) {
			c->call->is_dir = true;
			return HTTP_OK;
		}
	}
	if (verdict == HTTP_OK && c->try.answer.is_encoded) {
		snprintf(text, cap, "the answer is compressed although identity was asked for");
		verdict = HTTP_RETRY;
	} else if (verdict == HTTP_OK && c->try.answer.is_garbled) {
		snprintf(text, cap, "garbled Content-Length or Content-Range");
		verdict = HTTP_RETRY;
	} else if (verdict == HTTP_OK && c->call->judge) {
		verdict = c->call->judge(c->call->arg, text, cap);
	} else {
		return verdict;
	}
	http_try_is_wrong(&c->try, verdict);
	return verdict;
}

/* A fault that another try overcame leaves one line. */
static void say_overcome(struct http_site *s, const struct call_state *c)
{
	const struct http_call *call = c->call;
	unsigned unsaid = 0;

	if (c->retry.tries > 1 && c->last[0] && health_may_say(s->health, &unsaid))
		wd_info("%s '%s%s': %s; right at try %u (%u more like it)", call->doing, s->base.url,
			call->request.key ? call->request.key : "", c->last, c->retry.tries, unsaid);
}

static int call_failed(struct http_site *s, const struct http_call *call, enum http_verdict verdict,
	int body_rc, unsigned tries, const char *text, struct wd_err *err)
{
	int rc = body_rc < 0 && body_rc != -EAGAIN ? body_rc : http_verdict_errno(verdict);
	const char *key = call->request.key ? call->request.key : "";

	if (client.is_stopping)
		rc = -ECANCELED;
	/* an absent object is an answer, not an error */
	if (rc != -ENOENT)
		origin_stats.errors[call->op]++;
	wd_err_set(err, -rc, "%s '%s%s': %s after %u %s", call->doing, s->base.url, key, text, tries,
		tries == 1 ? "try" : "tries");
	if (rc == -EACCES && verdict == HTTP_ACCES && call->op == ORIGIN_OP_LIST)
		http_site_note(s, ORIGIN_DENIED, text); /* one object may be forbidden; its list is all of it */
	if (rc == -EIO && verdict == HTTP_RETRY)
		health_gave_up(s->health);
	if (err && rc == -EACCES && verdict == HTTP_UNAUTH)
		err->code = EKEYREJECTED;
	else if (err && rc == -EIO && verdict == HTTP_RETRY)
		err->code = EHOSTDOWN;
	return rc;
}

/* Sets the call's time. Waiting in line for a worker counts only while the origin is away. */
static void start_clock(struct call_state *c, struct http_site *s)
{
	int64_t now_ns = wd_now_ns(), since_ns = now_ns;
	char why[300];

	c->deadline_ms = c->call->deadline_ms ? c->call->deadline_ms : s->base.deadline_ms;
	if (waiting_since_ns && waiting_since_ns < now_ns && !c->call->max_tries &&
		health_is_open(s->health, why, sizeof(why)))
		since_ns = waiting_since_ns;
	retry_start_until(&c->retry, now_ns, since_ns + c->deadline_ms * 1000000);
}

/* After a try that may be made again: waits for its time. False: that was the last one. */
static bool wait_for_next(struct call_state *c, struct http_site *s)
{
	char why[300];
	int64_t at_ns;

	if (c->call->max_tries && c->retry.tries >= c->call->max_tries)
		return false;
	if (!retry_again(&c->retry, wd_now_ns(), http_answer_wait_ms(&c->try.answer, time(NULL)),
		    http_random(), &at_ns))
		return false;
	/* an open breaker says when: wait_turn() waits for it */
	if ((c->call->max_tries || !health_is_open(s->health, why, sizeof(why))) && !wait_until(at_ns, false))
		return false;
	http_try_reset(&c->try);
	origin_stats.retries++;
	return true;
}

int http_call(struct http_site *s, struct http_call *call, struct wd_err *err)
{
	struct call_state *c = calloc(1, sizeof(*c));
	enum http_verdict verdict = HTTP_RETRY;
	CURLcode code = CURLE_OK;
	char text[300] = "";
	int rc;

	if (!c || !(c->try.easy = take_handle(s))) {
		free(c);
		return wd_err_sys(err, ENOMEM, "%s", call->doing);
	}
	c->call = call;
	c->try.site = s;
	start_clock(c, s);
	while (wait_turn(c, s, text, sizeof(text))) {
		if (c->try.hops == 0)
			retry_count(&c->retry);
		code = one_try(c);
		verdict = judge_call(c, code, text, sizeof(text));
		if (client.is_stopping)
			health_abandoned(s->health);
		else
			http_try_report(&c->try, verdict, text);
		http_try_end(&c->try);
		if (verdict == HTTP_REDIRECT)
			continue;
		if (verdict != HTTP_RETRY || !wait_for_next(c, s))
			break;
		wd_debug("%s '%s%s': %s: trying again", call->doing, s->base.url,
			call->request.key ? call->request.key : "", text);
		snprintf(c->last, sizeof(c->last), "%s", text);
	}
	if (verdict == HTTP_OK) {
		waiting_since_ns = 0; /* got on: what comes next has its own time */
		say_overcome(s, c);
	}
	/* a try that our time cut off tells less than the answer before it */
	if (verdict == HTTP_RETRY && c->last[0] &&
		(code == CURLE_OPERATION_TIMEDOUT || code == CURLE_ABORTED_BY_CALLBACK))
		snprintf(text, sizeof(text), "%s", c->last);
	call->answer = c->try.answer;
	rc = verdict == HTTP_OK
		     ? 0
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
		return -ENOENT;
	}
	if (strstr(err->msg, "connect") || strstr(err->msg, "timed out"))
		snprintf(err->msg + used, sizeof(err->msg) - used,
			"; is the address right and the server up?");
	return rc;
}
