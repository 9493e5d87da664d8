/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origins http:// and https://: static files behind any web server.
 *
 * Names come either from the server's listing (nginx `autoindex_format json`, one level at a time) or
 * from an index file next to the data (option index: JSON lines, everything in one go). The index is
 * streamed; when a try breaks off, the next one skips what was already given, provided the file is
 * still the same. Everything else is HEAD and ranged GET.
 *
 * A key becomes a path of percent-encoded segments. Empty, "." and ".." segments cannot be asked for:
 * servers fold them, and they would lead out of the dataset. Listings pass such keys on as they are;
 * HEAD and GET say that they do not exist.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/http_client.h"
#include "agent/index.h"
#include "agent/transfer.h"
#include "common/cleanup.h"
#include "common/log.h"

#define LISTING_MAX ((size_t)64 * 1024 * 1024)
#define CHECK_MS 4000
#define CHECK_TRIES 2

struct http_origin {
	struct http_site site;
	char *root;	     /* scheme://host/path/ as asked for, without user info */
	char *authorization; /* header line, or NULL; a secret */
	char *index;	     /* its name, or NULL */
};

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
	int rc = 0;

	if (r->key && !is_plain_key(r->key, r->is_literal))
		return -ENOENT;
	rc = http_buffer_add(&url, h->root, strlen(h->root));
	if (rc == 0 && r->key)
		rc = http_encode(&url, r->key, strlen(r->key), "/");
	w->url = url.data;
	if (rc < 0)
		return rc == -EFBIG ? -ENOENT : rc;
	return origin_copy(&w->authorization, h->authorization) ? 0 : -ENOMEM;
}

static void http_explain(struct http_site *s, const struct http_answer *a, const char *body,
	size_t len, enum http_verdict *verdict, char *text, size_t cap)
{
	size_t used = strlen(text);

	(void)s;
	(void)body;
	(void)len;
	if (*verdict == HTTP_ACCES)
		snprintf(text + used, cap - used, "%s",
			a->status == 401 ? " Unauthorized: it wants a user and a password"
					 : " Forbidden");
	else if (*verdict == HTTP_NOENT)
		snprintf(text + used, cap - used, " Not Found");
}

/* ---- open ---- */

