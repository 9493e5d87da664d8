/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings over HTTP. The server's own (nginx `autoindex_format json`) is read whole, within a
 * bound, before the first entry is given out. An index file is streamed, since it may hold millions
 * of keys: when a try breaks off, the next one skips what was already given, provided the file is
 * still the same.
 */
#include "agent/origin_http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/index.h"
#include "agent/index_level.h"
#include "common/log.h"

#define LISTING_MAX ((size_t)64 * 1024 * 1024)

/* ---- the server's own listing ---- */

struct listing {
	struct http_origin *origin;
	struct http_buffer body;
	const char *prefix;
	origin_entry_cb cb;
	void *arg;
	bool is_not_json, is_complete;
	unsigned garbled;
};

static int listing_restart(void *arg)
{
	struct listing *l = arg;

	l->body.len = 0;
	l->is_not_json = false;
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

/* A listing that breaks off or is garbled is asked again; what it gave out comes again then. */
static enum http_verdict listing_judge(void *arg, char *text, size_t cap)
{
	struct listing *l = arg;
	struct wd_err err = WD_ERR_INIT;

	if (!l->body.len) {
		l->is_not_json = true;
		snprintf(text, cap, "an empty answer");
		return HTTP_FATAL;
	}
	if (parse_listing(l, &l->is_complete, &err) == 0)
		return HTTP_OK;
	snprintf(text, cap, "%s", err.msg);
	return ++l->garbled < HTTP_GARBLED_TRIES ? HTTP_RETRY : HTTP_FATAL;
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

int http_list_dir(struct http_origin *h, const char *prefix, origin_entry_cb cb, void *arg,
	bool is_check, bool *ret_is_complete, struct wd_err *err)
{
	struct listing l = {
		.origin = h, .body.max = LISTING_MAX, .prefix = prefix, .cb = cb, .arg = arg};
	struct http_call call = {
		.request = {.key = prefix, .is_literal = true},
		.op = ORIGIN_OP_LIST,
		.max_tries = is_check ? HTTP_CHECK_TRIES : 0,
		.deadline_ms = is_check ? HTTP_CHECK_MS : 0,
		.body = listing_body,
		.restart = listing_restart,
		.judge = listing_judge,
		.arg = &l,
		.doing = "list",
	};
	int rc = http_call(&h->site, &call, err);

	if (rc < 0)
		rc = explain_listing(&l, rc, err);
	else
		*ret_is_complete = l.is_complete;
	free(l.body.data);
	return rc;
}

/* ---- the index file ---- */

struct index_walk {
	struct index_level level;
	struct index_parser *parser;
	uint64_t nparsed, nskip;  /* entries of this try; given by the tries before */
	struct http_answer first; /* of the first try: the file must stay the same */
	struct wd_err err;
	unsigned garbled;
	bool has_first;
};

static bool walk_entry(void *arg, const struct origin_entry *entry)
{
	struct index_walk *w = arg;

	if (w->nparsed++ < w->nskip)
		return true;
	return index_level_take(&w->level, entry);
}

static int walk_restart(void *arg)
{
	struct index_walk *w = arg;

	if (w->nparsed > w->nskip)
		w->nskip = w->nparsed;
	w->nparsed = 0;
	w->err = (struct wd_err)WD_ERR_INIT;
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
	if (rc == -EPROTO)
		return -EAGAIN;
	if (rc == 0 && w->level.is_out_of_memory)
		rc = wd_err_sys(&w->err, ENOMEM, "remember prefixes");
	if (rc == 0 && w->level.has_ended)
		rc = -EINTR; /* the caller has enough: end the transfer */
	return rc;
}

/* An index that makes no sense may have been cut or garbled on its way. */
static enum http_verdict walk_judge(void *arg, char *text, size_t cap)
{
	struct index_walk *w = arg;

	if (!w->err.code && (w->level.has_ended || index_finish(w->parser, &w->err) == 0))
		return HTTP_OK;
	snprintf(text, cap, "%s", w->err.msg);
	return ++w->garbled < HTTP_GARBLED_TRIES ? HTTP_RETRY : HTTP_FATAL;
}

int http_list_index(struct http_origin *h, const char *prefix, bool is_recursive,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	struct index_walk *w = calloc(1, sizeof(*w));
	struct http_call call = {
		.request = {.key = h->index},
		.op = ORIGIN_OP_LIST,
		.body = walk_body,
		.restart = walk_restart,
		.judge = walk_judge,
		.arg = w,
		.doing = "read the index",
	};
	int rc;

	if (!w)
		return wd_err_sys(err, ENOMEM, "list '%s'", h->site.base.url);
	index_level_init(&w->level, prefix, is_recursive, cb, arg);
	rc = http_call(&h->site, &call, err);
	if (w->level.has_ended)
		rc = 0;
	else if (rc < 0 && w->err.code)
		rc = wd_err_set(err, w->err.code == EPROTO ? EIO : w->err.code,
			"read the index '%s%s': %s", h->site.base.url, h->index, w->err.msg);
	*ret_is_complete = rc == 0 && !w->level.has_ended;
	if (rc == 0 && index_left_out(w->parser))
		wd_warn("read the index '%s%s': %zu entries left out that no key can name",
			h->site.base.url, h->index, index_left_out(w->parser));
	index_free(w->parser);
	index_level_done(&w->level);
	free(w);
	return rc;
}
