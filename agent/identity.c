/* SPDX-License-Identifier: Apache-2.0 */
/* See identity.h: SHA-256 for comparing, PBKDF2 for what is kept. Any thread. */
#include "agent/identity.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

#define ROUNDS 20000 /* some milliseconds, once per change */

static void add(EVP_MD_CTX *md, const char *text)
{
	EVP_DigestUpdate(md, text ? text : "", text ? strlen(text) + 1 : 1);
}

void identity_make(
	const struct origin_options *o, const struct identity *known, struct identity *ret_identity)
{
	static const unsigned char salt[] = "warpdrive identity";
	EVP_MD_CTX *md = EVP_MD_CTX_new();
	unsigned char digest[SHA256_DIGEST_LENGTH] = {0};
	bool is_nobody = o->is_anonymous || (!o->access_key && !o->bearer_token);
	struct identity id = {0};

	if (!is_nobody && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1) {
		add(md, o->access_key);
		add(md, o->secret_key);
		add(md, o->session_token);
		add(md, o->bearer_token);
		EVP_DigestFinal_ex(md, digest, NULL);
	}
	EVP_MD_CTX_free(md);
	memcpy(id.secret.b, digest, sizeof(id.secret.b));
	/* keys that are made for somebody come and go: he stays */
	if (!is_nobody && o->subject)
		EVP_Digest(o->subject, strlen(o->subject), digest, NULL, EVP_sha256(), NULL);
	if (known && memcmp(&known->secret, &id.secret, sizeof(id.secret)) == 0)
		id.who = known->who;
	else if (!is_nobody)
		PKCS5_PBKDF2_HMAC((const char *)digest, sizeof(digest), salt, sizeof(salt), ROUNDS, EVP_sha256(),
			sizeof(id.who.b), id.who.b);
	explicit_bzero(digest, sizeof(digest));
	*ret_identity = id;
}

bool identity_equal(const struct identity *a, const struct identity *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}
