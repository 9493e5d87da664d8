/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HTTP_CLIENT_H
#define WD_AGENT_HTTP_CLIENT_H
/*
 * What the origins that speak HTTP share: how one try is set up and judged (used by blocking calls
 * here and by transfer.c), and blocking calls with retries on the caller's thread.
 *
 * A site says by its functions what a request looks like (`prepare`: URL and headers, afresh for
 * each try, because signatures carry the time) and what an error's body means (`explain`).
 */
#include <curl/curl.h>

#include "agent/http_credentials.h"
#include "agent/http_range.h"
#include "agent/http_sockets.h"
#include "agent/origin_health.h"
#include "agent/origin_impl.h"
#include "agent/origin_policy.h"
#include "agent/retry.h"
#include "common/lock.h"

#define HTTP_MAX_HOPS 4
#define HTTP_ERROR_BODY 4096

struct http_request {
	bool is_head;
	const char *key;   /* under the site's URL; NULL: the site's own root */
	bool is_literal;   /* http: key is a listing's path and may end with "/" */
	const char *query; /* encoded and sorted, without "?"; NULL: none */
	const char *form;  /* a body to POST, encoded; NULL: none */
};

/* What goes on the wire for one try. Zero-initialised; wiped by http_wire_done(). */
struct http_wire {
	char *url;
	struct curl_slist *headers;
	char *authorization; /* header line kept apart: not sent to another host */
};
int http_wire_add(struct http_wire *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void http_wire_done(struct http_wire *w);

#define HTTP_POOL 4

struct http_site {
	struct origin base;
	char *ca_cert;
	char *authority; /* host[:port] of the site, for the redirect policy */
	struct health *health;
	bool follows_redirects;
	/* Fills url, headers, authorization. -errno without memory or for a key that cannot be
	 * named. */
	int (*prepare)(struct http_site *s, const struct http_request *r, struct http_wire *w);
	/* What an error answer says: appends to text, may correct the verdict. HTTP_REDIRECT: prepare()
	 * makes another request from now on, try again at once. */
	void (*explain)(struct http_site *s, const struct http_answer *a, const char *body,
		size_t len, enum http_verdict *verdict, char *text, size_t cap);
	/* idle handles with their connections, for blocking calls */
	struct wd_mutex lock;
	CURL *idle[HTTP_POOL] WD_GUARDED_BY(lock);
	struct http_credentials *credentials WD_GUARDED_BY(lock); /* never NULL after its kind's open() */
	/* what its credentials lack; until the next good answer, or other credentials */
	_Atomic int trouble; /* enum origin_trouble, but not AWAY */
	char trouble_text[256] WD_GUARDED_BY(lock);
};

int http_site_init(struct http_site *s, const struct origin_options *options, struct wd_err *err);
/* Once the endpoint (scheme://host[:port]) is known. -errno without memory. */
int http_site_set_endpoint(struct http_site *s, const char *endpoint);
void http_site_done(struct http_site *s);
/* The credentials of the moment; unref them. */
struct http_credentials *http_site_credentials(struct http_site *s);
/* The origin refused: ORIGIN_UNAUTHENTICATED, ORIGIN_DENIED; or it let us in: ORIGIN_WELL. */
void http_site_note(struct http_site *s, enum origin_trouble trouble, const char *text);
/* origin_trouble() of the kinds that speak HTTP. */
enum origin_trouble http_site_trouble(struct http_site *s, char *text, size_t cap);
/* Tries that start from now on use these; takes over the reference. */
void http_site_set_credentials(struct http_site *s, struct http_credentials *c);

/* One try: what was sent, what came back. Lives inside a call or a transfer. */
struct http_try {
	struct http_site *site;
	CURL *easy;
	struct http_wire wire;
	struct curl_slist *sent; /* all headers, in curl's hands during the try */
	char *redirect;		 /* where a redirect points to, or NULL */
	unsigned hops;
	bool is_foreign;    /* redirected to another authority: no credentials */
	bool is_other_host; /* ... even to another host: no loopback addresses either */
	bool is_refused_address; /* there was no address that connections may go to */
	bool has_socket;
	struct http_sockets *sockets; /* of its multi, and longer-lived than its connections; NULL: nobody asks for fd */
	int fd;			      /* the connection that it goes by, once it is sent; -1: not known */
	char why_refused[200];
	bool is_get; /* for bytes of a known object: its absence is a fault */
	struct http_answer answer;
	char error_body[HTTP_ERROR_BODY];
	size_t error_len;
	char curl_text[CURL_ERROR_SIZE];
	enum origin_fault fault; /* what went wrong, when the verdict is not OK */
};

/* Sets up t->easy for the request (t->redirect instead of its URL when set). extra: more headers,
 * borrowed. Returns 0 or -errno. */
int http_try_start(struct http_try *t, const struct http_request *r, const char *const *extra);
/* Keeps the beginning of an error's body. */
void http_try_error_bytes(struct http_try *t, const void *data, size_t len);
/* Judges how the try ended as far as curl and the status tell; text says it in words ("HTTP 503
 * SlowDown"). HTTP_REDIRECT: t->redirect is set and allowed, try again at once. */
enum http_verdict http_try_judge(struct http_try *t, CURLcode rc, char *text, size_t cap);
/* The answer is not what was asked for, by http_check_get(): as STALE or RETRY says. */
void http_try_is_wrong(struct http_try *t, enum http_verdict verdict);
/* Counts how the try ended and tells the endpoint's breaker. Once per try that health_allows() let go. */
void http_try_report(struct http_try *t, enum http_verdict verdict, const char *text);
/* Frees what belongs to the try; the easy handle stays. */
void http_try_end(struct http_try *t);
/* Between tries: forgets redirects. */
void http_try_reset(struct http_try *t);

/* -errno of a verdict that is not OK; -EIO where it gives none. */
int http_verdict_errno(enum http_verdict v);

/* So often a document that makes no sense is asked for again; then it is taken to be like that. */
#define HTTP_GARBLED_TRIES 4

/* A blocking request. */
struct http_call {
	struct http_request request;
	enum origin_op op;
	unsigned max_tries;  /* 0: only the deadline counts */
	int64_t deadline_ms; /* 0: the site's */
	/* Body of a good answer; -errno ends the call with that, -EINTR as a success: enough is
	 * known; -EAGAIN ends the try, and judge says why. NULL: ignored. */
	int (*body)(void *arg, const struct http_answer *a, const void *data, size_t len);
	/* Before each try: forget what came. NULL: nothing to do. */
	int (*restart)(void *arg);
	/* After a whole answer: is it what it should be? HTTP_OK, or a verdict with its text. NULL: it is. */
	enum http_verdict (*judge)(void *arg, char *text, size_t cap);
	void *arg;
	const char *doing; /* "list", "look up": for error texts */
	bool wants_dir;	   /* a redirect to the same path + "/" ends the call with is_dir */
	/* out */
	struct http_answer answer;
	bool is_dir;
};
/* Returns 0, or -errno as in origin.h. */
int http_call(struct http_site *s, struct http_call *call, struct wd_err *err);

/* For origin_check(): a host that has no name is -ENOENT, one that does not answer gets a remedy.
 */
int http_check_result(int rc, struct wd_err *err);

/* Which addresses tries may connect to (borrowed; set before there are tries). NULL: as a machine outside
 * Kubernetes has it by default. */
void http_client_set_policy(const struct origin_policy *policy);
const struct origin_policy *http_client_policy(void);

/* Process-wide set-up, idempotent. */
void http_client_start(void);
/* A breaker closed: blocking calls that wait for it may look again. */
void http_client_wake(void);
/* Ends the waits of blocking calls with -ECANCELED until http_client_start(). */
void http_client_stop(void);

/* Time limits, changed by tests only. */
struct http_limits {
	long connect_ms, low_speed_s;
};
extern struct http_limits http_limits;

/* 32 random bits for jitter. */
uint32_t http_random(void);

/* A growing buffer with a bound. */
struct http_buffer {
	char *data;
	size_t len, cap, max;
};
int http_buffer_add(struct http_buffer *b, const void *data, size_t len);

/* Percent-encodes everything but unreserved characters and those in keep; appends to b. */
int http_encode(struct http_buffer *b, const char *text, size_t len, const char *keep);

/* Last-Modified, Content-Length and ETag of a HEAD answer as a bound version; -EIO without length.
 */
int http_head_version(const struct http_answer *a, struct version *ret_version);

#endif
