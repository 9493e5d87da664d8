/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a manifest by ranged GETs, one after the other, straight into the parser. */
#include "agent/origin_manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/http_client.h"
#include "agent/index.h"
#include "agent/index_level.h"
#include "agent/origin_http.h"
#include "common/lock.h"
#include "common/log.h"

#define CHUNK (4ULL << 20)

bool manifest_is_name(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

	return name[0] && name[0] != '.' && strlen(name) <= MANIFEST_NAME_MAX && strspn(name, allowed) == strlen(name);
}

char *manifest_key(const char *name)
{
	size_t size = sizeof(MANIFEST_DIR) + strlen(name) + sizeof(MANIFEST_SUFFIX);
	char *key = malloc(size);

	if (key)
		snprintf(key, size, MANIFEST_DIR "%s" MANIFEST_SUFFIX, name);
	return key;
}

/* ---- reading ---- */

struct reading {
	struct index_parser *parser;
	struct wd_err parse_err;
	struct wd_mutex lock;
	struct wd_cond landed;
	bool is_done;
	int status;
	struct wd_err err;
};

/* -EINTR ends the transfer: the caller has enough. */
static int feed(void *arg, uint64_t offset, const void *data, size_t len)
{
	struct reading *r = arg;
	int rc = index_feed(r->parser, data, len, &r->parse_err);

	(void)offset;
	return rc < 0 ? rc : index_is_ended(r->parser) ? -EINTR : 0;
}

static void done(void *arg, int status, const struct wd_err *err)
{
	struct reading *r = arg;

	wd_lock(&r->lock);
	r->status = status;
	if (status < 0 && err)
		r->err = *err;
	r->is_done = true;
	wd_cond_broadcast(&r->landed);
	wd_unlock(&r->lock);
}

static int read_chunk(struct origin *o, struct reading *r, const struct version *version, uint64_t offset)
{
	uint64_t left = version->size - offset;
	struct origin_get get = {
		.key = o->manifest,
		.version = version,
		.offset = offset,
		.length = left < CHUNK ? left : CHUNK,
		.priority = GET_DEMAND,
		.sink = feed,
		.done = done,
		.arg = r,
	};
	int status;

	r->is_done = false;
	origin_get(o, &get);
	wd_lock(&r->lock);
	while (!r->is_done)
		wd_cond_wait(&r->landed, &r->lock);
	status = r->status;
	wd_unlock(&r->lock);
	return status;
}

static int explain(struct origin *o, const struct reading *r, int rc, struct wd_err *err)
{
	if (r->parse_err.code)
		return wd_err_set(err, EIO, "read the manifest '%s%s': %s", o->url, o->manifest, r->parse_err.msg);
	if (rc == -ESTALE)
		return wd_err_set(err, EIO, "read the manifest '%s%s': it changed while it was read", o->url, o->manifest);
	if (r->err.code)
		return wd_err_set(err, r->err.code, "read the manifest: %s", r->err.msg);
	return wd_err_sys(err, -rc, "read the manifest '%s%s'", o->url, o->manifest);
}

/* Gives cb every entry until it returns false. */
static int walk(struct origin *o, origin_entry_cb cb, void *arg, struct wd_err *err)
{
	struct reading r = {.parser = index_new(INDEX_LINES, cb, arg), .parse_err = WD_ERR_INIT, .err = WD_ERR_INIT};
	struct version version;
	int rc;

	if (!r.parser)
		return wd_err_sys(err, ENOMEM, "read the manifest '%s%s'", o->url, o->manifest);
	wd_mutex_init(&r.lock);
	wd_cond_init(&r.landed);
	rc = o->ops->stat(o, o->manifest, &version, err);
	if (rc < 0)
		goto out;
	for (uint64_t at = 0; rc == 0 && at < version.size; at += CHUNK)
		rc = read_chunk(o, &r, &version, at);
	if (rc == 0)
		rc = index_finish(r.parser, &r.parse_err);
	if (index_is_ended(r.parser) && !r.parse_err.code)
		rc = 0;
	if (rc < 0)
		rc = explain(o, &r, rc, err);
	else if (index_left_out(r.parser))
		wd_warn("read the manifest '%s%s': %zu entries left out that no key can name", o->url, o->manifest,
			index_left_out(r.parser));
out:
	index_free(r.parser);
	return rc;
}

int manifest_list(struct origin *o, const char *prefix, bool is_recursive, origin_entry_cb cb, void *arg,
	bool *ret_is_complete, struct wd_err *err)
{
	struct index_level *level = malloc(sizeof(*level));
	int rc;

	if (!level)
		return wd_err_sys(err, ENOMEM, "list '%s'", o->url);
	index_level_init(level, prefix, is_recursive, cb, arg);
	rc = walk(o, index_level_take, level, err);
	if (rc == 0 && level->is_out_of_memory)
		rc = wd_err_sys(err, ENOMEM, "list '%s'", o->url);
	*ret_is_complete = rc == 0 && !level->has_ended;
	index_level_done(level);
	free(level);
	return rc;
}

/* ---- single keys ---- */

struct search {
	const char *key;
	size_t len;
	enum origin_kind kind;
	struct version version;
};

/* A prefix wins over an object of the same name. */
static bool look_at(void *arg, const struct origin_entry *entry)
{
	struct search *s = arg;

	if (entry->key_len < s->len || memcmp(entry->key, s->key, s->len) != 0)
		return true;
	if (entry->key_len > s->len && entry->key[s->len] == '/')
		s->kind = ORIGIN_PREFIX;
	else if (entry->key_len == s->len) {
		s->kind = ORIGIN_OBJECT;
		s->version = entry->version;
	}
	return s->kind != ORIGIN_PREFIX;
}

int manifest_probe(struct origin *o, const char *key, enum origin_kind *ret_kind, struct version *ret_version,
	struct wd_err *err)
{
	struct search s = {.key = key, .len = strlen(key), .kind = *key ? ORIGIN_NONE : ORIGIN_PREFIX};
	int rc = *key ? walk(o, look_at, &s, err) : 0;

	if (rc < 0)
		return rc;
	*ret_kind = s.kind;
	if (s.kind == ORIGIN_OBJECT)
		*ret_version = s.version;
	return 0;
}

int manifest_stat(struct origin *o, const char *key, struct version *ret_version, struct wd_err *err)
{
	enum origin_kind kind;
	int rc = manifest_probe(o, key, &kind, ret_version, err);

	if (rc == 0 && kind != ORIGIN_OBJECT)
		rc = wd_err_set(err, ENOENT, "look up '%s%s': it is not in this version of the dataset", o->url, key);
	if (rc == 0)
		ret_version->is_bound = true; /* nobody knows more of it */
	return rc;
}

int manifest_check(struct origin *o, struct wd_err *err)
{
	struct version version;
	int rc;

	/* it is answered within a few seconds, whatever the deadline */
	origin_waiting_since(wd_now_ns() - (o->deadline_ms - HTTP_CHECK_MS) * 1000000);
	rc = http_check_result(o->ops->stat(o, o->manifest, &version, err), err);
	origin_waiting_since(0);
	if (rc == -ENOENT)
		return wd_err_set(err, ENOENT,
			"there is no such version of the dataset: '%s%s' does not exist; `warpdrive-ctl dataset pin` makes it",
			o->url, o->manifest);
	return rc;
}
