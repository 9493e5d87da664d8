/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin s3://bucket/prefix: Amazon S3 and what speaks its protocol.
 *
 * Requests are signed with Signature Version 4 in our own code (s3_sign.c), afresh for each try.
 * Keys are bytes: every one but the unreserved characters and "/" is percent-encoded, and curl is
 * told to leave "..", "//" and the like alone, so that any key S3 can hold can be read.
 *
 * A redirect's Location is never followed: a request that is signed goes only where we ourselves say.
 * But S3 tells the region of a bucket that is elsewhere. From then on requests are signed for that
 * region, and go to its host when no endpoint was given. That may happen S3_PLACES_MAX times.
 */
#include "agent/origin_s3.h"

#include <ctype.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/s3_sign.h"
#include "agent/transfer.h"
#include "common/cleanup.h"

static struct s3_origin *s3_of(struct origin *o)
{
	return (struct s3_origin *)o;
}

/* ---- requests ---- */

static int sign(const struct http_credentials *c, const struct s3_place *place, const char *method,
	const char *path, const char *query, struct http_wire *w)
{
	time_t now = time(NULL);
	char date[S3_DATE_LEN], *value;
	struct s3_header headers[4] = {
		{"host", place->authority},
		{"x-amz-content-sha256", S3_UNSIGNED_PAYLOAD},
		{"x-amz-date", date},
		{"x-amz-security-token", c->session_token},
	};
	struct s3_to_sign r = {
		.method = method,
		.path = path,
		.query = query,
		.region = place->region,
		.service = "s3",
		.access_key = c->access_key,
		.secret_key = c->secret_key,
		.payload_hash = S3_UNSIGNED_PAYLOAD,
		.headers = headers,
		.nheaders = c->session_token ? 4 : 3,
		.time = now,
	};
	int rc;

	s3_date(now, date);
	value = s3_sign(&r);
	if (!value)
		return -ENOMEM;
	rc = asprintf(&w->authorization, "Authorization: %s", value) < 0 ? -ENOMEM : 0;
	origin_forget(value);
	if (rc < 0)
		w->authorization = NULL;
	if (rc == 0)
		rc = http_wire_add(w, "x-amz-content-sha256: %s", S3_UNSIGNED_PAYLOAD);
	if (rc == 0)
		rc = http_wire_add(w, "x-amz-date: %s", date);
	if (rc == 0 && c->session_token)
		rc = http_wire_add(w, "x-amz-security-token: %s", c->session_token);
	return rc;
}

static int s3_prepare(struct http_site *site, const struct http_request *r, struct http_wire *w)
{
	struct s3_origin *s = (struct s3_origin *)site;
	const struct s3_place *place = atomic_load(&s->place);
	struct http_credentials *c = http_site_credentials(site);
	struct http_buffer path = {.max = 16384};
	const char *query = r->query ? r->query : "";
	int rc = http_buffer_add(&path, s->path, strlen(s->path));

	if (rc == 0)
		rc = http_buffer_add(&path, "/", 1);
	if (rc == 0 && r->key)
		rc = http_encode(&path, s->prefix, strlen(s->prefix), "/");
	if (rc == 0 && r->key)
		rc = http_encode(&path, r->key, strlen(r->key), "/");
	if (rc == 0 && c->access_key)
		rc = sign(c, place, r->is_head ? "HEAD" : "GET", path.data, query, w);
	if (rc == 0 &&
		asprintf(&w->url, "%s://%s%s%s%s", s->is_https ? "https" : "http", place->authority,
			path.data, *query ? "?" : "", query) < 0) {
		w->url = NULL;
		rc = -ENOMEM;
	}
	free(path.data);
	http_credentials_unref(c);
	return rc;
}

/* ---- where the bucket is ---- */

/* ---- open ---- */

static bool is_bucket_name(const char *b)
{
	size_t len = strlen(b);

	if (len < 3 || len > 255 || b[0] == '.' || b[0] == '-')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)b[i]) && !strchr("-._", b[i]))
			return false;
	return !strstr(b, "..");
}

/* Can the bucket stand in front of the host's name? */
static bool wants_path_style(const struct s3_origin *s, const char *host, size_t len)
{
	bool is_ip = host[0] == '[' || strspn(host, "0123456789.") == len;
	bool is_local = len == 9 && strncasecmp(host, "localhost", 9) == 0;

	for (const char *p = s->bucket; *p; p++)
		if (isupper((unsigned char)*p) || *p == '_' || *p == '.')
			return true;
	return is_ip || is_local || strlen(s->bucket) > 63;
}

/* The host part must not hold what would change the request. */
static bool is_authority(const char *a)
{
	if (!*a)
		return false;
	for (; *a; a++)
		if (!isalnum((unsigned char)*a) && !strchr("-._:[]", *a))
			return false;
	return true;
}

