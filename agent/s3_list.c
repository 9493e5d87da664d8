/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ListObjectsV2. A page is read whole (its size is bounded) before the first entry of it is given
 * out: a try that breaks off leaves nothing half done. What is not below the prefix that was asked
 * for is left out and logged, and so are keys that cannot be.
 */
#include "agent/origin_s3.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/s3_xml.h"
#include "common/cleanup.h"
#include "common/log.h"

#define PAGE_MAX ((size_t)32 * 1024 * 1024)
#define CHECK_MS 4000
#define CHECK_TRIES 2

struct page_walk {
	struct s3_origin *s;
	const char *prefix; /* below the dataset's */
	bool is_recursive;
	origin_entry_cb cb;
	void *arg;
	struct http_buffer body;
	size_t nwrong; /* entries that are not below the prefix */
	struct s3_page *page;
	unsigned garbled;
};

static int page_restart(void *arg)
{
	struct page_walk *w = arg;

	w->body.len = 0;
	return 0;
}

static int page_body(void *arg, const struct http_answer *a, const void *data, size_t len)
{
	struct page_walk *w = arg;

	(void)a;
	return http_buffer_add(&w->body, data, len);
}

static bool page_entry(void *arg, const struct origin_entry *in)
{
	struct page_walk *w = arg;
	struct origin_entry out = *in;
	size_t base = strlen(w->s->prefix), below = strlen(w->prefix);

	if (in->key_len < base + below || memcmp(in->key, w->s->prefix, base) != 0 ||
		memcmp(in->key + base, w->prefix, below) != 0) {
		w->nwrong++;
		return true;
	}
	/* the marker of the directory that is listed is no entry of it */
	if (in->key_len == base + below)
		return true;
	out.key += base;
	out.key_len -= base;
	if (out.key_len > ORIGIN_KEY_MAX) {
		w->nwrong++;
		return true;
	}
	/* S3 knows no directories; a key that ends with "/" is the usual marker of one */
	if (out.key[out.key_len - 1] == '/') {
		out.is_prefix = true;
		out.version = (struct version){0};
	}
	return w->cb(w->arg, &out);
}

/* S3 may say only in the body that it failed, or break off in it: then the page is asked again. What was
 * given out by then comes again, which does no harm. */
static enum http_verdict page_judge(void *arg, char *text, size_t cap)
{
	struct page_walk *w = arg;
	struct wd_err err = WD_ERR_INIT;
	struct s3_error e;

	w->nwrong = 0;
	w->page->cb = page_entry;
	w->page->arg = w;
	if (s3_parse_page(w->body.data, w->body.len, w->page, &err) == 0)
		return HTTP_OK;
	if (w->body.len && s3_parse_error(w->body.data, w->body.len, &e) && e.code[0])
		snprintf(text, cap, "HTTP 200 with an error in its body: %s", e.code);
	else
		snprintf(text, cap, "%s", err.msg);
	return ++w->garbled < HTTP_GARBLED_TRIES ? HTTP_RETRY : HTTP_FATAL;
}

/* The query of one page, names in order. */
static int page_query(
	const struct page_walk *w, const char *token, unsigned max_keys, char **ret_query)
{
	struct http_buffer q = {.max = 16384};
	char max[40];
	int rc = 0;

#define ADD(text) (rc = rc < 0 ? rc : http_buffer_add(&q, text, strlen(text)))
#define ENCODE(text) (rc = rc < 0 ? rc : http_encode(&q, text, strlen(text), ""))
	if (token[0]) {
		ADD("continuation-token=");
		ENCODE(token);
		ADD("&");
	}
	if (!w->is_recursive)
		ADD("delimiter=%2F&");
	snprintf(max, sizeof(max), "max-keys=%u&prefix=", max_keys);
	ADD("encoding-type=url&list-type=2&");
	ADD(max);
	ENCODE(w->s->prefix);
	ENCODE(w->prefix);
#undef ADD
#undef ENCODE
	if (rc < 0)
		free(q.data);
	else
		*ret_query = q.data;
	return rc;
}

/* Reads one page and gives its entries to the callback. */
static int read_page(struct page_walk *w, const char *token, unsigned max_keys, bool is_check,
	struct s3_page *page, struct wd_err *err)
{
	struct s3_origin *s = w->s;
	wd_autofree char *query = NULL;
	struct http_call call = {
		.op = ORIGIN_OP_LIST,
		.max_tries = is_check ? CHECK_TRIES : 0,
		.deadline_ms = is_check ? CHECK_MS : 0,
		.body = page_body,
		.restart = page_restart,
		.judge = page_judge,
		.arg = w,
		.doing = "list",
	};
	int rc = page_query(w, token, max_keys, &query);

	if (rc < 0)
		return wd_err_sys(err, -rc, "list '%s%s'", s->site.base.url, w->prefix);
	call.request.query = query;
	w->page = page;
	w->garbled = 0;
	rc = http_call(&s->site, &call, err);
	if (rc < 0)
		return rc == -EFBIG ? wd_err_set(err, EIO,
					      "list '%s%s': a page of the listing is larger "
					      "than %zu MiB",
					      s->site.base.url, w->prefix, PAGE_MAX >> 20)
				    : rc;
	if (page->nleft_out + w->nwrong > 0)
		wd_warn("list '%s%s': %zu entries left out that no key can name or that are not "
			"below "
			"it",
			s->site.base.url, w->prefix, page->nleft_out + w->nwrong);
	return 0;
}

int s3_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err)
{
	struct page_walk w = {.s = (struct s3_origin *)o,
		.prefix = prefix,
		.is_recursive = is_recursive,
		.cb = cb,
		.arg = arg,
		.body.max = PAGE_MAX};
	wd_autofree char *token = calloc(1, S3_TOKEN_MAX);
	wd_autofree struct s3_page *page = calloc(1, sizeof(*page));
	int rc = token && page ? 0 : wd_err_sys(err, ENOMEM, "list '%s'", o->url);

	for (unsigned n = 0; rc == 0; n++) {
		if (max_pages && n == max_pages)
			break;
		rc = read_page(&w, token, 1000, false, page, err);
		if (rc < 0 || page->is_ended)
			break;
		if (!page->is_truncated) {
			*ret_is_complete = true;
			break;
		}
		if (strcmp(token, page->token) == 0)
			rc = wd_err_set(err, EIO,
				"list '%s%s': the server goes round in circles "
				"(the continuation token repeats)",
				o->url, prefix);
		memcpy(token, page->token, S3_TOKEN_MAX);
	}
	free(w.body.data);
	return rc;
}

static bool count_entry(void *arg, const struct origin_entry *entry)
{
	size_t *n = arg;

	(void)entry;
	(*n)++;
	return true;
}

int s3_is_prefix(
	struct s3_origin *s, const char *prefix, bool is_check, bool *ret_is, struct wd_err *err)
{
	size_t n = 0;
	struct page_walk w = {.s = s,
		.prefix = prefix,
		.is_recursive = true,
		.cb = count_entry,
		.arg = &n,
		.body.max = PAGE_MAX};
	wd_autofree struct s3_page *page = calloc(1, sizeof(*page));
	int rc = page ? read_page(&w, "", 1, is_check, page, err) : -ENOMEM;

	/* a marker alone is not counted, but proves the directory all the same */
	*ret_is =
		n > 0 || (rc == 0 && w.body.len && memmem(w.body.data, w.body.len, "<Contents", 9));
	free(w.body.data);
	return rc;
}
