/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See sts.h. A call has a site of its own, which is an origin in name only: retries, the address policy and the
 * endpoint's breaker are those of all requests. The token goes into the body: URLs are logged on the way.
 */
#include "agent/sts.h"

#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/http_client.h"
#include "agent/index.h"
#include "agent/s3_xml.h"

#define DOCUMENT_MAX 65536
#define VALUE_MAX 8192
#define DEPTH_MAX 8
#define CALL_MS 8000
#define CALL_TRIES 3

/* ---- the document ---- */

struct parse {
	XML_Parser xml;
	unsigned depth;
	char path[DEPTH_MAX][40];
	char text[VALUE_MAX];
	size_t len;
	bool is_bad;
	struct sts_keys keys;
};

static void on_start(void *arg, const char *name, const char **attributes)
{
	struct parse *p = arg;
	const char *colon = strrchr(name, ':');

	(void)attributes;
	if (p->depth < DEPTH_MAX)
		snprintf(p->path[p->depth], sizeof(p->path[0]), "%s", colon ? colon + 1 : name);
	p->depth++;
	p->len = 0;
	p->text[0] = '\0';
}

static void on_text(void *arg, const char *text, int n)
{
	struct parse *p = arg;

	if ((size_t)n >= sizeof(p->text) - p->len) {
		p->is_bad = true;
		return;
	}
	memcpy(p->text + p->len, text, (size_t)n);
	p->len += (size_t)n;
	p->text[p->len] = '\0';
}

static void take(struct parse *p, char **value)
{
	origin_forget(*value);
	*value = strdup(p->text);
	p->is_bad |= !*value;
}

static void on_end(void *arg, const char *name)
{
	struct parse *p = arg;
	const char *last = p->depth >= 2 && p->depth <= DEPTH_MAX ? p->path[p->depth - 1] : "";

	(void)name;
	if (*last && strcmp(p->path[p->depth - 2], "Credentials") == 0) {
		uint32_t ns;

		if (strcmp(last, "AccessKeyId") == 0)
			take(p, &p->keys.access_key);
		else if (strcmp(last, "SecretAccessKey") == 0)
			take(p, &p->keys.secret_key);
		else if (strcmp(last, "SessionToken") == 0)
			take(p, &p->keys.session_token);
		else if (strcmp(last, "Expiration") == 0 && !index_parse_rfc3339(p->text, &p->keys.expires_s, &ns))
			p->keys.expires_s = 0;
	}
	p->depth--;
	p->len = 0;
}

static void on_doctype(void *arg, const char *name, const char *system, const char *public, int has_internal)
{
	struct parse *p = arg;

	(void)name, (void)system, (void)public, (void)has_internal;
	p->is_bad = true; /* entities are how XML attacks */
	XML_StopParser(p->xml, XML_FALSE);
}

int sts_parse(const void *xml, size_t len, struct sts_keys *ret_keys, struct wd_err *err)
{
	struct parse *p = calloc(1, sizeof(*p));
	bool is_good;

	if (!p || !(p->xml = XML_ParserCreate(NULL))) {
		free(p);
		return wd_err_set(err, ENOMEM, "out of memory");
	}
	XML_SetUserData(p->xml, p);
	XML_SetElementHandler(p->xml, on_start, on_end);
	XML_SetCharacterDataHandler(p->xml, on_text);
	XML_SetStartDoctypeDeclHandler(p->xml, on_doctype);
	is_good = len <= DOCUMENT_MAX && XML_Parse(p->xml, xml, (int)len, 1) == XML_STATUS_OK && !p->is_bad &&
		  p->keys.access_key && p->keys.secret_key && p->keys.session_token;
	XML_ParserFree(p->xml);
	if (is_good)
		*ret_keys = p->keys;
	else
		sts_keys_done(&p->keys);
	explicit_bzero(p, sizeof(*p));
	free(p);
	return is_good ? 0 : wd_err_set(err, EPROTO, "the answer is no AssumeRoleWithWebIdentityResponse");
}

void sts_keys_done(struct sts_keys *k)
{
	origin_forget(k->access_key);
	origin_forget(k->secret_key);
	origin_forget(k->session_token);
	*k = (struct sts_keys){0};
}

/* ---- the call ---- */

static int prepare(struct http_site *s, const struct http_request *r, struct http_wire *w)
{
	(void)r;
	w->url = strdup(s->base.url);
	return w->url ? http_wire_add(w, "Expect:") : -ENOMEM;
}

