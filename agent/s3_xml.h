/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_S3_XML_H
#define WD_AGENT_S3_XML_H
/* The two XML documents of S3 that are read: ListObjectsV2 results and errors. Untrusted input; no
 * DTD is accepted, every text has a bound. Pure. */
#include <stdbool.h>
#include <stddef.h>

#include "agent/origin.h"

#define S3_TOKEN_MAX 2048

struct s3_page {
	/* Objects and common prefixes as they come; keys are whole (with the dataset's prefix) and
	 * decoded. Returning false ends the parsing (is_ended). */
	origin_entry_cb cb;
	void *arg;
	/* out */
	bool is_truncated, is_ended;
	char token[S3_TOKEN_MAX]; /* NextContinuationToken */
	size_t nleft_out;	  /* keys with a NUL, or too long */
};

/* Returns 0, or -EPROTO with what is wrong. */
int s3_parse_page(const void *xml, size_t len, struct s3_page *page, struct wd_err *err);

struct s3_error {
	char code[64];
	char message[200];
	char region[64];
};
/* Fills what it finds, also in a document that is cut off; false when it is no error document. */
bool s3_parse_error(const void *xml, size_t len, struct s3_error *ret_error);

/* Undoes encoding-type=url in place ("%2F", and "+" for a blank); returns the new length. A "%"
 * that begins no escape stays. */
size_t s3_url_decode(char *text, size_t len);

#endif
