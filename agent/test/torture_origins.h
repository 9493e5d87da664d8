/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_TEST_TORTURE_ORIGINS_H
#define WD_AGENT_TEST_TORTURE_ORIGINS_H
/*
 * The same small dataset at every kind of origin: a directory, a server's listing, an index file,
 * a bucket without and with a key. Each life has a server of its own, so that no connection and no
 * breaker of the life before is there.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "agent/test/agent_fixture.h"
#include "agent/test/http_origin.h"

#define SMALL 1000
#define LARGE 300000 /* two blocks */

enum place_kind { IN_FILES, IN_LISTINGS, IN_INDEX, IN_BUCKET, IN_BUCKET_WITH_KEY, PLACE_KINDS };

static const char *const place_names[PLACE_KINDS] = {"files", "HTTP listings", "an HTTP index", "S3", "S3 with a key"};

struct place {
	enum place_kind kind;
	struct http_origin *server; /* NULL for files */
	char dir[32];
	char description[600]; /* of the mount */
	char listing[1000], sub_listing[1000];
	unsigned char small[SMALL], large[LARGE], bytes[LARGE];
};

#define DATE "Thu, 01 Jan 2026 00:00:00 GMT"
#define FILE_ENTRY(name, size)                                                                     \
	"{\"name\":\"" name "\",\"type\":\"file\",\"mtime\":\"" DATE "\",\"size\":" size "}"
#define INDEX_LINE(key, size)                                                                      \
	"{\"key\":\"" key "\",\"size\":" size ",\"mtime\":\"2026-01-01T00:00:00Z\"}\n"
#define XML_START "<ListBucketResult><EncodingType>url</EncodingType>"
#define XML_END "</ListBucketResult>"
#define XML_FILE "<Contents><Key>%s/%s</Key><ETag>\"e\"</ETag><Size>%d</Size></Contents>"

static inline void place_path(char *out, size_t cap, const struct place *p, const char *name)
{
	snprintf(out, cap, "%s/%s/%s", p->kind >= IN_BUCKET ? "/bkt" : "", p->dir, name);
}

static inline void place_body(struct place *p, unsigned char *data, size_t len, const char *name)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	for (size_t i = 0; i < len; i++)
		data[i] = rig_byte(path, i);
	place_path(path, sizeof(path), p, name);
	http_origin_put(p->server, path, data, len, "\"e\"", NULL);
}

static inline void place_list_bucket(
	struct place *p, int max_keys, const char *prefix, const char *xml)
{
	char query[300];

	snprintf(query, sizeof(query), "/bkt/?encoding-type=url&list-type=2&max-keys=%d&prefix=%s%%2F%s",
		max_keys, p->dir, prefix);
	http_origin_text(p->server, query, xml, "application/xml");
}

static inline void place_bucket(struct place *p)
{
	static const char none[] = XML_START XML_END;

	snprintf(p->listing, sizeof(p->listing), XML_START XML_FILE XML_FILE XML_FILE XML_FILE XML_END, p->dir, "bytes",
		LARGE, p->dir, "large", LARGE, p->dir, "small", SMALL, p->dir, "sub/empty", 0);
	snprintf(p->sub_listing, sizeof(p->sub_listing), XML_START XML_FILE XML_END, p->dir, "sub/empty", 0);
	place_list_bucket(p, 1000, "", p->listing); /* it is small: one page tells it all */
	place_list_bucket(p, 1000, "sub%2F", p->sub_listing);
	place_list_bucket(p, 1, "", p->sub_listing);
	place_list_bucket(p, 1, "sub%2F", p->sub_listing);
	place_list_bucket(p, 1, "small%2F", none);
	place_list_bucket(p, 1, "large%2F", none);
	place_list_bucket(p, 1, "bytes%2F", none);
}

