/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_HTTP_CREDENTIALS_H
#define WD_AGENT_HTTP_CREDENTIALS_H
/*
 * What a site signs its requests with: counted, constant once made, and replaced as a whole while requests are
 * under way. Wiped when the last request that uses them has ended.
 */
#include "agent/origin.h"

struct http_credentials {
	_Atomic int refs;
	char *access_key, *secret_key, *session_token; /* s3; NULL: unsigned */
	char *authorization;			       /* http: the header's line; NULL: none */
};

/* Empty, one reference; NULL without memory. */
struct http_credentials *http_credentials_new(void);
struct http_credentials *http_credentials_ref(struct http_credentials *c);
void http_credentials_unref(struct http_credentials *c);

#endif
