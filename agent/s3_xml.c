/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads S3's XML with expat. The parser keeps the name of the innermost element and of its parent
 * and the text since its start tag, no tree. Elements that nobody knows are skipped with what is in
 * them.
 *
 * A document type declaration ends the parsing: S3 sends none, and entities are how XML attacks.
 */
#include "agent/s3_xml.h"

#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agent/http_range.h"
#include "agent/index.h"

#define NAME_MAX_LEN 40
#define DEPTH_MAX 8
/* a key of 1024 bytes, each written as %XX */
#define TEXT_MAX_LEN (3 * ORIGIN_KEY_MAX + 8)

struct parse {
	XML_Parser xml;
	unsigned depth;
	char path[DEPTH_MAX][NAME_MAX_LEN];
	char text[TEXT_MAX_LEN + 1];
	size_t len;
	bool is_text_cut;
	const char *problem;
	/* list */
	struct s3_page *page;
	struct origin_entry entry;
	char key[TEXT_MAX_LEN + 1];
	size_t key_len;
	bool has_hidden; /* show_controls() is needed */
	bool has_key, has_size, is_encoded, is_too_long, has_root;
	bool has_entries;
	/* error */
	struct s3_error *error;
};

static void fail(struct parse *p, const char *problem)
{
	if (!p->problem)
		p->problem = problem;
	XML_StopParser(p->xml, XML_FALSE);
}

size_t s3_url_decode(char *text, size_t len)
{
	size_t out = 0;

	for (size_t i = 0; i < len; i++) {
		unsigned v;
		char hex[3] = {0};

		if (text[i] == '+') {
			text[out++] = ' ';
			continue;
		}
		if (text[i] == '%' && i + 2 < len &&
			strchr("0123456789abcdefABCDEF", text[i + 1]) && text[i + 1] &&
			strchr("0123456789abcdefABCDEF", text[i + 2]) && text[i + 2]) {
			memcpy(hex, text + i + 1, 2);
			sscanf(hex, "%2x", &v);
			text[out++] = (char)v;
			i += 2;
			continue;
		}
		text[out++] = text[i];
	}
	return out;
}

/* Is the innermost element `name` inside `parent`? */
static bool at(const struct parse *p, const char *parent, const char *name)
{
	return p->depth >= 2 && p->depth <= DEPTH_MAX && strcmp(p->path[p->depth - 1], name) == 0 &&
	       strcmp(p->path[p->depth - 2], parent) == 0;
}

static void on_start(void *arg, const char *name, const char **attributes)
{
	struct parse *p = arg;
	const char *colon = strrchr(name, ':');

	(void)attributes;
	if (p->depth < DEPTH_MAX)
		snprintf(p->path[p->depth], NAME_MAX_LEN, "%s", colon ? colon + 1 : name);
	p->depth++;
	p->len = 0;
	p->is_text_cut = false;
	if (at(p, "ListBucketResult", "Contents") || at(p, "ListBucketResult", "CommonPrefixes")) {
		p->entry = (struct origin_entry){0};
		p->has_key = p->has_size = p->is_too_long = false;
	}
}

static void on_text(void *arg, const char *text, int n)
{
	struct parse *p = arg;
	size_t len = (size_t)n;

	if (len > TEXT_MAX_LEN - p->len) {
		len = TEXT_MAX_LEN - p->len;
		p->is_text_cut = true;
	}
	memcpy(p->text + p->len, text, len);
	p->len += len;
	p->text[p->len] = 0;
}

static void take_key(struct parse *p)
{
	memcpy(p->key, p->text, p->len + 1);
	p->key_len = p->len;
	p->has_key = true;
	p->is_too_long = p->is_text_cut;
}

static void take_size(struct parse *p)
{
	uint64_t v = 0;

	if (p->len == 0 || p->is_text_cut)
		fail(p, "a <Size> that is no number");
	for (size_t i = 0; i < p->len; i++)
		if (p->text[i] < '0' || p->text[i] > '9' ||
			__builtin_mul_overflow(v, (uint64_t)10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(p->text[i] - '0'), &v))
			fail(p, "a <Size> that is no number");
	p->entry.version.size = v;
	p->has_size = true;
}

