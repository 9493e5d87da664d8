/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_E2E_MANIFEST_H
#define WD_E2E_MANIFEST_H
/*
 * A manifest says what a tree holds, one file per line: path TAB size TAB sha256. In a path a
 * backslash, a control byte and DEL are written \xHH, everything else as it is.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHA256_TEXT 65

static inline void manifest_write(
	FILE *out, const char *path, unsigned long long size, const char *sha)
{
	for (const char *p = path; *p; p++) {
		unsigned char c = (unsigned char)*p;

		if (c < 0x20 || c == 0x7f || c == '\\')
			fprintf(out, "\\x%02x", c);
		else
			fputc(c, out);
	}
	fprintf(out, "\t%llu\t%s\n", size, sha);
}

/* Undoes the escapes in place. */
static inline void manifest_unescape(char *path)
{
	char *to = path;

	for (const char *p = path; *p; p++) {
		if (p[0] == '\\' && p[1] == 'x' && p[2] && p[3]) {
			char digits[3] = {p[2], p[3], '\0'};

			*to++ = (char)strtoul(digits, NULL, 16);
			p += 3;
		} else {
			*to++ = *p;
		}
	}
	*to = '\0';
}

static inline void sha256_text(EVP_MD_CTX *ctx, char out[SHA256_TEXT])
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;

	EVP_DigestFinal_ex(ctx, digest, &len);
	for (unsigned int i = 0; i < len && i < 32; i++)
		snprintf(out + i * 2, 3, "%02x", digest[i]);
}

#endif
