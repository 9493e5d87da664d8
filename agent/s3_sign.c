/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS Signature Version 4 with OpenSSL's HMAC:
 *
 *	canonical request = method, path, query, headers, names of the headers, payload hash
 *	string to sign    = algorithm, time, scope, SHA-256 of the canonical request
 *	key               = HMAC chain over date, region, service from the secret
 *
 * The canonical request is fed into the hash piece by piece; keys are wiped. Any thread.
 */
#include "agent/s3_sign.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHA256_LEN 32

void s3_date(time_t t, char out[S3_DATE_LEN])
{
	struct tm tm = {0};

	gmtime_r(&t, &tm);
	if (strftime(out, S3_DATE_LEN, "%Y%m%dT%H%M%SZ", &tm) == 0)
		out[0] = 0;
}

static void to_hex(const unsigned char *in, size_t len, char *out)
{
	for (size_t i = 0; i < len; i++)
		sprintf(out + 2 * i, "%02x", in[i]);
}

static bool hmac(const void *key, size_t key_len, const char *text, unsigned char out[SHA256_LEN])
{
	unsigned len = 0;

	return HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), out,
		       &len) &&
	       len == SHA256_LEN;
}

static bool hash_request(const struct s3_to_sign *r, char hex[2 * SHA256_LEN + 1])
{
	unsigned char digest[SHA256_LEN];
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1;
	const char *head[] = {r->method, "\n", r->path, "\n", r->query, "\n"};

	for (size_t i = 0; ok && i < sizeof(head) / sizeof(head[0]); i++)
		ok = EVP_DigestUpdate(md, head[i], strlen(head[i])) == 1;
	for (size_t i = 0; ok && i < r->nheaders; i++) {
		const char *parts[] = {r->headers[i].name, ":", r->headers[i].value, "\n"};

		for (size_t j = 0; ok && j < 4; j++)
			ok = EVP_DigestUpdate(md, parts[j], strlen(parts[j])) == 1;
	}
	for (size_t i = 0; ok && i < r->nheaders; i++)
		ok = EVP_DigestUpdate(md, i ? ";" : "\n", 1) == 1 &&
		     EVP_DigestUpdate(md, r->headers[i].name, strlen(r->headers[i].name)) == 1;
	ok = ok && EVP_DigestUpdate(md, "\n", 1) == 1 &&
	     EVP_DigestUpdate(md, r->payload_hash, strlen(r->payload_hash)) == 1 &&
	     EVP_DigestFinal_ex(md, digest, NULL) == 1;
	EVP_MD_CTX_free(md);
	if (ok)
		to_hex(digest, sizeof(digest), hex);
	return ok;
}

/* The signing key: good for a day, a region and a service. */
static bool make_key(const struct s3_to_sign *r, const char *day, unsigned char key[SHA256_LEN])
{
	unsigned char other[SHA256_LEN];
	size_t len = strlen(r->secret_key) + 5;
	char *seed = malloc(len);
	bool ok = seed != NULL;

	if (ok) {
		snprintf(seed, len, "AWS4%s", r->secret_key);
		ok = hmac(seed, len - 1, day, key) && hmac(key, SHA256_LEN, r->region, other) &&
		     hmac(other, SHA256_LEN, r->service, key) &&
		     hmac(key, SHA256_LEN, "aws4_request", other);
		memcpy(key, other, SHA256_LEN);
		explicit_bzero(seed, len);
	}
	explicit_bzero(other, sizeof(other));
	free(seed);
	return ok;
}

static char *header_names(const struct s3_to_sign *r)
{
	size_t len = 1;
	char *names, *p;

	for (size_t i = 0; i < r->nheaders; i++)
		len += strlen(r->headers[i].name) + 1;
	names = p = malloc(len);
	if (!names)
		return NULL;
	*p = 0;
	for (size_t i = 0; i < r->nheaders; i++)
		p += sprintf(p, "%s%s", i ? ";" : "", r->headers[i].name);
	return names;
}

char *s3_sign(const struct s3_to_sign *r)
{
	unsigned char key[SHA256_LEN], signature[SHA256_LEN];
	char hex[2 * SHA256_LEN + 1], date[S3_DATE_LEN], day[9];
	char *names = header_names(r), *to_sign = NULL, *out = NULL;
	bool ok;

	s3_date(r->time, date);
	snprintf(day, sizeof(day), "%.8s", date);
	ok = names && hash_request(r, hex) &&
	     asprintf(&to_sign, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", date, day,
		     r->region, r->service, hex) >= 0;
	ok = ok && make_key(r, day, key) && hmac(key, sizeof(key), to_sign, signature);
	if (ok) {
		to_hex(signature, sizeof(signature), hex);
		if (asprintf(&out,
			    "AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request,"
			    "SignedHeaders=%s,Signature=%s",
			    r->access_key, day, r->region, r->service, names, hex) < 0)
			out = NULL;
	}
	explicit_bzero(key, sizeof(key));
	free(to_sign);
	free(names);
	return out;
}