/* What each of STS's errors means to us, beyond its status. */
static void explain(struct http_site *s, const struct http_answer *a, const char *body, size_t len,
	enum http_verdict *verdict, char *text, size_t cap)
{
	static const char *const refusals[] = {"InvalidIdentityToken", "ExpiredTokenException", "ExpiredToken",
		"IDPRejectedClaim", "InvalidClientTokenId"};
	static const struct {
		const char *open, *close;
	} tags[] = {{"<Code>", "</Code>"}, {"<Message>", "</Message>"}};

	(void)s;
	if (a->status == 400)
		*verdict = HTTP_FATAL;
	for (size_t i = 0; i < 2; i++) {
		const char *from = memmem(body, len, tags[i].open, strlen(tags[i].open)), *to;
		size_t used = strlen(text);

		from = from ? from + strlen(tags[i].open) : NULL;
		to = from ? memmem(from, len - (size_t)(from - body), tags[i].close, strlen(tags[i].close)) : NULL;
		if (!to)
			continue;
		snprintf(text + used, cap - used, "%s%.*s", i ? ": " : " ", (int)(to - from), from);
		for (size_t k = 0; i == 0 && k < sizeof(refusals) / sizeof(refusals[0]); k++)
			if ((size_t)(to - from) == strlen(refusals[k]) && memcmp(from, refusals[k], (size_t)(to - from)) == 0)
				*verdict = HTTP_UNAUTH;
		if (i == 0 && (size_t)(to - from) == 12 && memcmp(from, "AccessDenied", 12) == 0)
			*verdict = HTTP_ACCES;
	}
}

static int on_body(void *arg, const struct http_answer *a, const void *data, size_t len)
{
	(void)a;
	return http_buffer_add(arg, data, len);
}

static int on_restart(void *arg)
{
	((struct http_buffer *)arg)->len = 0;
	return 0;
}

static int make_form(const char *role_arn, const char *token, struct http_buffer *form)
{
	static const char start[] = "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleSessionName=warpdrive&RoleArn=";
	int rc = http_buffer_add(form, start, sizeof(start) - 1);

	if (rc == 0)
		rc = http_encode(form, role_arn, strlen(role_arn), "");
	if (rc == 0)
		rc = http_buffer_add(form, "&WebIdentityToken=", 18);
	return rc == 0 ? http_encode(form, token, strlen(token), "") : rc;
}

static void wipe(struct http_buffer *b)
{
	if (b->data)
		explicit_bzero(b->data, b->cap);
	free(b->data);
}

static int open_site(struct http_site *s, const char *endpoint, struct wd_err *err)
{
	static const struct origin_options none;
	const char *sep = strstr(endpoint, "://");
	struct http_credentials *c;
	int rc = http_site_init(s, &none, err);

	if (rc < 0)
		return rc;
	s->prepare = prepare;
	s->explain = explain;
	s->base.deadline_ms = CALL_MS;
	c = http_credentials_new();
	http_site_set_credentials(s, c);
	if (!sep || !c || !origin_copy(&s->base.url, endpoint) || !origin_copy(&s->authority, sep + 3) ||
		http_site_set_endpoint(s, endpoint) < 0)
		return sep ? wd_err_set(err, ENOMEM, "out of memory")
			   : wd_err_set(err, EINVAL, "sts-endpoint '%.200s' is no URL", endpoint);
	return 0;
}

int sts_assume(const char *endpoint, const char *role_arn, const char *token, struct sts_keys *ret_keys,
	struct wd_err *err)
{
	struct http_site *s = calloc(1, sizeof(*s));
	struct http_buffer form = {.max = 65536}, answer = {.max = DOCUMENT_MAX};
	struct http_call call = {.request = {0},
		.op = ORIGIN_OP_STS,
		.max_tries = CALL_TRIES,
		.deadline_ms = CALL_MS,
		.body = on_body,
		.restart = on_restart,
		.arg = &answer,
		.doing = "assume the role at"};
	int rc = s ? open_site(s, endpoint, err) : wd_err_set(err, ENOMEM, "out of memory");

	if (rc == 0 && make_form(role_arn, token, &form) < 0)
		rc = wd_err_set(err, ENOMEM, "out of memory");
	if (rc == 0) {
		call.request.form = form.data;
		rc = http_call(s, &call, err);
	}
	if (rc == 0)
		rc = sts_parse(answer.data ? answer.data : "", answer.len, ret_keys, err);
	if (rc < 0 && err)
		wd_err_wrap(err, "role '%.100s'", role_arn);
	wipe(&form);
	wipe(&answer);
	if (s) {
		free(s->base.url);
		http_site_done(s);
	}
	free(s);
	return rc;
}