static inline void place_web(struct place *p)
{
	char path[100], to[100];

	if (p->kind == IN_INDEX) {
		place_path(path, sizeof(path), p, "index.jsonl");
		http_origin_text(p->server, path,
			INDEX_LINE("bytes", "300000") INDEX_LINE("large", "300000")
				INDEX_LINE("small", "1000") INDEX_LINE("sub/empty", "0"),
			"application/json");
		return;
	}
	place_path(path, sizeof(path), p, "");
	http_origin_text(p->server, path,
		"[" FILE_ENTRY("bytes", "300000") "," FILE_ENTRY("large", "300000") "," FILE_ENTRY(
			"small", "1000") ",{\"name\":\"sub\",\"type\":\"directory\",\"mtime\":\"" DATE "\"}]",
		"application/json");
	place_path(path, sizeof(path), p, "sub");
	place_path(to, sizeof(to), p, "sub/");
	http_origin_redirect(p->server, path, to);
	http_origin_text(p->server, to, "[" FILE_ENTRY("empty", "0") "]", "application/json");
}

static inline void place_files(struct rig *rig, const struct place *p)
{
	static const struct {
		const char *name;
		int size;
	} files[] = {{"small", SMALL}, {"large", LARGE}, {"bytes", LARGE}, {"sub/empty", 0}};
	char path[64];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", p->dir, files[i].name);
		rig_file(rig, path, (uint64_t)files[i].size);
	}
}

/* Makes the dataset number n. */
static inline void place_begin(struct place *p, struct rig *rig, enum place_kind kind, uint64_t n)
{
	static const char key[] = ",\"credentials\":{\"access_key\":\"AK\",\"secret_key\":\"SECRET\","
				  "\"session_token\":\"TOKEN\"}";

	p->kind = kind;
	p->server = NULL;
	snprintf(p->dir, sizeof(p->dir), "d%llu", (unsigned long long)n);
	if (kind == IN_FILES) {
		place_files(rig, p);
		snprintf(p->description, sizeof(p->description), "{\"url\":\"file://%s/data/%s\"}", rig->dir, p->dir);
		return;
	}
	p->server = http_origin_start();
	atomic_store(&p->server->is_prompt, true);
	place_body(p, p->small, SMALL, "small");
	place_body(p, p->large, LARGE, "large");
	place_body(p, p->bytes, LARGE, "bytes");
	place_body(p, p->small, 0, "sub/empty");
	if (kind >= IN_BUCKET) {
		place_bucket(p);
		snprintf(p->description, sizeof(p->description),
			"{\"url\":\"s3://bkt/%s\",\"options\":{\"endpoint\":\"http://127.0.0.1:%d\"%s}%s}", p->dir,
			p->server->port, kind == IN_BUCKET ? ",\"anonymous\":\"\"" : "",
			kind == IN_BUCKET ? "" : key);
	} else {
		place_web(p);
		snprintf(p->description, sizeof(p->description),
			"{\"url\":\"http://user:word@127.0.0.1:%d/%s\",\"options\":{%s}}", p->server->port, p->dir,
			kind == IN_INDEX ? "\"index\":\"index.jsonl\"" : "");
	}
}

/* The next requests meet what a healthy origin does now and then: each is tried again. */
static inline void place_stumble(struct place *p)
{
	char to[100];

	if (!p->server)
		return;
	if (p->kind >= IN_BUCKET) {
		http_origin_fail(p->server, FAULT_STATUS, 503, "<Error><Code>SlowDown</Code></Error>");
		/* another region */
		http_origin_fail(p->server, FAULT_RAW, 0,
			"HTTP/1.1 301 x\r\nx-amz-bucket-region: eu-west-1\r\nContent-Length: 0\r\n\r\n");
	} else {
		place_path(to, sizeof(to), p, "small");
		http_origin_fail(p->server, FAULT_REDIRECT, 302, to);
	}
	http_origin_fail(p->server, FAULT_NONE, 0, NULL);
	http_origin_fail(p->server, FAULT_SHORT_BODY, 0, NULL);
}

static inline void place_end(struct place *p)
{
	if (p->server)
		http_origin_stop(p->server);
	p->server = NULL;
}

#endif
