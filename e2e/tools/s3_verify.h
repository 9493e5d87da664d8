/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_S3_VERIFY_H
#define WD_E2E_S3_VERIFY_H
/*
 * Is a request signed as S3 wants it (AWS Signature Version 4, in its header)? Written from the published rules, and not
 * from agent/s3_sign.c, so that each of the two checks the other. `head` is the request's head as it came.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define S3_DIGEST 32
#define S3_HEX (2 * S3_DIGEST + 1)

/* A header's value; false when there is none. */
static inline bool s3_header(const char *head, const char *name, char *out, size_t cap)
{
	char line[80];
	const char *at;
	size_t len;

	snprintf(line, sizeof(line), "\r\n%s:", name);
	at = strcasestr(head, line);
	if (!at)
		return false;
	at += strlen(line);
	at += strspn(at, " ");
	len = strcspn(at, "\r");
	snprintf(out, cap, "%.*s", (int)len, at);
	return true;
}

/* What stands after word in the Authorization header, up to one of ends. */
static inline bool s3_authorization(const char *head, const char *word, const char *ends, char *out, size_t cap)
{
	char line[1024];
	const char *at;

	if (!s3_header(head, "Authorization", line, sizeof(line)) || strncmp(line, "AWS4-HMAC-SHA256 ", 17) != 0)
		return false;
	at = strstr(line, word);
	if (at)
		snprintf(out, cap, "%.*s", (int)strcspn(at + strlen(word), ends), at + strlen(word));
	return at != NULL;
}

/* The id of the key that it says it is signed with. */
static inline bool s3_signer(const char *head, char *out, size_t cap)
{
	return s3_authorization(head, "Credential=", "/,", out, cap);
}

static inline void s3_hex(const unsigned char *digest, char out[S3_HEX])
{
	for (int i = 0; i < S3_DIGEST; i++)
		snprintf(out + (size_t)i * 2, 3, "%02x", digest[i]);
}

static inline void s3_hmac(const void *key, size_t len, const char *text, unsigned char out[S3_DIGEST])
{
	HMAC(EVP_sha256(), key, (int)len, (const unsigned char *)text, strlen(text), out, NULL);
}

/* The SHA-256 of the canonical request, in hexadecimal. */
static inline void s3_hash_request(const char *head, const char *names, char hex[S3_HEX])
{
	char method[8] = "", url[3000] = "", value[1024], copy[256], *query, *text = NULL, *rest = copy, *name;
	unsigned char digest[S3_DIGEST];
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	sscanf(head, "%7s %2999s", method, url);
	query = strchr(url, '?');
	if (query)
		*query++ = '\0';
	fprintf(out, "%s\n%s\n%s\n", method, url, query ? query : "");
	snprintf(copy, sizeof(copy), "%s", names);
	while ((name = strsep(&rest, ";")))
		fprintf(out, "%s:%s\n", name, s3_header(head, name, value, sizeof(value)) ? value : "");
	fprintf(out, "\n%s\n%s", names, s3_header(head, "x-amz-content-sha256", value, sizeof(value)) ? value : "");
	fclose(out);
	EVP_Digest(text, len, digest, NULL, EVP_sha256(), NULL);
	free(text);
	s3_hex(digest, hex);
}

/* It is signed with this secret. */
static inline bool s3_is_signed(const char *head, const char *secret)
{
	char scope[200], names[256], signature[S3_HEX], date[32], hash[S3_HEX], text[512], seed[128];
	unsigned char key[S3_DIGEST], next[S3_DIGEST];
	char copy[200], *rest = copy, *part;

	/* the credential: id/day/region/service/aws4_request */
	if (!s3_authorization(head, "Credential=", ",", copy, sizeof(copy)) || !strsep(&rest, "/") || !rest ||
		!s3_authorization(head, "SignedHeaders=", ",", names, sizeof(names)) || !strstr(names, "host") ||
		!s3_authorization(head, "Signature=", ", ", signature, sizeof(signature)) ||
		!s3_header(head, "x-amz-date", date, sizeof(date)))
		return false;
	snprintf(scope, sizeof(scope), "%s", rest);
	s3_hash_request(head, names, hash);
	snprintf(text, sizeof(text), "AWS4-HMAC-SHA256\n%s\n%s\n%s", date, scope, hash);
	part = strsep(&rest, "/");
	snprintf(seed, sizeof(seed), "AWS4%s", secret);
	s3_hmac(seed, strlen(seed), part, key);
	while ((part = strsep(&rest, "/"))) {
		s3_hmac(key, sizeof(key), part, next);
		memcpy(key, next, sizeof(key));
	}
	s3_hmac(key, sizeof(key), text, next);
	s3_hex(next, hash);
	return strcmp(hash, signature) == 0;
}

#endif
