/* SPDX-License-Identifier: Apache-2.0 */
/* S3's errors in words: what each means to us, and what can be done. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "agent/origin_s3.h"
#include "agent/s3_xml.h"

#define CLOCK_SKEW_S (15 * 60)

/* What each of S3's error codes means to us, beyond its status. */
static const struct {
	const char *code;
	enum http_verdict verdict;
	const char *remedy;
} meanings[] = {
	{"NoSuchBucket", HTTP_NOENT, "the bucket does not exist: check its name and the endpoint"},
	{"InvalidBucketName", HTTP_NOENT, "check the bucket's name"},
	{"NoSuchKey", HTTP_NOENT, ""},
	{"InvalidAccessKeyId", HTTP_UNAUTH, "the server does not know this access key"},
	{"SignatureDoesNotMatch", HTTP_UNAUTH, "the secret key is wrong"},
	{"AccessDenied", HTTP_ACCES, "these credentials may not read it"},
	{"RequestTimeTooSkewed", HTTP_UNAUTH,
		"this machine's clock differs too much from the server's: set it"},
	{"ExpiredToken", HTTP_UNAUTH, "the session token has expired: renew it"},
	{"InvalidToken", HTTP_UNAUTH, "the session token is not valid: renew it"},
	{"AuthorizationHeaderMalformed", HTTP_UNAUTH, "is the region right?"},
	{"ServiceUnavailable", HTTP_RETRY, ""},
	{"PermanentRedirect", HTTP_FATAL, "the bucket is in another region or at another endpoint"},
	{"TemporaryRedirect", HTTP_RETRY, ""},
	{"SlowDown", HTTP_RETRY, ""},
	{"RequestTimeout", HTTP_RETRY, ""},
	{"InternalError", HTTP_RETRY, ""},
	{"PreconditionFailed", HTTP_STALE, "the object changed"},
	{"InvalidRange", HTTP_STALE, "the object changed"},
};

static void append(char *text, size_t cap, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static void append(char *text, size_t cap, const char *fmt, ...)
{
	size_t used = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + used, cap - used, fmt, ap);
	va_end(ap);
}

/* A HEAD's error has no body: the clock can be checked by the answer's date all the same. */
static void explain_bare(
	const struct http_answer *a, enum http_verdict verdict, char *text, size_t cap)
{
	int64_t skew = a->has_date ? a->date_s - (int64_t)time(NULL) : 0;

	bool is_denied = verdict == HTTP_ACCES || verdict == HTTP_UNAUTH;

	if (is_denied && (skew > CLOCK_SKEW_S || skew < -CLOCK_SKEW_S))
		append(text, cap,
			" RequestTimeTooSkewed: this machine's clock differs too much from "
			"the server's: set it");
	else if (is_denied)
		append(text, cap, " %s", a->status == 400 ? "Bad Request: has the session token expired?"
							  : "Forbidden");
	else if (verdict == HTTP_NOENT)
		append(text, cap, " Not Found");
}

static bool has_session(struct http_site *site)
{
	struct http_credentials *c = http_site_credentials(site);
	bool has = c->session_token != NULL;

	http_credentials_unref(c);
	return has;
}

void s3_explain(struct http_site *site, const struct http_answer *a, const char *body,
	size_t len, enum http_verdict *verdict, char *text, size_t cap)
{
	struct s3_origin *s = (struct s3_origin *)site;
	const char *remedy = NULL, *region = a->region, *now = atomic_load(&s->place)->region;
	bool is_moved = a->status == 301 || a->status == 307 || a->status == 308;
	struct s3_error e;

	if (!len || !s3_parse_error(body, len, &e)) {
		/* S3 answers a HEAD with an expired token so, and has no room to say why */
		if (a->status == 400 && has_session(site))
			*verdict = HTTP_UNAUTH;
		explain_bare(a, *verdict, text, cap);
		e = (struct s3_error){0};
	} else {
		append(text, cap, " %s", e.code);
		for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]) && !remedy; i++) {
			if (strcmp(e.code, meanings[i].code) != 0)
				continue;
			*verdict = meanings[i].verdict;
			remedy = meanings[i].remedy;
		}
		if (remedy && *remedy)
			append(text, cap, ": %s", remedy);
		else if (!remedy && e.message[0])
			append(text, cap, ": %s", e.message);
		if (!region[0])
			region = e.region;
	}
	if (!region[0] || a->status / 100 == 5)
		return;
	if (is_moved && strcmp(region, now) == 0)
		*verdict = HTTP_REDIRECT; /* another request has moved meanwhile; or a loop, which has an end */
	else if ((is_moved || a->status == 400) && s3_move_to(s, region))
		*verdict = HTTP_REDIRECT;
	else if (strcasecmp(region, now) != 0)
		append(text, cap, " (the server says region '%s': set region=%s)", region, region);
}
