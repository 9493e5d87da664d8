/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WD_AGENT_IDENTITY_H
#define WD_AGENT_IDENTITY_H
/*
 * Who a mount is to its origin, in two hashes.
 *
 * `who` is what proofs of access are kept under, in the metadata on disk: it stands for the credentials, and is
 * slow to compute, so that it does not give a weak secret away; where they were made for a subject (a pod's service
 * account in a role) it stands for him. `secret` is for comparing alone, in memory.
 */
#include <stdbool.h>

#include "agent/origin.h"
#include "agent/store.h"

struct identity {
	struct object_id who, secret;
};

/* Of the credentials in options. With known, whose secret is the same, who is taken from it. */
void identity_make(
	const struct origin_options *options, const struct identity *known, struct identity *ret_identity);
bool identity_equal(const struct identity *a, const struct identity *b);

#endif
