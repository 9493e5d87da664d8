/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origins http:// and https://: static files behind any web server.
 *
 * Names come either from the server's listing (nginx `autoindex_format json`, one level at a time)
 * or from an index file next to the data (option index: JSON lines, everything in one go); see
 * http_listing.c. Everything else is HEAD and ranged GET.
 *
 * A key becomes a path of percent-encoded segments. Empty, "." and ".." segments cannot be asked
 * for: servers fold them, and they would lead out of the dataset. Listings pass such keys on as
 * they are; HEAD and GET say that they do not exist.
 */
#include "agent/origin_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/transfer.h"
#include "common/cleanup.h"

static struct http_origin *http_of(struct origin *o)
{
	return (struct http_origin *)o;
}

/* ---- requests ---- */

/* Can a server be asked for this key and nothing else? is_dir: it may end with "/". */
static bool is_plain_key(const char *key, bool is_dir)
{
	for (const char *p = key; *p;) {
		size_t len = strcspn(p, "/");

		if (len == 0 || (len == 1 && p[0] == '.') || (len == 2 && memcmp(p, "..", 2) == 0))
			return false;
		if (p[len] && !p[len + 1])
			return is_dir;
		p += len + (p[len] != 0);
	}
	return true;
}

static int http_prepare(struct http_site *s, const struct http_request *r, struct http_wire *w)
{
	struct http_origin *h = (struct http_origin *)s;
	struct http_buffer url = {.max = 16384};
	struct http_credentials *c;
	int rc = 0;

	if (r->key && !is_plain_key(r->key, r->is_literal))
		return -ENOENT;
	rc = http_buffer_add(&url, h->root, strlen(h->root));
	if (rc == 0 && r->key)
		rc = http_encode(&url, r->key, strlen(r->key), "/");
	w->url = url.data;
	if (rc < 0)
		return rc == -EFBIG ? -ENOENT : rc;
	c = http_site_credentials(s);
	if (!origin_copy(&w->authorization, c->authorization))
		rc = -ENOMEM;
	http_credentials_unref(c);
	return rc;
}

static void http_explain(struct http_site *s, const struct http_answer *a, const char *body,
	size_t len, enum http_verdict *verdict, char *text, size_t cap)
{
	size_t used = strlen(text);

	(void)s;
	(void)body;
	(void)len;
	if (*verdict == HTTP_UNAUTH)
		snprintf(text + used, cap - used, " Unauthorized: it wants a user and a password");
	else if (*verdict == HTTP_ACCES)
		snprintf(text + used, cap - used, " Forbidden");
	else if (*verdict == HTTP_NOENT)
		snprintf(text + used, cap - used, " Not Found");
}

/* ---- open ---- */