/* An object or a common prefix is whole: give it to the caller. */
static void end_entry(struct parse *p, bool is_prefix)
{
	if (p->page->is_ended || p->problem)
		return;
	p->has_entries = true;
	if (!p->has_key || (!is_prefix && !p->has_size)) {
		fail(p, "an entry without key or size");
		return;
	}
	if (p->is_encoded)
		p->key_len = s3_url_decode(p->key, p->key_len);
	if (p->is_too_long || p->key_len > 2 * ORIGIN_KEY_MAX || p->key_len == 0 ||
		memchr(p->key, 0, p->key_len)) {
		p->page->nleft_out++;
		return;
	}
	p->key[p->key_len] = 0;
	p->entry.key = p->key;
	p->entry.key_len = p->key_len;
	p->entry.is_prefix = is_prefix;
	p->entry.version.is_bound = p->entry.version.etag[0] != 0;
	if (!p->page->cb(p->page->arg, &p->entry)) {
		p->page->is_ended = true;
		XML_StopParser(p->xml, XML_FALSE);
	}
}

static void end_in_list(struct parse *p)
{
	struct version *v = &p->entry.version;

	if (at(p, "Contents", "Key") || at(p, "CommonPrefixes", "Prefix"))
		take_key(p);
	else if (at(p, "Contents", "Size"))
		take_size(p);
	else if (at(p, "Contents", "ETag"))
		http_etag_keep(p->text, p->len, v->etag);
	else if (at(p, "Contents", "LastModified"))
		index_parse_rfc3339(p->text, &v->mtime_s, &v->mtime_ns);
	else if (at(p, "ListBucketResult", "Contents"))
		end_entry(p, false);
	else if (at(p, "ListBucketResult", "CommonPrefixes"))
		end_entry(p, true);
	else if (at(p, "ListBucketResult", "IsTruncated"))
		p->page->is_truncated = strcasecmp(p->text, "true") == 0;
	else if (at(p, "ListBucketResult", "NextContinuationToken") && !p->is_text_cut &&
		 p->len < S3_TOKEN_MAX)
		memcpy(p->page->token, p->text, p->len + 1);
	else if (at(p, "ListBucketResult", "EncodingType") && strcmp(p->text, "url") == 0) {
		if (p->has_entries && !p->is_encoded)
			fail(p, "<EncodingType> after the entries");
		p->is_encoded = true;
	}
}

static void keep_text(const struct parse *p, char *out, size_t cap)
{
	size_t len = p->len < cap - 1 ? p->len : cap - 1;

	memcpy(out, p->text, len);
	out[len] = 0;
}

static void end_in_error(struct parse *p)
{
	if (p->depth != 2)
		return;
	if (strcmp(p->path[1], "Code") == 0)
		keep_text(p, p->error->code, sizeof(p->error->code));
	else if (strcmp(p->path[1], "Message") == 0)
		keep_text(p, p->error->message, sizeof(p->error->message));
	else if (strcmp(p->path[1], "Region") == 0)
		keep_text(p, p->error->region, sizeof(p->error->region));
}

static size_t show_controls(char *text, size_t len);

static void on_end(void *arg, const char *name)
{
	struct parse *p = arg;

	(void)name;
	p->text[p->len] = 0;
	if (p->has_hidden)
		p->len = show_controls(p->text, p->len);
	if (p->depth == 1)
		p->has_root = strcmp(p->path[0], "ListBucketResult") == 0;
	if (p->page)
		end_in_list(p);
	else
		end_in_error(p);
	p->depth--;
	p->len = 0;
	p->text[0] = 0;
}

static void on_doctype(
	void *arg, const char *name, const char *sysid, const char *pubid, int internal)
{
	(void)name, (void)sysid, (void)pubid, (void)internal;
	fail(arg, "a document type declaration");
}

static struct parse *parse_new(void)
{
	struct parse *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->xml = XML_ParserCreate(NULL);
	if (!p->xml) {
		free(p);
		return NULL;
	}
	XML_SetUserData(p->xml, p);
	XML_SetElementHandler(p->xml, on_start, on_end);
	XML_SetCharacterDataHandler(p->xml, on_text);
	XML_SetStartDoctypeDeclHandler(p->xml, on_doctype);
	return p;
}

static void parse_free(struct parse *p)
{
	XML_ParserFree(p->xml);
	free(p);
}

