/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HTTP_RANGE_H
#define WD_AGENT_HTTP_RANGE_H
/*
 * What an HTTP answer says about itself, and whether that is what was asked for. Pure: bytes in,
 * verdict out. curl checks none of this.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/origin.h"

enum http_verdict {
	HTTP_OK,
	HTTP_RETRY,    /* transient, or garbled on the way */
	HTTP_REDIRECT, /* 3xx with a Location */
	HTTP_STALE,    /* not the version asked for */
	HTTP_NOENT,
	HTTP_ACCES,
	HTTP_UNAUTH, /* the credentials themselves are wrong, missing or expired */
	HTTP_FATAL, /* will be the same the next time */
};

struct http_answer {
	int status;
	bool has_length, has_range, has_modified, has_date;
	bool is_encoded;     /* Content-Encoding other than identity */
	bool is_garbled;     /* a header that matters does not parse, or came twice and differs */
	bool is_unsatisfied; /* Content-Range: "bytes *" and a total */
	uint64_t length;     /* Content-Length */
	uint64_t first, last, total; /* Content-Range: bytes first-last/total */
	int64_t modified_s;	     /* Last-Modified */
	int64_t date_s;		     /* Date: the server's clock */
	int64_t retry_after_ms;	     /* -1: none, or a date without the server's clock */
	int64_t retry_at_s;	     /* Retry-After as a date; 0: none */
	char etag[ORIGIN_ETAG_MAX];  /* as sent; empty: none, or too long to keep */
	char type[64];		     /* Content-Type without parameters, lower case */
	char region[64];	     /* x-amz-bucket-region */
};

void http_answer_reset(struct http_answer *a);
/* How long the server asks to be left alone; -1: it does not. now_s: our clock, for an answer that gives
 * a date but no Date. */
int64_t http_answer_wait_ms(const struct http_answer *a, int64_t now_s);
/* One header line as curl hands it over. A status line starts afresh (100-continue, proxies). */
void http_answer_line(struct http_answer *a, const char *line, size_t len);

/* "bytes 0-99/1234", or with an asterisk for the range. False when it is neither. */
bool http_parse_content_range(const char *text, size_t len, struct http_answer *a);
/* An HTTP date (IMF-fixdate) to seconds since 1970; false when it is none. */
bool http_parse_date(const char *text, size_t len, int64_t *ret_s);

/* What a status says by itself, before headers are looked at. */
enum http_verdict http_classify(int status);

/* Does the answer carry exactly bytes [offset, offset+length) of that version? why says what is
 * wrong. */
enum http_verdict http_check_get(const struct http_answer *a, const struct version *v,
	uint64_t offset, uint64_t length, char *why, size_t cap);

/* Two validators: the same? Weak ones are compared without their W/. */
bool http_etag_equal(const char *a, const char *b);
bool http_etag_is_weak(const char *etag);
/* Keeps an ETag that could be sent back in If-Match (quoted, no control bytes, short enough),
 * adding quotes to a bare one; false (and "") otherwise. */
bool http_etag_keep(const char *text, size_t len, char out[ORIGIN_ETAG_MAX]);

#endif
