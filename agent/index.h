/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_INDEX_H
#define WD_AGENT_INDEX_H
/*
 * Listings as JSON: index files (an object per line:
 * {"key":"a/b","size":1,"mtime":...,"etag":"..."}) and nginx's autoindex_format json (an array of
 * {"name":"b","type":"file","mtime":...,"size":1}). One parser reads both, in pieces as they
 * arrive, holding one object at a time. Everything is untrusted.
 */
#include <stdbool.h>
#include <stddef.h>

#include "agent/origin.h"

#define INDEX_OBJECT_MAX 16384 /* bytes of one JSON object */

enum index_form { INDEX_LINES, INDEX_AUTOINDEX };

struct index_parser;

/* cb gets keys as they stand there: for autoindex one name, with "/" behind a directory's. cb
 * returning false ends the parsing; later bytes are ignored. */
struct index_parser *index_new(enum index_form form, origin_entry_cb cb, void *arg);
void index_free(struct index_parser *p);

/* Returns 0, or -EPROTO with the object's number and what is wrong with it. */
int index_feed(struct index_parser *p, const void *data, size_t len, struct wd_err *err);
/* The input is over: was it whole? */
int index_finish(struct index_parser *p, struct wd_err *err);

/* True once cb returned false. */
bool index_is_ended(const struct index_parser *p);
/* Entries that were well-formed JSON but name nothing usable (NUL or too long a key): left out. */
size_t index_left_out(const struct index_parser *p);

/* "2026-01-02T03:04:05.678Z", also with an offset; false when it is none. */
bool index_parse_rfc3339(const char *text, int64_t *ret_s, uint32_t *ret_ns);

#endif