static int set_endpoint(struct s3_origin *s, const char *endpoint, struct wd_err *err)
{
	wd_autofree char *authority = NULL;
	const char *host, *colon;
	bool is_https;

	if (!endpoint) {
		s->is_https = true;
		return 0;
	}
	is_https = strncasecmp(endpoint, "https://", 8) == 0;
	if (!is_https && strncasecmp(endpoint, "http://", 7) != 0)
		return wd_err_set(err, EINVAL,
			"option 'endpoint' is '%s'; it begins with https:// or http://",
			strchr(endpoint, '@') ? "(hidden)" : endpoint);
	host = endpoint + (is_https ? 8 : 7);
	authority = strdup(host);
	if (!authority)
		return wd_err_sys(err, ENOMEM, "cannot open");
	if (*authority && authority[strlen(authority) - 1] == '/')
		authority[strlen(authority) - 1] = 0;
	if (!is_authority(authority))
		return wd_err_set(err, EINVAL,
			"option 'endpoint' is '%s'; it is http(s)://host[:port] and nothing else",
			strchr(endpoint, '@') ? "(hidden)" : endpoint);
	/* curl leaves the default port out of Host, and Host is signed */
	colon = strrchr(authority, ':');
	if (colon && strcmp(colon, is_https ? ":443" : ":80") == 0)
		authority[colon - authority] = 0;
	s->is_https = is_https;
	s->endpoint = wd_steal_ptr(authority);
	return 0;
}

