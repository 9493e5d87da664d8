/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads answer headers and judges answers to ranged GETs. Nothing here trusts the server: numbers
 * are parsed with overflow checks, a repeated header that disagrees with itself garbles the answer,
 * and what does not fit its field counts as absent. Called on transfer threads and on those of
 * blocking requests; no state but the caller's.
 */
#include "agent/http_range.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

void http_answer_reset(struct http_answer *a)
{
	memset(a, 0, sizeof(*a));
	a->retry_after_ms = -1;
}

/* Digits at *p, moving it; false when there is none or it overflows. */
static bool parse_u64(const char **p, const char *end, uint64_t *ret)
{
	uint64_t v = 0;
	const char *start = *p;

	while (*p < end && **p >= '0' && **p <= '9') {
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(**p - '0'), &v))
			return false;
		(*p)++;
	}
	*ret = v;
	return *p > start;
}

static bool skip_char(const char **p, const char *end, char c)
{
	if (*p >= end || **p != c)
		return false;
	(*p)++;
	return true;
}

bool http_parse_content_range(const char *text, size_t len, struct http_answer *a)
{
	const char *p = text, *end = text + len;
	uint64_t first = 0, last = 0, total;
	bool is_unsatisfied = false;

	if (len < 6 || strncasecmp(p, "bytes", 5) != 0 || p[5] != ' ')
		return false;
	for (p += 6; p < end && *p == ' '; p++)
		;
	if (skip_char(&p, end, '*'))
		is_unsatisfied = true;
	else if (!parse_u64(&p, end, &first) || !skip_char(&p, end, '-') ||
		 !parse_u64(&p, end, &last))
		return false;
	/* a total of "*" (unknown) is legal, but then nothing proves the version's size */
	if (!skip_char(&p, end, '/') || !parse_u64(&p, end, &total) || p != end)
		return false;
	if (!is_unsatisfied && (last < first || last >= total))
		return false;
	a->first = first;
	a->last = last;
	a->total = total;
	a->is_unsatisfied = is_unsatisfied;
	return true;
}

bool http_parse_date(const char *text, size_t len, int64_t *ret_s)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char buf[40], month[4];
	const char *at;
	struct tm tm = {0};
	time_t t;
	int end = 0;

	if (len >= sizeof(buf) || memchr(text, 0, len))
		return false;
	memcpy(buf, text, len);
	buf[len] = 0;
	if (sscanf(buf, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d GMT%n", &tm.tm_mday, month,
		    &tm.tm_year, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) != 6 ||
		end == 0 || buf[end] != 0 || strlen(month) != 3)
		return false;
	at = strstr(months, month);
	if (!at || (at - months) % 3 != 0 || tm.tm_year < 1900 || tm.tm_mday < 1 ||
		tm.tm_mday > 31 || tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 ||
		tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60)
		return false;
	tm.tm_mon = (int)(at - months) / 3;
	tm.tm_year -= 1900;
	t = timegm(&tm);
	*ret_s = t;
	return true;
}

bool http_etag_keep(const char *text, size_t len, char out[ORIGIN_ETAG_MAX])
{
	size_t from = len >= 2 && text[0] == 'W' && text[1] == '/' ? 2 : 0;
	bool is_quoted = len >= from + 2 && text[from] == '"' && text[len - 1] == '"';

	out[0] = 0;
	if (len == from || len + 3 > ORIGIN_ETAG_MAX)
		return false;
	for (size_t i = from; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		bool is_edge = is_quoted && (i == from || i == len - 1);

		if (c < 0x21 || c == 0x7f || (c == '"' && !is_edge))
			return false;
	}
	if (is_quoted)
		snprintf(out, ORIGIN_ETAG_MAX, "%.*s", (int)len, text);
	else
		snprintf(out, ORIGIN_ETAG_MAX, "%.*s\"%.*s\"", (int)from, text, (int)(len - from),
			text + from);
	return true;
}

