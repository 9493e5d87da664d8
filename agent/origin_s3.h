/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_S3_H
#define WD_AGENT_ORIGIN_S3_H
/* Inside the S3 origin: its struct, and what its files share. */
#include "agent/http_client.h"

/* Where the bucket is, as far as known; never changed, only replaced. */
struct s3_place {
	char *region;
	char *authority;	/* host[:port], with the bucket unless path style */
	struct s3_place *older; /* replaced ones are kept: a request may still use them */
};
#define S3_PLACES_MAX 4

struct s3_origin {
	struct http_site site;
	char *bucket, *prefix; /* prefix: "" or ends with "/" */
	char *endpoint;	       /* host[:port] as asked for; NULL: AWS, by region */
	bool is_https, is_path_style;
	struct s3_place *_Atomic place;
	char *path; /* "" or "/bucket", encoded */
};

/* ---- s3_place.c ---- */

/* NULL without memory. */
struct s3_place *s3_place_new(const struct s3_origin *s, const char *region);
void s3_place_free(struct s3_place *place); /* NULL is fine */
/* The server says that the bucket is in another region: true when requests go there from now on. */
bool s3_move_to(struct s3_origin *s, const char *region);

/* ---- s3_explain.c ---- */

/* As http_site's explain (http_client.h). */
void s3_explain(struct http_site *site, const struct http_answer *a, const char *body, size_t len,
	enum http_verdict *verdict, char *text, size_t cap);

/* ---- s3_list.c ---- */

/* Contract as origin_list(). */
int s3_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err);

/* Is there anything at or below prefix (which ends with "/", or is "")? is_check: fail fast. */
int s3_is_prefix(
	struct s3_origin *s, const char *prefix, bool is_check, bool *ret_is, struct wd_err *err);

#endif
