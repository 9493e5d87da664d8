/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_MANIFEST_H
#define WD_AGENT_ORIGIN_MANIFEST_H
/*
 * A pinned version of a dataset is an object below the dataset's URL, MANIFEST_DIR NAME MANIFEST_SUFFIX: JSON lines
 * as of an index file (agent/index.h), one per object, with size, mtime and ETag. It is what `warpdrive-ctl dataset
 * pin` makes. A mount of a version takes names, sizes and versions from there and from nowhere else; the bytes come
 * from the objects themselves, as long as they are of that version (else ESTALE).
 *
 * These functions stand for the origin's own list, probe and stat (origin_impl.h); they block.
 */
#include "agent/origin_impl.h"

#define MANIFEST_DIR ".warpdrive/versions/"
#define MANIFEST_SUFFIX ".jsonl"
#define MANIFEST_NAME_MAX 128

/* A name: letters, digits, ".", "_" and "-", not beginning with ".". */
bool manifest_is_name(const char *name);
/* The key of version name; NULL without memory. */
char *manifest_key(const char *name);

int manifest_list(struct origin *o, const char *prefix, bool is_recursive, origin_entry_cb cb, void *arg,
	bool *ret_is_complete, struct wd_err *err);
int manifest_probe(struct origin *o, const char *key, enum origin_kind *ret_kind, struct version *ret_version,
	struct wd_err *err);
int manifest_stat(struct origin *o, const char *key, struct version *ret_version, struct wd_err *err);
/* Is there one? The text names what to do when there is none. */
int manifest_check(struct origin *o, struct wd_err *err);

#endif