bool http_etag_is_weak(const char *etag)
{
	return etag[0] == 'W' && etag[1] == '/';
}

bool http_etag_equal(const char *a, const char *b)
{
	if (http_etag_is_weak(a))
		a += 2;
	if (http_etag_is_weak(b))
		b += 2;
	return strcmp(a, b) == 0;
}

static void status_line(struct http_answer *a, const char *line, size_t len)
{
	const char *p = memchr(line, ' ', len), *end = line + len;
	uint64_t status;

	http_answer_reset(a);
	if (!p)
		return;
	p++;
	if (parse_u64(&p, end, &status) && status < 1000)
		a->status = (int)status;
}

static void set_length(struct http_answer *a, const char *v, size_t len)
{
	const char *p = v;
	uint64_t n = 0;

	if (!parse_u64(&p, v + len, &n) || p != v + len || (a->has_length && a->length != n))
		a->is_garbled = true;
	a->length = n;
	a->has_length = true;
}

static void set_range(struct http_answer *a, const char *v, size_t len)
{
	struct http_answer old = *a;

	if (!http_parse_content_range(v, len, a) ||
		(old.has_range &&
			(old.first != a->first || old.last != a->last || old.total != a->total)))
		a->is_garbled = true;
	a->has_range = true;
}

int64_t http_answer_wait_ms(const struct http_answer *a, int64_t now_s)
{
	int64_t wait_s;

	if (a->retry_after_ms >= 0 || !a->retry_at_s)
		return a->retry_after_ms;
	wait_s = a->retry_at_s - (a->has_date ? a->date_s : now_s);
	return wait_s < 0 ? 0 : wait_s > 86400 ? 86400000 : wait_s * 1000;
}

static void set_retry_after(struct http_answer *a, const char *v, size_t len)
{
	const char *p = v;
	uint64_t n;

	if (parse_u64(&p, v + len, &n) && p == v + len)
		a->retry_after_ms = n > 86400 ? 86400000 : (int64_t)n * 1000;
	else if (!http_parse_date(v, len, &a->retry_at_s))
		a->retry_at_s = 0;
}

static void set_text(char *out, size_t cap, const char *v, size_t len)
{
	size_t i;

	for (i = 0; i < len && i + 1 < cap && v[i] != ';' && v[i] > ' '; i++)
		out[i] = v[i] >= 'A' && v[i] <= 'Z' ? (char)(v[i] + 32) : v[i];
	out[i] = 0;
}

void http_answer_line(struct http_answer *a, const char *line, size_t len)
{
	const char *colon, *v;
	size_t name_len, vlen;

	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == '\n'))
		len--;
	if (len >= 5 && strncmp(line, "HTTP/", 5) == 0) {
		status_line(a, line, len);
		return;
	}
	colon = memchr(line, ':', len);
	if (!colon)
		return;
	name_len = (size_t)(colon - line);
	for (v = colon + 1; v < line + len && (*v == ' ' || *v == '\t'); v++)
		;
	vlen = (size_t)(line + len - v);
	while (vlen > 0 && (v[vlen - 1] == ' ' || v[vlen - 1] == '\t'))
		vlen--;
#define IS(name) (name_len == sizeof(name) - 1 && strncasecmp(line, name, name_len) == 0)
	if (IS("Content-Length"))
		set_length(a, v, vlen);
	else if (IS("Content-Range"))
		set_range(a, v, vlen);
	else if (IS("ETag"))
		http_etag_keep(v, vlen, a->etag);
	else if (IS("Last-Modified"))
		a->has_modified = http_parse_date(v, vlen, &a->modified_s);
	else if (IS("Date"))
		a->has_date = http_parse_date(v, vlen, &a->date_s);
	else if (IS("Retry-After"))
		set_retry_after(a, v, vlen);
	else if (IS("Content-Type"))
		set_text(a->type, sizeof(a->type), v, vlen);
	else if (IS("x-amz-bucket-region"))
		set_text(a->region, sizeof(a->region), v, vlen);
	else if (IS("Content-Encoding"))
		a->is_encoded |= vlen > 0 && !(vlen == 8 && strncasecmp(v, "identity", 8) == 0);