/* The line for the user info of a URL. NULL without memory. */
static char *basic_authorization(const char *user, size_t len)
{
	static const char abc[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	int plain_len = 0;
	char *plain = curl_easy_unescape(NULL, user, (int)len, &plain_len), *line, *out;
	size_t n = 0;

	if (!plain)
		return NULL;
	line = malloc(32 + ((size_t)plain_len + 2) / 3 * 4);
	if (line) {
		out = line + sprintf(line, "Authorization: Basic ");
		for (int i = 0; i < plain_len; i += 3) {
			const unsigned char *p = (const unsigned char *)plain + i;
			uint32_t v = (uint32_t)p[0] << 16 |
				     (uint32_t)(i + 1 < plain_len ? p[1] : 0) << 8 |
				     (i + 2 < plain_len ? p[2] : 0);

			out[n++] = abc[v >> 18];
			out[n++] = abc[v >> 12 & 63];
			out[n++] = i + 1 < plain_len ? abc[v >> 6 & 63] : '=';
			out[n++] = i + 2 < plain_len ? abc[v & 63] : '=';
		}
		out[n] = 0;
	}
	explicit_bzero(plain, (size_t)plain_len);
	curl_free(plain);
	return line;
}

/* The URL's own user info goes before a token. */
static int http_set_credentials(struct origin *o, const struct origin_options *options, struct wd_err *err)
{
	struct http_origin *h = http_of(o);
	struct http_credentials *c = http_credentials_new();
	const char *token = options->bearer_token;
	bool ok = c != NULL;

	for (const char *p = token; p && *p; p++)
		if ((unsigned char)*p < 0x21 || (unsigned char)*p > 0x7e) {
			http_credentials_unref(c);
			return wd_err_set(err, EINVAL, "the token has blanks or control characters in it");
		}
	if (ok && h->user) {
		c->authorization = basic_authorization(h->user, strlen(h->user));
		ok = c->authorization != NULL;
	} else if (ok && token && asprintf(&c->authorization, "Authorization: Bearer %s", token) < 0) {
		c->authorization = NULL;
		ok = false;
	}
	if (!ok) {
		http_credentials_unref(c);
		return wd_err_sys(err, ENOMEM, "cannot use the credentials");
	}
	http_site_set_credentials(&h->site, c);
	return 0;
}

/* Splits the URL into root, authority and credentials. */
static int set_url(struct http_origin *h, const char *url, struct wd_err *err)
{
	const char *host = strstr(url, "://") + 3, *path = host + strcspn(host, "/?#"), *at;
	struct http_buffer root = {.max = 8192};
	wd_autofree char *endpoint = NULL;
	int rc = 0;

	at = memrchr(host, '@', (size_t)(path - host));
	if (at) {
		h->user = strndup(host, (size_t)(at - host));
		rc = h->user ? 0 : -ENOMEM;
		host = at + 1;
	}
	if (host == path)
		return wd_err_set(err, EINVAL, "the URL has no host");
	if (strpbrk(path, "?#"))
		return wd_err_set(
			err, EINVAL, "a URL with '?' or '#' cannot be the root of a dataset");
	h->site.authority = strndup(host, (size_t)(path - host));
	if (rc == 0)
		rc = http_buffer_add(&root, url, (size_t)(strstr(url, "://") + 3 - url));
	if (rc == 0)
		rc = http_buffer_add(&root, host, (size_t)(path - host));
	/* the path is a URL's already: only what a URL cannot hold is encoded */
	if (rc == 0)
		rc = http_encode(&root, path, strlen(path), "/%!$&'()*+,;=:@");
	if (rc == 0 && root.data[root.len - 1] != '/')
		rc = http_buffer_add(&root, "/", 1);
	h->root = root.data;
	if (rc < 0 || !h->site.authority)
		return wd_err_sys(err, rc == -EFBIG ? EINVAL : ENOMEM, "cannot use the URL");
	h->site.base.url = strdup(h->root);
	if (!h->site.base.url)
		return wd_err_sys(err, ENOMEM, "cannot use the URL");
	/* the root up to the path */
	endpoint = strndup(h->root, (size_t)(strstr(h->root, "://") + 3 - h->root) + strlen(h->site.authority));
	rc = endpoint ? http_site_set_endpoint(&h->site, endpoint) : -ENOMEM;
	return rc < 0 ? wd_err_sys(err, -rc, "cannot use the URL") : 0;
}

static void http_close(struct origin *o)
{
	struct http_origin *h = http_of(o);

	http_site_done(&h->site);
	origin_forget(h->user);
	free(h->root);
	free(h->index);
	free(h);
}

static int http_open(const char *url, const struct origin_options *options,
	struct origin **ret_origin, struct wd_err *err)
{
	struct http_origin *h = calloc(1, sizeof(*h));
	int rc;

	if (!h)
		return wd_err_sys(err, ENOMEM, "cannot open");
	h->site.prepare = http_prepare;
	h->site.explain = http_explain;
	h->site.follows_redirects = true;
	rc = http_site_init(&h->site, options, err);
	if (rc == 0)
		rc = set_url(h, url, err);
	if (rc == 0)
		rc = http_set_credentials(&h->site.base, options, err);
	if (rc == 0 && options->index &&
		(!options->index[0] || !is_plain_key(options->index, false)))
		rc = wd_err_set(err, EINVAL,
			"option 'index' is '%s'; it names a file relative to the URL",
			options->index);
	if (rc == 0 && !origin_copy(&h->index, options->index))
		rc = wd_err_sys(err, ENOMEM, "cannot open");
	if (rc < 0) {
		free(h->site.base.url);
		http_close(&h->site.base);
		return rc;
	}
	*ret_origin = &h->site.base;
	return 0;
}

static int http_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	struct http_origin *h = http_of(o);

	(void)max_pages; /* a listing is one page */
	if (h->index)
		return http_list_index(h, prefix, is_recursive, cb, arg, ret_is_complete, err);
	return http_list_dir(h, prefix, cb, arg, false, ret_is_complete, err);
}

static bool http_lists_recursively(const struct origin *o)
{
	return ((const struct http_origin *)o)->index != NULL;
}

/* ---- probe, stat, check ---- */

