/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_S3_SIGN_H
#define WD_AGENT_S3_SIGN_H
/*
 * AWS Signature Version 4. Pure: the caller brings the time, and path and query already encoded the
 * way they go on the wire (query sorted by name, every character but the unreserved ones encoded).
 * Done here rather than by curl because curl's canonical form differs between its versions.
 */
#include <stddef.h>
#include <time.h>

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
#define S3_DATE_LEN 17 /* "20130524T000000Z" and its NUL */

struct s3_header {
	const char *name; /* lower case */
	const char *value;
};

struct s3_to_sign {
	const char *method, *path, *query; /* query: "" when there is none */
	const char *region, *service;
	const char *access_key, *secret_key;
	const char *payload_hash;
	const struct s3_header *headers; /* sorted by name; host and x-amz-date among them */
	size_t nheaders;
	time_t time;
};

void s3_date(time_t t, char out[S3_DATE_LEN]);
/* "AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=..." on the heap: not a secret,
 * but good for 15 minutes, so wipe it. NULL without memory. */
char *s3_sign(const struct s3_to_sign *r);

#endif
