/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index files and nginx listings, streamed: a splitter finds where each JSON object of the top
 * level begins and ends (braces, strings and escapes; nothing else), and jansson parses the objects
 * one by one. So a listing of ten million keys costs the memory of one.
 *
 * nginx copies bytes that are no UTF-8 as they are, which is no JSON: such an object is read again
 * with each byte above 0x7f written as \u00XX, and the code points are turned back into bytes.
 * (With that, a name that mixes wrong bytes with \u escapes of its own would be misread; nginx
 * writes none.)
 */
#include "agent/index.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/http_range.h"

struct index_parser {
	enum index_form form;
	origin_entry_cb cb;
	void *arg;
	bool is_ended, is_in_string, is_escaped, has_opened, has_closed;
	unsigned depth;
	size_t nobjects, nleft_out, len;
	char object[INDEX_OBJECT_MAX];
};

struct index_parser *index_new(enum index_form form, origin_entry_cb cb, void *arg)
{
	struct index_parser *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->form = form;
	p->cb = cb;
	p->arg = arg;
	return p;
}

void index_free(struct index_parser *p)
{
	free(p);
}

bool index_is_ended(const struct index_parser *p)
{
	return p->is_ended;
}

size_t index_left_out(const struct index_parser *p)
{
	return p->nleft_out;
}

/* Exactly n digits; -1 when they are not there. */
static int digits(const char **p, int n)
{
	int v = 0;

	for (int i = 0; i < n; i++, (*p)++) {
		if (**p < '0' || **p > '9')
			return -1;
		v = v * 10 + (**p - '0');
	}
	return v;
}

static bool lit(const char **p, const char *any)
{
	if (!**p || !strchr(any, **p))
		return false;
	(*p)++;
	return true;
}

/* The offset from UTC in seconds: Z, +hh:mm, -hh:mm. */
static bool zone(const char **p, int *ret_s)
{
	int sign, hours, minutes;

	*ret_s = 0;
	if (lit(p, "Zz"))
		return true;
	sign = **p == '-' ? -1 : 1;
	if (!lit(p, "+-"))
		return false;
	hours = digits(p, 2);
	if (hours < 0 || hours > 23 || !lit(p, ":"))
		return false;
	minutes = digits(p, 2);
	if (minutes < 0 || minutes > 59)
		return false;
	*ret_s = sign * (hours * 3600 + minutes * 60);
	return true;
}

bool index_parse_rfc3339(const char *text, int64_t *ret_s, uint32_t *ret_ns)
{
	const char *p = text;
	struct tm tm = {0};
	uint32_t ns = 0, unit = 100000000;
	int offset;

	tm.tm_year = digits(&p, 4);
	if (tm.tm_year < 0 || !lit(&p, "-") || (tm.tm_mon = digits(&p, 2)) < 1 || tm.tm_mon > 12 ||
		!lit(&p, "-") || (tm.tm_mday = digits(&p, 2)) < 1 || tm.tm_mday > 31 ||
		!lit(&p, "Tt ") || (tm.tm_hour = digits(&p, 2)) < 0 || tm.tm_hour > 23 ||
		!lit(&p, ":") || (tm.tm_min = digits(&p, 2)) < 0 || tm.tm_min > 59 ||
		!lit(&p, ":") || (tm.tm_sec = digits(&p, 2)) < 0 || tm.tm_sec > 60)
		return false;
	if (lit(&p, ".")) {
		if (*p < '0' || *p > '9')
			return false;
		for (; *p >= '0' && *p <= '9'; p++, unit /= 10)
			ns += (uint32_t)(*p - '0') * unit;
	}
	if (!zone(&p, &offset) || *p)
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	*ret_s = (int64_t)timegm(&tm) - offset;
	*ret_ns = ns;
	return true;
}

/* ---- one object ---- */

static bool set_mtime(const json_t *v, struct version *version)
{
	const char *text;

	if (!v || json_is_null(v))
		return true;
	if (json_is_number(v)) {
		double s = json_number_value(v);

		if (!(s > -1e15 && s < 1e15))
			return false;
		version->mtime_s = (int64_t)s - (s < (double)(int64_t)s);
		version->mtime_ns = (uint32_t)((s - (double)version->mtime_s) * 1e9);
		return true;
	}
	text = json_string_value(v);
	return text && (index_parse_rfc3339(text, &version->mtime_s, &version->mtime_ns) ||
			       http_parse_date(text, strlen(text), &version->mtime_s));
}

/* What the object says, apart from its name; NULL or what is wrong. */
static const char *read_fields(const json_t *root, struct origin_entry *e)
{
	const json_t *size = json_object_get(root, "size"), *etag = json_object_get(root, "etag");

	if (e->is_prefix)
		return NULL;
	if (!json_is_integer(size) || json_integer_value(size) < 0)
		return "\"size\" is not a number of bytes";
	e->version.size = (uint64_t)json_integer_value(size);
	if (!set_mtime(json_object_get(root, "mtime"), &e->version))
		return "\"mtime\" is neither RFC 3339 nor seconds since 1970";
	if (etag && !json_is_null(etag)) {
		if (!json_is_string(etag))
			return "\"etag\" is not a string";
		e->version.is_bound = http_etag_keep(
			json_string_value(etag), json_string_length(etag), e->version.etag);
	}
	return NULL;
}

/* Code points made of single bytes back into those bytes. */
static size_t to_bytes(char *text, size_t len)
{
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c >= 0xc2 && c <= 0xc3 && i + 1 < len)
			c = (unsigned char)((c & 3) << 6 | ((unsigned char)text[++i] & 0x3f));
		text[out++] = (char)c;
	}
	return out;
}

