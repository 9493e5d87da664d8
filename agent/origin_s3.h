/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_ORIGIN_S3_H
#define WD_AGENT_ORIGIN_S3_H
/* Inside the S3 origin: its struct, and its listings (s3_list.c). */
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

/* Contract as origin_list(). */
int s3_list(struct origin *o, const char *prefix, bool is_recursive, unsigned max_pages,
	origin_entry_cb cb, void *arg, bool *ret_is_complete, struct wd_err *err);

/* Is there anything at or below prefix (which ends with "/", or is "")? is_check: fail fast. */
int s3_is_prefix(
	struct s3_origin *s, const char *prefix, bool is_check, bool *ret_is, struct wd_err *err);

#endif