static int set_authorization(struct http_origin *h, const char *user, size_t len)
{
	static const char abc[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	int plain_len = 0;
	char *plain = curl_easy_unescape(NULL, user, (int)len, &plain_len), *out;
	size_t n = 0;

	if (!plain)
		return -ENOMEM;
	h->authorization = malloc(32 + ((size_t)plain_len + 2) / 3 * 4);
	if (h->authorization) {
		out = h->authorization + sprintf(h->authorization, "Authorization: Basic ");
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
	return h->authorization ? 0 : -ENOMEM;
}

/* Splits the URL into root, authority and credentials. */
static int set_url(struct http_origin *h, const char *url, struct wd_err *err)
{
	const char *host = strstr(url, "://") + 3, *path = host + strcspn(host, "/?#"), *at;
	struct http_buffer root = {.max = 8192};
	int rc = 0;

	at = memrchr(host, '@', (size_t)(path - host));
	if (at) {
		rc = set_authorization(h, host, (size_t)(at - host));
		host = at + 1;
	}
	if (host == path)
		return wd_err_set(err, EINVAL, "the URL has no host");
	if (strpbrk(path, "?#"))
		return wd_err_set(err, EINVAL,
			"a URL with '?' or '#' cannot be the root of a dataset");
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
	return h->site.base.url ? 0 : wd_err_sys(err, ENOMEM, "cannot use the URL");
}

static void http_close(struct origin *o)
{
	struct http_origin *h = http_of(o);

	http_site_done(&h->site);
	origin_forget(h->authorization);
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

/* ---- the server's own listing ---- */

struct listing {
	struct http_origin *origin;
	struct http_buffer body;
	const char *prefix;
	origin_entry_cb cb;
	void *arg;
	bool is_not_json;
};

static int listing_restart(void *arg)
{
	struct listing *l = arg;

	l->body.len = 0;
	return 0;
}

static int listing_body(void *arg, const struct http_answer *a, const void *data, size_t len)
{
	struct listing *l = arg;

	if (strcmp(a->type, "application/json") != 0) {
		l->is_not_json = true;
		return -EPROTO;
	}
	return http_buffer_add(&l->body, data, len);
}

static bool listing_entry(void *arg, const struct origin_entry *in)
{
	struct listing *l = arg;
	struct origin_entry out = *in;
	char key[ORIGIN_KEY_MAX + 2];
	size_t len = strlen(l->prefix);

	if (len + in->key_len > ORIGIN_KEY_MAX + (in->is_prefix ? 1 : 0)) {
		wd_warn("left out '%.64s...': the key is longer than %d bytes", in->key,
			ORIGIN_KEY_MAX);
		return true;
	}
	memcpy(key, l->prefix, len);
	memcpy(key + len, in->key, in->key_len + 1);
	out.key = key;
	out.key_len = len + in->key_len;
	return l->cb(l->arg, &out);
}

static int parse_listing(struct listing *l, bool *ret_is_complete, struct wd_err *err)
{
	struct index_parser *p = index_new(INDEX_AUTOINDEX, listing_entry, l);
	int rc;

	if (!p)
		return wd_err_sys(err, ENOMEM, "list");
	rc = index_feed(p, l->body.data, l->body.len, err);
	if (rc == 0)
		rc = index_finish(p, err);
	*ret_is_complete = rc == 0 && !index_is_ended(p);
	if (index_left_out(p))
		wd_warn("list '%s%s': %zu entries left out that no key can name",
			l->origin->site.base.url, l->prefix, index_left_out(p));
	index_free(p);
	return rc;
}

/* An error of the listing in words that help; returns rc for the caller. */
static int explain_listing(const struct listing *l, int rc, struct wd_err *err)
{
	const char *url = l->origin->site.base.url;

	if (l->is_not_json)
		return wd_err_set(err, EIO,
			"list '%s%s': the server's listing is not JSON: switch on "
			"'autoindex on; autoindex_format json;' in nginx, or give -o index=FILE",
			url, l->prefix);
	if (rc == -EFBIG)
		return wd_err_set(err, EIO,
			"list '%s%s': the listing is larger than %zu MiB: give -o index=FILE", url,
			l->prefix, LISTING_MAX >> 20);
	if (rc == -EACCES && err && strlen(err->msg) + 80 < sizeof(err->msg))
		strcat(err->msg, "; is the listing switched off? (autoindex on, or -o index=FILE)");
	return rc;
}

static int list_dir(struct http_origin *h, const char *prefix, origin_entry_cb cb, void *arg,
	bool is_check, bool *ret_is_complete, struct wd_err *err)
{
	struct listing l = {
		.origin = h, .body.max = LISTING_MAX, .prefix = prefix, .cb = cb, .arg = arg};
	struct http_call call = {
		.request = {.key = prefix, .is_literal = true},
		.op = ORIGIN_OP_LIST,
		.max_tries = is_check ? CHECK_TRIES : 0,
		.deadline_ms = is_check ? CHECK_MS : 0,
		.body = listing_body,
		.restart = listing_restart,
		.arg = &l,
		.doing = "list",
	};
	int rc = http_call(&h->site, &call, err);

	if (rc < 0) {
		rc = explain_listing(&l, rc, err);
	} else if (!l.body.len) {
		l.is_not_json = true;
		rc = explain_listing(&l, -EIO, err);
	} else if (parse_listing(&l, ret_is_complete, err) < 0) {
		wd_err_wrap(err, "list '%s%s'", h->site.base.url, prefix);
		rc = wd_err_set(NULL, EIO, "%s", "");
		if (err)
			err->code = EIO;
	}
	free(l.body.data);
	return rc;
}

/* ---- the index file ---- */

struct seen {
	struct seen *next;
	size_t len;
	char name[];
};
#define SEEN_BUCKETS 4096

struct index_walk {
	const char *prefix;
	size_t prefix_len;
	bool is_recursive;
	origin_entry_cb cb;
	void *arg;
	struct index_parser *parser;
	uint64_t nparsed, nskip; /* entries of this try; given by the tries before */
	struct http_answer first; /* of the first try: the file must stay the same */
	struct wd_err err;
	struct seen *seen[SEEN_BUCKETS]; /* prefixes given so far (one level) */
	bool has_first, has_ended, is_out_of_memory;
};

/* Adds a prefix; false when it was there. */
static bool see(struct index_walk *w, const char *name, size_t len)
{
	size_t hash = 5381;
	struct seen *s;

	for (size_t i = 0; i < len; i++)
		hash = hash * 33 + (unsigned char)name[i];
	for (s = w->seen[hash % SEEN_BUCKETS]; s; s = s->next)
		if (s->len == len && memcmp(s->name, name, len) == 0)
			return false;
	s = malloc(sizeof(*s) + len);
	if (!s) {
		w->is_out_of_memory = true;
		return false;
	}
	s->len = len;
	memcpy(s->name, name, len);
	s->next = w->seen[hash % SEEN_BUCKETS];
	w->seen[hash % SEEN_BUCKETS] = s;
	return true;
}

static void seen_free(struct index_walk *w)
{
	for (size_t i = 0; i < SEEN_BUCKETS; i++) {
		while (w->seen[i]) {
			struct seen *next = w->seen[i]->next;

			free(w->seen[i]);
			w->seen[i] = next;
		}
	}
}

static bool walk_entry(void *arg, const struct origin_entry *in)
{
	struct index_walk *w = arg;
	struct origin_entry out = *in;
	const char *slash;
	char key[ORIGIN_KEY_MAX + 1];

	if (w->nparsed++ < w->nskip)
		return true;
	if (in->key_len <= w->prefix_len || memcmp(in->key, w->prefix, w->prefix_len) != 0)
		return true;
	/* a key that ends with "/" marks a directory */
	out.is_prefix = in->key[in->key_len - 1] == '/';
	slash = memchr(in->key + w->prefix_len, '/', in->key_len - w->prefix_len);
	if (!w->is_recursive && slash) {
		out.key_len = (size_t)(slash + 1 - in->key);
		out.is_prefix = true;
		if (!see(w, in->key, out.key_len))
			return !w->is_out_of_memory;
		memcpy(key, in->key, out.key_len);
		key[out.key_len] = 0;
		out.key = key;
	}
	if (out.is_prefix)
		out.version = (struct version){0};
	w->has_ended = !w->cb(w->arg, &out);
	return !w->has_ended;
}

static int walk_restart(void *arg)
{
	struct index_walk *w = arg;

	if (w->nparsed > w->nskip)
		w->nskip = w->nparsed;
	w->nparsed = 0;
	index_free(w->parser);
	w->parser = index_new(INDEX_LINES, walk_entry, w);
	return w->parser ? 0 : -ENOMEM;
}

static int walk_body(void *arg, const struct http_answer *a, const void *data, size_t len)
{
	struct index_walk *w = arg;
	int rc;

	if (!w->has_first) {
		w->first = *a;
		w->has_first = true;
	}
	/* the first try is compared to itself */
	if (strcmp(w->first.etag, a->etag) != 0 || w->first.length != a->length ||
		w->first.modified_s != a->modified_s) {
		wd_err_set(&w->err, ESTALE, "it changed while it was read");
		return -ESTALE;
	}
	rc = index_feed(w->parser, data, len, &w->err);
	if (rc == 0 && w->is_out_of_memory)
		rc = wd_err_sys(&w->err, ENOMEM, "remember prefixes");
	if (rc == 0 && w->has_ended)
		rc = -EINTR; /* the caller has enough: end the transfer */
	return rc;
}

static int list_index(struct http_origin *h, const char *prefix, bool is_recursive,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	struct index_walk *w = calloc(1, sizeof(*w));
	struct http_call call = {
		.request = {.key = h->index},
		.op = ORIGIN_OP_LIST,
		.body = walk_body,
		.restart = walk_restart,
		.arg = w,
		.doing = "read the index",
	};
	int rc;

	if (!w)
		return wd_err_sys(err, ENOMEM, "list '%s'", h->site.base.url);
	w->prefix = prefix;
	w->prefix_len = strlen(prefix);
	w->is_recursive = is_recursive;
	w->cb = cb;
	w->arg = arg;
	rc = http_call(&h->site, &call, err);
	if (rc == 0)
		rc = index_finish(w->parser, &w->err);
	if (w->has_ended)
		rc = 0;
	else if (rc < 0 && w->err.code)
		rc = wd_err_set(err, w->err.code == EPROTO ? EIO : w->err.code,
			"read the index '%s%s': %s", h->site.base.url, h->index, w->err.msg);
	*ret_is_complete = rc == 0 && !w->has_ended;
	if (rc == 0 && index_left_out(w->parser))
		wd_warn("read the index '%s%s': %zu entries left out that no key can name",
			h->site.base.url, h->index, index_left_out(w->parser));
	index_free(w->parser);
	seen_free(w);
	free(w);
	return rc;
}

static int http_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	struct http_origin *h = http_of(o);

	(void)max_pages; /* a listing is one page */
	if (h->index)
		return list_index(h, prefix, is_recursive, cb, arg, ret_is_complete, err);
	return list_dir(h, prefix, cb, arg, false, ret_is_complete, err);
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
		.max_tries = is_check ? CHECK_TRIES : 0,
		.deadline_ms = is_check ? CHECK_MS : 0,
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
static int is_prefix_in_index(struct http_origin *h, const char *key, bool *ret_is, struct wd_err *err)
{
	char prefix[ORIGIN_KEY_MAX + 2];
	bool is_complete;

	*ret_is = false;
	snprintf(prefix, sizeof(prefix), "%s/", key);
	return list_index(h, prefix, true, stop_at_first, ret_is, &is_complete, err);
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

static int http_stat(struct origin *o, const char *key, struct version *ret_version,
	struct wd_err *err)
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
		rc = list_dir(h, "", ignore_entry, NULL, true, &is_complete, err);
	return http_check_result(rc, err);
}

/* ---- gets ---- */

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

#define HTTP_OPS(name)                                                                             \
	{                                                                                          \
		.scheme = name, .open = http_open, .close = http_close, .drain = http_drain,       \
		.check = http_check, .lists_recursively = http_lists_recursively,                  \
		.list = http_list, .probe = http_probe, .stat = http_stat, .get = http_get,        \
		.cancel = http_cancel,                                                             \
	}

const struct origin_ops origin_http_ops = HTTP_OPS("http");
const struct origin_ops origin_https_ops = HTTP_OPS("https");