/* Makes the first place, and the path that goes with its style. */
static int set_place(struct s3_origin *s, const struct origin_options *options, struct wd_err *err)
{
	const char *region = options->region && *options->region ? options->region : "us-east-1";
	const char *host = s->endpoint ? s->endpoint : "s3.amazonaws.com";
	wd_autofree char *endpoint = NULL;
	struct s3_place *place;

	for (const char *p = region; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_", *p))
			return wd_err_set(err, EINVAL,
				"option 'region' is '%.64s'; it is a word like "
				"eu-west-1",
				region);
	s->is_path_style = options->is_path_style ||
			   wants_path_style(s, host, host[0] == '[' ? strlen(host) : strcspn(host, ":"));
	place = s3_place_new(s, region);
	atomic_store(&s->place, place);
	if (!place || asprintf(&s->path, "%s%s", s->is_path_style ? "/" : "",
			      s->is_path_style ? s->bucket : "") < 0)
		s->path = NULL;
	if (!s->path || !origin_copy(&s->site.authority, place->authority) ||
		asprintf(&endpoint, "%s://%s", s->is_https ? "https" : "http", place->authority) < 0 ||
		http_site_set_endpoint(&s->site, endpoint) < 0)
		return wd_err_sys(err, ENOMEM, "cannot open");
	return 0;
}

static int set_bucket(struct s3_origin *s, const char *url, struct wd_err *err)
{
	const char *bucket = url + strlen("s3://"), *prefix = bucket + strcspn(bucket, "/");
	size_t len;

	s->bucket = strndup(bucket, (size_t)(prefix - bucket));
	if (*prefix == '/')
		prefix++;
	len = strlen(prefix);
	if (!s->bucket || asprintf(&s->prefix, "%s%s", prefix,
				  len && prefix[len - 1] != '/' ? "/" : "") < 0) {
		s->prefix = NULL;
		return wd_err_sys(err, ENOMEM, "cannot open");
	}
	if (!is_bucket_name(s->bucket))
		return wd_err_set(err, EINVAL,
			"'%.80s' is no name of a bucket (s3://bucket/prefix)",
			strchr(s->bucket, '@') ? "(hidden)" : s->bucket);
	if (len > ORIGIN_KEY_MAX)
		return wd_err_set(
			err, EINVAL, "the prefix is longer than %d bytes", ORIGIN_KEY_MAX);
	if (asprintf(&s->site.base.url, "s3://%s/%s", s->bucket, s->prefix) < 0) {
		s->site.base.url = NULL;
		return wd_err_sys(err, ENOMEM, "cannot open");
	}
	return 0;
}

/* Header values: no line may be smuggled in. */
static bool is_clean(const char *text)
{
	for (; text && *text; text++)
		if ((unsigned char)*text < 0x21 || (unsigned char)*text == 0x7f)
			return false;
	return true;
}

static int s3_set_credentials(struct origin *origin, const struct origin_options *o, struct wd_err *err)
{
	struct http_credentials *c;

	if (!o->is_anonymous && (!o->access_key || !o->access_key[0] || !o->secret_key || !o->secret_key[0]))
		return wd_err_set(err, EINVAL,
			"no credentials: give an access key and a secret key, or say anonymous");
	if (!is_clean(o->access_key) || !is_clean(o->session_token) || !is_clean(o->secret_key))
		return wd_err_set(err, EINVAL,
			"the access key, secret key or session token has blanks or control "
			"characters in it");
	c = http_credentials_new();
	if (!c || (!o->is_anonymous && (!origin_copy(&c->access_key, o->access_key) ||
					       !origin_copy(&c->secret_key, o->secret_key) ||
					       !origin_copy(&c->session_token,
						       o->session_token && o->session_token[0]
							       ? o->session_token
							       : NULL)))) {
		http_credentials_unref(c);
		return wd_err_sys(err, ENOMEM, "cannot open");
	}
	http_site_set_credentials(&s3_of(origin)->site, c);
	return 0;
}

static void s3_close(struct origin *o)
{
	struct s3_origin *s = s3_of(o);
	struct s3_place *place = atomic_load(&s->place), *older;

	for (; place; place = older) {
		older = place->older;
		s3_place_free(place);
	}
	http_site_done(&s->site);
	free(s->bucket);
	free(s->prefix);
	free(s->endpoint);
	free(s->path);
	free(s);
}

static int s3_open(const char *url, const struct origin_options *options,
	struct origin **ret_origin, struct wd_err *err)
{
	struct s3_origin *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return wd_err_sys(err, ENOMEM, "cannot open");
	s->site.prepare = s3_prepare;
	s->site.explain = s3_explain;
	rc = http_site_init(&s->site, options, err);
	if (rc == 0)
		rc = set_bucket(s, url, err);
	if (rc == 0)
		rc = set_endpoint(s, options->endpoint, err);
	if (rc == 0)
		rc = set_place(s, options, err);
	if (rc == 0)
		rc = s3_set_credentials(&s->site.base, options, err);
	if (rc < 0) {
		free(s->site.base.url);
		s3_close(&s->site.base);
		return rc;
	}
	*ret_origin = &s->site.base;
	return 0;
}

static bool s3_lists_recursively(const struct origin *o)
{
	(void)o;
	return true;
}

/* ---- probe, stat, check ---- */

static int s3_stat(
	struct origin *o, const char *key, struct version *ret_version, struct wd_err *err)
{
	struct http_call call = {
		.request = {.is_head = true, .key = key},
		.op = ORIGIN_OP_HEAD,
		.doing = "look up",
	};
	int rc;

	if (!*key)
		return wd_err_set(err, ENOENT, "look up '%s': it is the dataset itself", o->url);
	rc = http_call(&s3_of(o)->site, &call, err);
	if (rc < 0)
		return rc;
	rc = http_head_version(&call.answer, ret_version);
	if (rc < 0)
		return wd_err_set(
			err, EIO, "look up '%s%s': the server does not tell its size", o->url, key);
	return 0;
}

static int s3_probe(struct origin *o, const char *key, enum origin_kind *ret_kind,
	struct version *ret_version, struct wd_err *err)
{
	char prefix[ORIGIN_KEY_MAX + 2];
	bool is_dir;
	int rc;

	if (!*key) {
		*ret_kind = ORIGIN_PREFIX;
		return 0;
	}
	snprintf(prefix, sizeof(prefix), "%s/", key);
	rc = s3_is_prefix(s3_of(o), prefix, false, &is_dir, err);
	if (rc < 0)
		return rc;
	if (is_dir) {
		*ret_kind = ORIGIN_PREFIX;
		return 0;
	}
	rc = s3_stat(o, key, ret_version, err);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	*ret_kind = rc == 0 ? ORIGIN_OBJECT : ORIGIN_NONE;
	return 0;
}

static int s3_check(struct origin *o, struct wd_err *err)
{
	bool is_dir;
	int rc = s3_is_prefix(s3_of(o), "", true, &is_dir, err);

	return http_check_result(rc, err);
}

static enum origin_trouble s3_trouble(struct origin *o, char *text, size_t cap)
{
	return http_site_trouble(&s3_of(o)->site, text, cap);
}

static void s3_drain(struct origin *o)
{
	transfer_drain(&s3_of(o)->site);
}

static void s3_get(struct origin *o, struct origin_get *get)
{
	transfer_get(&s3_of(o)->site, get);
}

static void s3_cancel(struct origin *o, struct origin_get *get)
{
	(void)o;
	transfer_cancel(get);
}

static void s3_prioritise(struct origin *o, struct origin_get *get, enum get_priority priority)
{
	(void)o;
	transfer_prioritise(get, priority);
}

const struct origin_ops origin_s3_ops = {
	.scheme = "s3",
	.open = s3_open,
	.close = s3_close,
	.drain = s3_drain,
	.check = s3_check,
	.trouble = s3_trouble,
	.set_credentials = s3_set_credentials,
	.lists_recursively = s3_lists_recursively,
	.list = s3_list,
	.probe = s3_probe,
	.stat = s3_stat,
	.get = s3_get,
	.cancel = s3_cancel,
	.prioritise = s3_prioritise,
};