#undef IS
}

enum http_verdict http_classify(int status)
{
	switch (status) {
	case 200:
	case 206:
		return HTTP_OK;
	case 301:
	case 302:
	case 303:
	case 307:
	case 308:
		return HTTP_REDIRECT;
	case 403:
		return HTTP_ACCES;
	case 401:
	case 407:
		return HTTP_UNAUTH;
	case 404:
	case 410:
		return HTTP_NOENT;
	case 412:
	case 416:
		return HTTP_STALE;
	case 408:
	case 425:
	case 429:
		return HTTP_RETRY;
	default:
		return status >= 500 || status == 0 ? HTTP_RETRY : HTTP_FATAL;
	}
}

/* Is it the version at all? Asked first: a changed object is stale however odd the rest looks. */
static bool is_other_version(
	const struct http_answer *a, const struct version *v, char *why, size_t cap)
{
	bool is_mute = a->status == 200 && v->etag[0] && !a->etag[0];
	bool has_strong = v->etag[0] && a->etag[0] && !http_etag_is_weak(v->etag) &&
			  !http_etag_is_weak(a->etag);

	if (v->etag[0] && a->etag[0] && !http_etag_equal(v->etag, a->etag)) {
		snprintf(why, cap, "the object changed: ETag %s instead of %s", a->etag, v->etag);
		return true;
	}
	/* without the validator that it should have, a 200 is somebody's error page, not another version */
	if (is_mute && a->length != v->size)
		return false;
	if (!has_strong && a->has_modified && v->mtime_s && a->modified_s != v->mtime_s) {
		snprintf(why, cap,
			"the object changed: Last-Modified %" PRId64 " instead of %" PRId64,
			a->modified_s, v->mtime_s);
		return true;
	}
	if (a->status == 206 && a->has_range && !a->is_garbled && a->total != v->size) {
		snprintf(why, cap, "the object changed: size %" PRIu64 " instead of %" PRIu64,
			a->total, v->size);
		return true;
	}
	/* a whole answer of another size, where there is no validator that it could have named */
	if (a->status == 200 && a->has_length && !a->is_garbled && a->length != v->size && !v->etag[0]) {
		snprintf(why, cap, "the object changed: size %" PRIu64 " instead of %" PRIu64,
			a->length, v->size);
		return true;
	}
	return false;
}

enum http_verdict http_check_get(const struct http_answer *a, const struct version *v,
	uint64_t offset, uint64_t length, char *why, size_t cap)
{
	bool is_whole = offset == 0 && length == v->size;

	why[0] = 0;
	if (http_classify(a->status) != HTTP_OK)
		return http_classify(a->status);
	if (is_other_version(a, v, why, cap))
		return HTTP_STALE;
	if (a->is_garbled)
		snprintf(why, cap, "garbled Content-Length or Content-Range");
	else if (a->is_encoded)
		snprintf(why, cap, "the answer is compressed although identity was asked for");
	else if (a->status == 206 && !a->has_range)
		snprintf(why, cap, "HTTP 206 without Content-Range");
	else if (a->status == 206 &&
		 (a->is_unsatisfied || a->first != offset || a->last != offset + length - 1))
		snprintf(
			why, cap, "Content-Range is bytes %" PRIu64 "-%" PRIu64, a->first, a->last);
	else if (a->status == 200 && !is_whole)
		snprintf(why, cap, "HTTP 200 instead of 206: the server ignored the range");
	else if (!a->has_length)
		snprintf(why, cap, "HTTP %d without Content-Length", a->status);
	else if (a->length != length)
		snprintf(why, cap, "Content-Length %" PRIu64 " instead of %" PRIu64, a->length,
			length);
	else
		return HTTP_OK;
	return HTTP_RETRY;
}
