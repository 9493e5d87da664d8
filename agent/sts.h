/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_STS_H
#define WD_AGENT_STS_H
/*
 * AssumeRoleWithWebIdentity: a token of somebody whom the role trusts for keys that are good for an hour or so. One
 * POST, retried inside a few seconds; blocks. Amazon's, or what speaks the same (Ceph, MinIO).
 */
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct sts_keys {
	char *access_key, *secret_key, *session_token;
	int64_t expires_s; /* Unix time; 0: it did not say */
};

/* endpoint: http(s)://host[:port][/path]. The errors are those of origin_check(): err->code EKEYREJECTED where the
 * token is refused, EHOSTDOWN where nobody answers. */
int sts_assume(const char *endpoint, const char *role_arn, const char *token, struct sts_keys *ret_keys,
	struct wd_err *err);
/* Wipes and frees what it holds. */
void sts_keys_done(struct sts_keys *k);

/* The answer's document; -EPROTO. */
int sts_parse(const void *xml, size_t len, struct sts_keys *ret_keys, struct wd_err *err);

#endif
