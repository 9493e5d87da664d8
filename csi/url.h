/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_CSI_URL_H
#define WD_CSI_URL_H
/*
 * The form of dataset URLs and of paths below them, and the globs of a class that say which of them
 * a claim may name. Nothing is resolved or contacted: whether an origin may be mounted at all is
 * the agent's to say. Pure; any thread.
 *
 * `where` begins an error's text: the field, parameter or annotation that is at fault.
 */
#include <stdbool.h>

#include "common/rpc.h"

#define URL_LEN_MAX 1024 /* bytes */

/* A known scheme, a place, no query, no '.' or '..' as a part, no control bytes. */
enum rpc_code url_check(struct rpc_call *call, const char *where, const char *url);
/* What a claim brings, a URL or a path: moreover none of the characters by which one text could name
 * two places ('%', '\', and '@' before the path), no empty parts. */
enum rpc_code url_check_foreign(struct rpc_call *call, const char *where, const char *text);
/* A relative path: no '.', '..' or empty part. */
bool url_is_clean_path(const char *path);
/* url and, when it is not empty, path below it; in the call's arena, NULL without memory. */
const char *url_join(struct rpc_call *call, const char *url, const char *path);

/* A class's list of globs, separated by commas or blanks: each with a scheme and a place of its own. */
enum rpc_code url_check_globs(struct rpc_call *call, const char *where, const char *globs);
/* A glob is compared part by part, so that no '*' reaches past a '/'; what lies below a URL that
 * matches is allowed with it. */
bool url_is_allowed(const char *globs, const char *url);

#endif
