/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_HTTP_H
#define WD_AGENT_ORIGIN_HTTP_H
/* Inside the HTTP origin: its struct, and the two ways to list it (http_listing.c). */
#include "agent/http_client.h"

/* What origin_check() may take: it must fail fast. */
#define HTTP_CHECK_MS 4000
#define HTTP_CHECK_TRIES 2

struct http_origin {
	struct http_site site;
	char *root;	     /* scheme://host/path/ as asked for, without user info */
	char *user;	     /* the URL's user info, or NULL; a secret */
	char *index;	     /* its name, or NULL */
};

/* One level from the server's own listing. Contracts of both as origin_list(). */
int http_list_dir(struct http_origin *h, const char *prefix, origin_entry_cb cb, void *arg,
	bool is_check, bool *ret_is_complete, struct wd_err *err);
/* From the index file: one level, or everything. */
int http_list_index(struct http_origin *h, const char *prefix, bool is_recursive,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err);

#endif