/*
 * XML 1.0 cannot hold most control characters, not even as references, but some servers (Ceph)
 * write them all the same, for instance in a continuation token that is a key. They become private
 * code points (U+E000 + character, in UTF-8) before parsing and are turned back in the texts. NULL:
 * nothing to do, or the document uses those code points itself.
 */
static int control_reference(const char *p, size_t left, unsigned *ret_c)
{
	char ref[13]; /* with an end: sscanf looks for one before anything else */
	int n = 0;

	if (left > sizeof(ref) - 1)
		left = sizeof(ref) - 1;
	for (size_t i = 2; i < left; i++) {
		if (p[i] != ';')
			continue;
		memcpy(ref, p, i + 1);
		ref[i + 1] = '\0';
		if (sscanf(ref, "&#x%x;%n", ret_c, &n) != 1 && sscanf(ref, "&#%u;%n", ret_c, &n) != 1)
			return 0;
		return *ret_c > 0 && *ret_c < 0x20 && n == (int)i + 1 ? n : 0;
	}
	return 0;
}

static char *hide_controls(const char *xml, size_t len, size_t *ret_len)
{
	char *out;
	size_t n = 0;

	if (!memmem(xml, len, "&#", 2) || memmem(xml, len, "\xee\x80", 2))
		return NULL;
	out = malloc(len + 1);
	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		unsigned c = 0;
		int used = xml[i] == '&' && i + 3 < len && xml[i + 1] == '#'
				   ? control_reference(xml + i, len - i, &c)
				   : 0;

		if (used == 0) {
			out[n++] = xml[i];
			continue;
		}
		/* a reference has four bytes at least: "&#1;" */
		out[n++] = '\xee';
		out[n++] = '\x80';
		out[n++] = (char)(0x80 | c);
		i += (size_t)used - 1;
	}
	*ret_len = n;
	return out;
}

static size_t show_controls(char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (i + 2 < len && text[i] == '\xee' && text[i + 1] == '\x80') {
			text[n++] = text[i + 2] & 0x3f;
			i += 2;
		} else {
			text[n++] = text[i];
		}
	}
	text[n] = 0;
	return n;
}

int s3_parse_page(const void *xml, size_t len, struct s3_page *page, struct wd_err *err)
{
	static const char encoded[] = "<EncodingType>url</EncodingType>";
	struct parse *p = parse_new();
	enum XML_Status status;
	char *hidden;
	int rc = 0;

	if (!p)
		return wd_err_sys(err, ENOMEM, "read the listing");
	page->is_truncated = page->is_ended = false;
	page->token[0] = 0;
	page->nleft_out = 0;
	p->page = page;
	/* it may stand behind the entries that it is about */
	p->is_encoded = len && memmem(xml, len, encoded, sizeof(encoded) - 1);
	hidden = hide_controls(xml, len, &len);
	p->has_hidden = hidden != NULL;
	status = len > 1u << 30 ? XML_STATUS_ERROR
				: XML_Parse(p->xml, hidden ? hidden : xml, (int)len, 1);
	free(hidden);
	if (page->is_ended)
		rc = 0;
	else if (p->problem)
		rc = wd_err_set(err, EPROTO, "the listing has %s", p->problem);
	else if (status != XML_STATUS_OK)
		rc = wd_err_set(err, EPROTO, "the listing is not XML: %s in line %lu",
			XML_ErrorString(XML_GetErrorCode(p->xml)),
			XML_GetCurrentLineNumber(p->xml));
	else if (!p->has_root)
		rc = wd_err_set(err, EPROTO, "the listing is a <%.40s>, not a <ListBucketResult>",
			p->path[0]);
	else if (page->is_truncated && !page->token[0])
		rc = wd_err_set(err, EPROTO,
			"the listing is cut off and has no "
			"<NextContinuationToken>");
	parse_free(p);
	return rc;
}

bool s3_parse_error(const void *xml, size_t len, struct s3_error *ret_error)
{
	struct parse *p;

	*ret_error = (struct s3_error){0};
	if (len > 65536)
		return false;
	p = parse_new();
	if (!p)
		return false;
	p->error = ret_error;
	XML_Parse(p->xml, xml, (int)len, 1);
	if (strcmp(p->path[0], "Error") != 0 || p->problem)
		*ret_error = (struct s3_error){0};
	parse_free(p);
	return ret_error->code[0] != 0;
}