static int head(struct http_origin *h, const char *key, bool is_check, bool *ret_is_dir,
	struct version *ret_version, struct wd_err *err)
{
	struct http_call call = {
		.request = {.is_head = true, .key = key},
		.op = ORIGIN_OP_HEAD,
		.max_tries = is_check ? HTTP_CHECK_TRIES : 0,
		.deadline_ms = is_check ? HTTP_CHECK_MS : 0,
		.doing = "look up",
		.wants_dir = true,
	};
	int rc = http_call(&h->site, &call, err);

	if (rc < 0)
		return rc;
	*ret_is_dir = call.is_dir;
	if (call.is_dir)
		return 0;
	rc = http_head_version(&call.answer, ret_version);
	if (rc < 0)
		return wd_err_set(err, EIO, "look up '%s%s': the server does not tell its size",
			h->site.base.url, key);
	return 0;
}

static bool stop_at_first(void *arg, const struct origin_entry *entry)
{
	bool *found = arg;

	(void)entry;
	*found = true;
	return false;
}

/* Does the index have anything below key? */
static int is_prefix_in_index(
	struct http_origin *h, const char *key, bool *ret_is, struct wd_err *err)
{
	char prefix[ORIGIN_KEY_MAX + 2];
	bool is_complete;

	*ret_is = false;
	snprintf(prefix, sizeof(prefix), "%s/", key);
	return http_list_index(h, prefix, true, stop_at_first, ret_is, &is_complete, err);
}

static int http_probe(struct origin *o, const char *key, enum origin_kind *ret_kind,
	struct version *ret_version, struct wd_err *err)
{
	struct http_origin *h = http_of(o);
	bool is_dir = false;
	int rc;

	if (!*key) {
		*ret_kind = ORIGIN_PREFIX;
		return 0;
	}
	rc = head(h, key, false, &is_dir, ret_version, err);
	if (rc < 0 && rc != -ENOENT)
		return rc;
	*ret_kind = is_dir ? ORIGIN_PREFIX : rc == 0 ? ORIGIN_OBJECT : ORIGIN_NONE;
	/* a server of plain objects knows no directories: the index does */
	if (*ret_kind == ORIGIN_NONE && h->index) {
		rc = is_prefix_in_index(h, key, &is_dir, err);
		if (rc < 0)
			return rc;
		if (is_dir)
			*ret_kind = ORIGIN_PREFIX;
	}
	return 0;
}

static int http_stat(
	struct origin *o, const char *key, struct version *ret_version, struct wd_err *err)
{
	bool is_dir = false;
	int rc = head(http_of(o), key, false, &is_dir, ret_version, err);

	if (rc == 0 && is_dir)
		rc = wd_err_set(err, ENOENT, "look up '%s%s': it is a directory", o->url, key);
	return rc;
}

static bool ignore_entry(void *arg, const struct origin_entry *entry)
{
	(void)arg;
	(void)entry;
	return false;
}

static int http_check(struct origin *o, struct wd_err *err)
{
	struct http_origin *h = http_of(o);
	struct version version;
	bool is_dir, is_complete;
	int rc;

	if (h->index)
		rc = head(h, h->index, true, &is_dir, &version, err);
	else
		rc = http_list_dir(h, "", ignore_entry, NULL, true, &is_complete, err);
	return http_check_result(rc, err);
}

/* ---- gets ---- */

static enum origin_trouble http_trouble(struct origin *o, char *text, size_t cap)
{
	return http_site_trouble(&http_of(o)->site, text, cap);
}

static void http_drain(struct origin *o)
{
	transfer_drain(&http_of(o)->site);
}

static void http_get(struct origin *o, struct origin_get *get)
{
	transfer_get(&http_of(o)->site, get);
}

static void http_cancel(struct origin *o, struct origin_get *get)
{
	(void)o;
	transfer_cancel(get);
}

static void http_prioritise(struct origin *o, struct origin_get *get, enum get_priority priority)
{
	(void)o;
	transfer_prioritise(get, priority);
}

#define HTTP_OPS(name)                                                                             \
	{                                                                                          \
		.scheme = name,                                                                    \
		.open = http_open,                                                                 \
		.close = http_close,                                                               \
		.drain = http_drain,                                                               \
		.check = http_check,                                                               \
		.trouble = http_trouble,                                                           \
		.set_credentials = http_set_credentials,                                           \
		.lists_recursively = http_lists_recursively,                                       \
		.list = http_list,                                                                 \
		.probe = http_probe,                                                               \
		.stat = http_stat,                                                                 \
		.get = http_get,                                                                   \
		.cancel = http_cancel,                                                             \
		.prioritise = http_prioritise,                                                     \
	}

const struct origin_ops origin_http_ops = HTTP_OPS("http");
const struct origin_ops origin_https_ops = HTTP_OPS("https");