static const char *take_object(struct index_parser *p, const json_t *root, bool is_bytes)
{
	const char *name = p->form == INDEX_LINES ? "key" : "name", *what, *type;
	const json_t *v = json_object_get(root, name);
	struct origin_entry e = {0};
	char key[ORIGIN_KEY_MAX + 2];
	size_t len;

	if (!json_is_string(v))
		return p->form == INDEX_LINES ? "there is no string \"key\""
					      : "there is no string \"name\"";
	type = json_string_value(json_object_get(root, "type"));
	e.is_prefix = p->form == INDEX_AUTOINDEX && type && strcmp(type, "directory") == 0;
	/* a device or a socket has no size and is no object */
	if (p->form == INDEX_AUTOINDEX && type && !e.is_prefix && strcmp(type, "file") != 0)
		return NULL;
	what = read_fields(root, &e);
	if (what)
		return what;
	len = json_string_length(v);
	/* UTF-8 of single bytes may be twice as long as the name it stands for */
	if (len == 0 || len > ORIGIN_KEY_MAX || memchr(json_string_value(v), 0, len)) {
		p->nleft_out++;
		return NULL;
	}
	memcpy(key, json_string_value(v), len);
	if (is_bytes)
		len = to_bytes(key, len);
	/* a name of one level that holds a slash would be another level */
	if (p->form == INDEX_AUTOINDEX && memchr(key, '/', len)) {
		p->nleft_out++;
		return NULL;
	}
	if (e.is_prefix)
		key[len++] = '/';
	key[len] = 0;
	e.key = key;
	e.key_len = len;
	p->is_ended = !p->cb(p->arg, &e);
	return NULL;
}

/* The object with bytes above 0x7f escaped; NULL when it would not fit. */
static json_t *parse_bytes(const char *object, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	char *copy = malloc(len * 6 + 1);
	json_t *root = NULL;
	size_t out = 0;

	if (!copy)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)object[i];

		if (c < 0x80) {
			copy[out++] = (char)c;
			continue;
		}
		memcpy(copy + out, "\\u00", 4);
		copy[out + 4] = hex[c >> 4];
		copy[out + 5] = hex[c & 15];
		out += 6;
	}
	root = json_loadb(copy, out, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
	free(copy);
	return root;
}

static int end_object(struct index_parser *p, struct wd_err *err)
{
	json_error_t why;
	json_t *root = json_loadb(p->object, p->len, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &why);
	const char *what;
	bool is_bytes = false;

	p->nobjects++;
	if (!root && json_error_code(&why) == json_error_invalid_utf8) {
		root = parse_bytes(p->object, p->len);
		is_bytes = true;
	}
	if (!root)
		return wd_err_set(err, EPROTO, "object %zu is not JSON: %s", p->nobjects, why.text);
	what = take_object(p, root, is_bytes);
	json_decref(root);
	p->len = 0;
	if (what)
		return wd_err_set(err, EPROTO, "object %zu: %s", p->nobjects, what);
	return 0;
}

/* ---- finding the objects ---- */

/* A byte between objects: blanks, and for an array its brackets and commas. */
static bool between(struct index_parser *p, char c)
{
	if (c == ' ' || c == '\t' || c == '\r' || c == '\n')
		return true;
	if (p->form == INDEX_LINES)
		return false;
	if (c == '[' && !p->has_opened)
		return p->has_opened = true;
	if (c == ']' && p->has_opened && !p->has_closed)
		return p->has_closed = true;
	return c == ',' && p->has_opened && !p->has_closed && p->nobjects > 0;
}

/* Inside an object: where does it end? True at its last byte. */
static bool step(struct index_parser *p, char c)
{
	if (p->is_escaped)
		p->is_escaped = false;
	else if (p->is_in_string && c == '\\')
		p->is_escaped = true;
	else if (c == '"')
		p->is_in_string = !p->is_in_string;
	else if (p->is_in_string)
		return false;
	else if (c == '{')
		p->depth++;
	else if (c == '}')
		return --p->depth == 0;
	return false;
}

int index_feed(struct index_parser *p, const void *data, size_t len, struct wd_err *err)
{
	const char *in = data;

	for (size_t i = 0; i < len && !p->is_ended; i++) {
		if (p->depth == 0 && in[i] != '{') {
			if (!between(p, in[i]))
				return wd_err_set(err, EPROTO,
					"after object %zu: not a JSON object", p->nobjects);
			continue;
		}
		if (p->depth == 0 && p->form == INDEX_AUTOINDEX &&
			(!p->has_opened || p->has_closed))
			return wd_err_set(err, EPROTO, "not a JSON array");
		if (p->len == sizeof(p->object))
			return wd_err_set(err, EPROTO, "object %zu is longer than %d bytes",
				p->nobjects + 1, INDEX_OBJECT_MAX);
		p->object[p->len++] = in[i];
		if (step(p, in[i])) {
			int rc = end_object(p, err);

			if (rc < 0)
				return rc;
		}
	}
	return 0;
}

int index_finish(struct index_parser *p, struct wd_err *err)
{
	if (p->is_ended)
		return 0;
	if (p->depth > 0 || (p->form == INDEX_AUTOINDEX && !p->has_closed))
		return wd_err_set(
			err, EPROTO, "it ends in the middle, after object %zu", p->nobjects);
	return 0;
}
